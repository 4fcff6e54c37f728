#include "base/tensor.h"

#include <atomic>
#include <algorithm>
#include <cstring>
#include <mutex>

#include "base/available_memory.h"
#include "base/file_map.h"
#include "base/float_formats.h"

namespace tiercel {

int64_t storage_count(const Shape& shape, Layout layout) {
  if (layout == Layout::kPlain || shape.rank() < 2) return shape.count();
  Shape padded = shape;
  padded[1] = round_up(shape[1], kChannelBlock);
  return padded.count();
}

Shape storage_shape(const Shape& shape, Layout layout) {
  if (layout == Layout::kPlain || shape.rank() < 2) return shape;
  Shape s = shape;
  s[1] = ceil_div(shape[1], kChannelBlock);
  s.push_back(kChannelBlock);
  return s;
}

Tensor::Tensor(DType dtype, const Shape& shape, Layout layout) : dtype_(dtype), layout_(layout), shape_(shape) {
  const int64_t n = storage_count(shape, layout);
  if (dtype == DType::kString) {
    require_memory(static_cast<size_t>(std::min<int64_t>(n, int64_t{1} << 50)) * sizeof(std::string));
    auto strings = std::shared_ptr<std::string[]>(new std::string[static_cast<size_t>(n)]);
    data_ = strings.get();
    owner_ = Buffer(strings, strings.get());
    return;
  }
  int64_t bits;
  if (__builtin_mul_overflow(n, static_cast<int64_t>(bits_of(dtype)), &bits))
    fail(Code::kFail, "out of memory: a tensor of shape ", shape.str());
  owner_ = allocate(static_cast<size_t>(bytes_of(dtype, n)));
  data_ = owner_.get();
}

namespace {
struct Deferred : Tensor::Source {
  std::once_flag once;
  Buffer copy;
  std::atomic<void*> aligned{nullptr};  // copy's memory, once it is filled
};
}  // namespace

Tensor Tensor::deferred(DType dtype, const Shape& shape, const void* bytes, Buffer owner) {
  auto d = std::make_shared<Deferred>();
  d->data = bytes;
  d->owner = std::move(owner);
  Tensor t(dtype, shape, static_cast<Source*>(d.get()), d);
  t.deferred_ = true;
  return t;
}

namespace {
// Bytes [begin, begin + size) out of a file map, giving its pages back on the way: the copy and its source are never both in memory.
void take_bytes(const Tensor::Source& from, void* to, int64_t begin, int64_t size) {
  constexpr int64_t kStep = int64_t{4} << 20;
  for (int64_t i = begin; i < begin + size; i += kStep) {
    const auto step = static_cast<size_t>(std::min(kStep, begin + size - i));
    const char* source = static_cast<const char*>(from.data) + i;
    std::memcpy(static_cast<char*>(to) + (i - begin), source, step);
    release_pages(from.owner, source, step);
  }
}
}  // namespace

void* Tensor::materialise() const {
  auto* d = static_cast<Deferred*>(static_cast<Source*>(data_));
  std::call_once(d->once, [&] {
    d->copy = allocate(static_cast<size_t>(bytes()));
    take_bytes(*d, d->copy.get(), 0, bytes());
  });
  return d->copy.get();
}

Tensor Tensor::transient(const Split& split) const {
  constexpr int64_t kPart = int64_t{512} << 10;
  if (!deferred_ || static_cast<Deferred*>(static_cast<Source*>(data_))->copy) return *this;
  Tensor t(dtype_, shape_, layout_);
  const auto take = [&](int64_t begin, int64_t end) { take_bytes(deferred_bytes(), static_cast<char*>(t.data()) + begin, begin, end - begin); };
  if (split) split(bytes(), kPart, take);
  else take(0, bytes());
  return t;
}

void Tensor::read(int64_t begin, int64_t size, void* to) const {
  const bool in_place = deferred_ && !static_cast<Deferred*>(static_cast<Source*>(data_))->copy;
  std::memcpy(to, static_cast<const char*>(in_place ? deferred_bytes().data : data()) + begin, static_cast<size_t>(size));
}

std::vector<int64_t> Tensor::ints() const {
  const size_t n = static_cast<size_t>(count());
  std::vector<int64_t> v(n);
  auto copy = [&](auto* p) { for (size_t i = 0; i < n; ++i) v[i] = static_cast<int64_t>(p[i]); };
  switch (dtype_) {
    case DType::kInt64: copy(as<int64_t>()); break;
    case DType::kInt32: copy(as<int32_t>()); break;
    case DType::kInt16: copy(as<int16_t>()); break;
    case DType::kInt8: copy(as<int8_t>()); break;
    case DType::kUInt64: copy(as<uint64_t>()); break;
    case DType::kUInt32: copy(as<uint32_t>()); break;
    case DType::kUInt16: copy(as<uint16_t>()); break;
    case DType::kUInt8: copy(as<uint8_t>()); break;
    case DType::kBool: copy(as<uint8_t>()); break;
    default: fail(Code::kInvalidArgument, "expected an integer tensor, got tensor(", dtype_name(dtype_), ")");
  }
  return v;
}

std::vector<double> Tensor::doubles() const {
  const size_t n = static_cast<size_t>(count());
  std::vector<double> v(n);
  switch (dtype_) {
    case DType::kFloat: for (size_t i = 0; i < n; ++i) v[i] = as<float>()[i]; break;
    case DType::kDouble: for (size_t i = 0; i < n; ++i) v[i] = as<double>()[i]; break;
    case DType::kFloat16: for (size_t i = 0; i < n; ++i) v[i] = to_float(as<Half>()[i]); break;
    case DType::kBFloat16: for (size_t i = 0; i < n; ++i) v[i] = to_float(as<BFloat16>()[i]); break;
    default: {
      const auto w = ints();
      for (size_t i = 0; i < n; ++i) v[i] = static_cast<double>(w[i]);
    }
  }
  return v;
}

Tensor Tensor::from_ints(DType dtype, const Shape& shape, const int64_t* values) {
  Tensor t(dtype, shape);
  const int64_t n = shape.count();
  auto put = [&](auto* p) {
    for (int64_t i = 0; i < n; ++i) p[i] = static_cast<std::remove_reference_t<decltype(*p)>>(values[i]);
  };
  switch (dtype) {
    case DType::kInt64: put(t.as<int64_t>()); break;
    case DType::kInt32: put(t.as<int32_t>()); break;
    case DType::kInt16: put(t.as<int16_t>()); break;
    case DType::kInt8: put(t.as<int8_t>()); break;
    case DType::kUInt64: put(t.as<uint64_t>()); break;
    case DType::kUInt32: put(t.as<uint32_t>()); break;
    case DType::kUInt16: put(t.as<uint16_t>()); break;
    case DType::kUInt8: put(t.as<uint8_t>()); break;
    case DType::kBool: put(t.as<uint8_t>()); break;
    case DType::kFloat: put(t.as<float>()); break;
    case DType::kDouble: put(t.as<double>()); break;
    default: fail(Code::kInvalidArgument, "cannot make a tensor(", dtype_name(dtype), ") from integers");
  }
  return t;
}

}  // namespace tiercel

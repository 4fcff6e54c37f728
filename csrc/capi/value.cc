#include <cstring>

#include "capi/handles.h"
#include "capi/tensor.h"

namespace tiercel::capi {

Shape shape_of(int32_t rank, const int64_t* dims) {
  if (rank < 0 || rank > kMaxRank)
    fail(Code::kInvalidArgument, "rank ", rank, " is outside 0 to ", kMaxRank);
  if (rank) need(dims, "dims");
  Shape s(std::span<const Dim>(dims, static_cast<size_t>(rank)));
  for (Dim d : s) if (d < 0) fail(Code::kInvalidArgument, "the extent ", d, " is negative");
  return s;
}

DType dtype_of(int32_t number) {
  if (number <= 0 || number >= kNumDTypes) fail(Code::kInvalidArgument, "dtype ", number, " is none of tiercel_dtype");
  return static_cast<DType>(number);
}

Tensor view_of(const tiercel_arg& a) {
  const DType dtype = dtype_of(a.dtype);
  if (dtype == DType::kString) fail(Code::kInvalidArgument, "strings are passed as a tiercel_value, not as a buffer");
  const Shape shape = shape_of(a.rank, a.dims);
  if (!a.data && shape.count() != 0) fail(Code::kInvalidArgument, "data is NULL for a tensor of shape ", shape.str());
  return Tensor(dtype, shape, a.data, nullptr);
}

void check_index(size_t index, size_t count) {
  if (index >= count) fail(Code::kInvalidArgument, "index ", index, " is outside the ", count, " that there are");
}

}  // namespace tiercel::capi

using namespace tiercel;
using capi::guard;
using capi::need;

extern "C" {

tiercel_status tiercel_value_from_buffer(const tiercel_arg* buffer, tiercel_value** out) {
  return guard([&] {
    need(buffer, "buffer"), need(out, "out");
    const Tensor view = capi::view_of(*buffer);
    Tensor copy(view.dtype(), view.shape());
    if (view.bytes()) std::memcpy(copy.data(), view.data(), static_cast<size_t>(view.bytes()));
    *out = new tiercel_value{copy};
  });
}

tiercel_status tiercel_value_from_strings(int32_t rank, const int64_t* dims, const char* const* strings,
                                          const size_t* lengths, tiercel_value** out) {
  return guard([&] {
    need(out, "out");
    Tensor t(DType::kString, capi::shape_of(rank, dims));
    const int64_t n = t.count();
    if (n) need(strings, "strings");
    for (int64_t i = 0; i < n; ++i) {
      need(strings[i], "a string");
      if (lengths) t.as<std::string>()[i].assign(strings[i], lengths[i]);
      else t.as<std::string>()[i].assign(strings[i]);
    }
    *out = new tiercel_value{t};
  });
}

tiercel_status tiercel_value_from_items(int32_t dtype, const tiercel_value* const* items, size_t count, tiercel_value** out) {
  return guard([&] {
    need(out, "out");
    if (count) need(items, "items");
    auto s = std::make_shared<Sequence>();
    s->dtype = capi::dtype_of(dtype);
    for (size_t i = 0; i < count; ++i) {
      need(items[i], "an item");
      if (!items[i]->value.is_tensor() || items[i]->value.tensor().dtype() != s->dtype)
        fail(Code::kInvalidArgument, "item ", i, " is not a tensor of ", dtype_name(s->dtype));
      s->items.push_back(items[i]->value.tensor());
    }
    *out = new tiercel_value{std::shared_ptr<const Sequence>(std::move(s))};
  });
}

void tiercel_value_free(tiercel_value* value) { delete value; }

tiercel_kind tiercel_value_kind(const tiercel_value* value) {
  if (!value || value->value.empty()) return TIERCEL_NOTHING;
  return value->value.is_tensor() ? TIERCEL_TENSOR : TIERCEL_SEQUENCE;
}

tiercel_status tiercel_value_view(const tiercel_value* value, tiercel_arg* out) {
  return guard([&] {
    need(value, "value"), need(out, "out");
    if (!value->value.is_tensor()) fail(Code::kInvalidArgument, "the value is not a tensor");
    const Tensor& t = value->value.tensor();
    *out = {TIERCEL_BUFFER, static_cast<int32_t>(t.dtype()), t.shape().rank(), t.shape().data(),
            t.dtype() == DType::kString ? nullptr : t.data(), nullptr};
  });
}

tiercel_status tiercel_value_string(const tiercel_value* value, size_t index, const char** bytes, size_t* length) {
  return guard([&] {
    need(value, "value"), need(bytes, "bytes");
    if (!value->value.is_tensor() || value->value.tensor().dtype() != DType::kString)
      fail(Code::kInvalidArgument, "the value is not a tensor of strings");
    const Tensor& t = value->value.tensor();
    capi::check_index(index, static_cast<size_t>(t.count()));
    const std::string& s = t.as<std::string>()[index];
    *bytes = s.c_str();
    if (length) *length = s.size();
  });
}

size_t tiercel_value_count(const tiercel_value* value) {
  if (!value || value->value.empty()) return 0;
  if (value->value.is_tensor()) return static_cast<size_t>(value->value.tensor().count());
  return value->value.sequence()->items.size();
}

tiercel_status tiercel_value_item(const tiercel_value* value, size_t index, tiercel_value** out) {
  return guard([&] {
    need(value, "value"), need(out, "out");
    if (!value->value.is_sequence()) fail(Code::kInvalidArgument, "the value is not a sequence");
    const auto& items = value->value.sequence()->items;
    capi::check_index(index, items.size());
    *out = new tiercel_value{items[index]};
  });
}

}

// TensorProto and SparseTensorProto.
#include <charconv>
#include <cstring>
#include <limits>

#include "onnx/export.h"
#include "onnx/proto.h"

namespace tiercel::onnx {
namespace {

// The repeated numeric fields of a TensorProto.
enum DataField : uint32_t { kFloatData = 4, kInt32Data = 5, kInt64Data = 7, kDoubleData = 10, kUInt64Data = 11 };

struct Header {
  std::string_view name, raw;
  std::vector<int64_t> dims;
  int32_t dtype = 0;
  bool has_raw = false, external = false;
  std::vector<std::string_view> strings;
  std::vector<std::pair<std::string_view, std::string_view>> external_data, metadata;
  size_t typed_bytes[12] = {};  // by DataField: wire bytes seen
};

// The typed field that holds a dtype, and how many of its numbers make n elements.
DataField data_field(DType t) {
  switch (t) {
    case DType::kFloat: case DType::kComplex64: return kFloatData;
    case DType::kDouble: case DType::kComplex128: return kDoubleData;
    case DType::kInt64: return kInt64Data;
    case DType::kUInt32: case DType::kUInt64: return kUInt64Data;
    default: return kInt32Data;
  }
}
int64_t typed_numbers(DType t, int64_t n) {
  if (t == DType::kComplex64 || t == DType::kComplex128) return 2 * n;
  return bits_of(t) < 8 ? bytes_of(t, n) : n;  // sub-byte types: one number a byte
}

bool aligned_for(const void* p, DType t) {
  const int bytes = t == DType::kComplex64 ? 4 : t == DType::kComplex128 ? 8 : std::max(bits_of(t) / 8, 1);
  return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(bytes) == 0;
}

// Bytes of the file as a tensor: in place, or deferred where they are not aligned. A bool other than 0 and 1 becomes 1.
Tensor in_place(DType dtype, const Shape& shape, const void* bytes, int64_t size, const Buffer& owner) {
  if (dtype == DType::kBool) {
    const auto* b = static_cast<const uint8_t*>(bytes);
    bool clean = true;
    for (int64_t i = 0; i < size; ++i) clean &= b[i] < 2;
    if (!clean) {
      Tensor t(dtype, shape);
      for (int64_t i = 0; i < size; ++i) t.as<uint8_t>()[i] = b[i] != 0;
      return t;
    }
  }
  if (!aligned_for(bytes, dtype)) {
    if (size > 256) return Tensor::deferred(dtype, shape, bytes, owner);
    Tensor t(dtype, shape);
    std::memcpy(t.data(), bytes, static_cast<size_t>(size));
    return t;
  }
  return Tensor(dtype, shape, const_cast<void*>(bytes), owner);
}

void read_header(Reader& r, Header& h) {
  while (r.next()) switch (r.field()) {
    case 1: r.integers("dims", h.dims); break;
    case 2: h.dtype = r.integer32("data_type"); break;
    case 3: r.fail("tensors stored in segments are not supported");
    case kFloatData: case kInt32Data: case kInt64Data: case kDoubleData: case kUInt64Data: {
      const uint32_t field = r.field();
      h.typed_bytes[field] += r.payload_size();
      break;
    }
    case 6: h.strings.push_back(r.bytes("string_data", static_cast<int64_t>(h.strings.size()))); break;
    case 8: h.name = r.bytes("name"); break;
    case 9: h.raw = r.bytes("raw_data"); h.has_raw = true; break;
    case 13: case 16: {
      auto& entries = r.field() == 13 ? h.external_data : h.metadata;
      Reader m = r.message(r.field() == 13 ? "external_data" : "metadata_props", static_cast<int64_t>(entries.size()));
      auto& [key, value] = entries.emplace_back();
      while (m.next()) switch (m.field()) {
        case 1: key = m.bytes("key"); break;
        case 2: value = m.bytes("value"); break;
        default: m.skip();
      }
      break;
    }
    case 14: h.external = r.integer("data_location") == 1; break;
    default: r.skip();
  }
}

std::string tensor_label(const Header& h) { return h.name.empty() ? "tensor" : cat("tensor \"", h.name, "\""); }

// Decodes the typed field of a dtype from a second walk over the message.
void read_typed(Reader& r, const Header& h, Tensor& t, int64_t numbers) {
  const DType dtype = t.dtype();
  const uint32_t field = data_field(dtype);
  int64_t got = 0;
  const auto put = [&](auto* to, auto v) {
    if (got < numbers) to[got] = static_cast<std::remove_reference_t<decltype(*to)>>(v);
    ++got;
  };
  while (r.next()) {
    if (r.field() != field) { r.skip(); continue; }
    switch (field) {
      case kFloatData: r.each_fixed<float>("float_data", [&, p = t.as<float>()](float v) { put(p, v); }); continue;
      case kDoubleData: r.each_fixed<double>("double_data", [&, p = t.as<double>()](double v) { put(p, v); }); continue;
      default: break;
    }
    const auto varints = [&](auto* p) { r.each_varint("typed data", [&](uint64_t v) { put(p, v); }); };
    if (dtype == DType::kBool) {
      r.each_varint("int32_data", [&, p = t.as<uint8_t>()](uint64_t v) { put(p, v != 0); });
    } else {
      switch (std::max(bits_of(dtype), 8)) {
        case 8: varints(t.as<uint8_t>()); break;
        case 16: varints(t.as<uint16_t>()); break;
        case 32: varints(t.as<uint32_t>()); break;
        default: varints(t.as<uint64_t>()); break;
      }
    }
  }
  if (got != numbers)
    r.fail(tensor_label(h), " of type ", dtype_name(dtype), " and shape ", t.shape().str(), " needs ", numbers,
           " numbers in its typed data, found ", got);
}

int64_t number(Reader& r, const Header& h, std::string_view key, std::string_view text) {
  int64_t v = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size() || v < 0)
    r.fail(tensor_label(h), ": ", key, " is \"", text, "\", not a count");
  return v;
}

Tensor read_external(Reader& r, const Header& h, DType dtype, const Shape& shape, int64_t size, Source& source) {
  std::string_view location;
  int64_t offset = 0, length = -1;
  for (const auto& [key, value] : h.external_data) {
    if (key == "location") location = value;
    else if (key == "offset") offset = number(r, h, key, value);
    else if (key == "length") length = number(r, h, key, value);
  }
  if (dtype == DType::kString) r.fail(tensor_label(h), ": strings cannot be external data");
  if (length >= 0 && length != size)
    r.fail(tensor_label(h), " of type ", dtype_name(dtype), " and shape ", shape.str(), " needs ", size,
           " bytes, but its external data has ", length);
  const FileBytes* file;
  try {
    file = &source.external.open(location);
  } catch (const Error& e) {
    r.raise(e.code(), cat(tensor_label(h), ": ", e.what()));
  }
  if (offset > static_cast<int64_t>(file->size) || size > static_cast<int64_t>(file->size) - offset)
    r.fail(tensor_label(h), ": bytes ", offset, " to ", offset, "+", size, " of external data \"", location,
           "\" lie past its end (", file->size, " bytes)");
  return in_place(dtype, shape, file->data + offset, size, file->owner);
}

Shape read_shape(const Reader& r, const std::string& what, const std::vector<int64_t>& dims) {
  if (dims.size() > kMaxRank)
    r.raise(Code::kNotImplemented, cat(what, " has rank ", dims.size(), "; at most ", kMaxRank, " is supported"));
  for (int64_t d : dims) if (d < 0) r.fail(what, " has the negative dimension ", d);
  return Shape(std::span<const Dim>(dims));
}

// Elements and bytes of a shape; fails where they overflow.
std::pair<int64_t, int64_t> sizes(const Reader& r, const std::string& what, DType dtype, const Shape& shape) {
  int64_t n = 1, bits;
  for (Dim d : shape) if (d == 0) return {0, 0};
  for (Dim d : shape)
    if (__builtin_mul_overflow(n, d, &n)) r.fail(what, " of shape ", shape.str(), " has too many elements");
  if (__builtin_mul_overflow(n, static_cast<int64_t>(bits_of(dtype)), &bits) || bits > std::numeric_limits<int64_t>::max() - 8)
    r.fail(what, " of shape ", shape.str(), " has too many elements");
  return {n, bytes_of(dtype, n)};
}

// The tensor in the layout that its metadata names (see export.h): its dimensions are those of the memory.
Tensor with_layout(Reader& r, const Header& h, Tensor t) {
  std::string_view layout, text;
  for (const auto& [key, value] : h.metadata) {
    if (key == kLayoutKey) layout = value;
    if (key == kShapeKey) text = value;
  }
  if (layout != kBlockedLayout || t.dtype() == DType::kString) return t;
  std::vector<int64_t> dims;
  for (size_t at = 0; at < text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    dims.push_back(number(r, h, kShapeKey, text.substr(at, comma - at)));
    at = comma + 1;
  }
  const Shape shape = read_shape(r, tensor_label(h), dims);
  Shape stored = shape;
  if (shape.rank() >= 2) {
    stored[1] = shape[1] / kChannelBlock + (shape[1] % kChannelBlock != 0);
    stored.push_back(kChannelBlock);
  }
  if (shape.rank() < 2 || !(stored == t.shape()))
    r.fail(tensor_label(h), " of stored shape ", t.shape().str(), " cannot be ", shape.str(), " in the layout ", layout);
  return t.viewed(shape, Layout::kBlocked);
}

Tensor read_plain_tensor(Reader& r, Header& h, Source& source);

}  // namespace

std::pair<std::string_view, Tensor> read_tensor(Reader& r, Source& source) {
  Header h;
  Tensor t = read_plain_tensor(r, h, source);
  if (!h.metadata.empty()) t = with_layout(r, h, std::move(t));
  return {h.name, std::move(t)};
}

namespace {

Tensor read_plain_tensor(Reader& r, Header& h, Source& source) {
  Reader again = r.restart();
  read_header(r, h);
  const std::string label = tensor_label(h);
  if (h.dtype <= 0 || h.dtype >= kNumDTypes)
    r.raise(h.dtype == 27 || h.dtype == 28 ? Code::kNotImplemented : Code::kInvalidProtobuf,
            cat(label, " has the element type ", h.dtype, ", which is not supported"));
  const DType dtype = static_cast<DType>(h.dtype);
  const Shape shape = read_shape(r, label, h.dims);
  const auto [n, bytes] = sizes(r, label, dtype, shape);

  if (h.external) return read_external(r, h, dtype, shape, bytes, source);
  if (dtype == DType::kString) {
    if (static_cast<int64_t>(h.strings.size()) != n)
      r.fail(label, " of shape ", shape.str(), " needs ", n, " strings, found ", h.strings.size());
    Tensor t(dtype, shape);
    for (int64_t i = 0; i < n; ++i) t.as<std::string>()[i] = h.strings[static_cast<size_t>(i)];
    return t;
  }
  const size_t typed = h.typed_bytes[data_field(dtype)];
  if (!h.raw.empty() || (h.has_raw && !typed)) {
    if (static_cast<int64_t>(h.raw.size()) != bytes)
      r.fail(label, " of type ", dtype_name(dtype), " and shape ", shape.str(), " needs ", bytes, " bytes, but raw_data has ",
             h.raw.size());
    if (n == 0) return Tensor(dtype, shape);
    return in_place(dtype, shape, h.raw.data(), bytes, source.owner);
  }
  // Each number takes at least a byte (4 or 8 where its size is fixed), so this bounds what is allocated.
  const int64_t numbers = typed_numbers(dtype, n);
  const size_t each = data_field(dtype) == kFloatData ? 4 : data_field(dtype) == kDoubleData ? 8 : 1;
  if (typed / each < static_cast<size_t>(numbers))
    r.fail(label, " of type ", dtype_name(dtype), " and shape ", shape.str(), " needs ", numbers, " numbers, but its data has ",
           typed, " bytes");
  Tensor t(dtype, shape);
  read_typed(again, h, t, numbers);
  return t;
}

}  // namespace

std::pair<std::string_view, Tensor> read_sparse_tensor(Reader& r, Source& source) {
  std::string_view name;
  Tensor values, indices;
  std::vector<int64_t> dims;
  while (r.next()) switch (r.field()) {
    case 1: { Reader m = r.message("values"); std::tie(name, values) = read_tensor(m, source); break; }
    case 2: { Reader m = r.message("indices"); indices = read_tensor(m, source).second; break; }
    case 3: r.integers("dims", dims); break;
    default: r.skip();
  }
  const std::string label = name.empty() ? "sparse tensor" : cat("sparse tensor \"", name, "\"");
  const Shape shape = read_shape(r, label, dims);
  if (!values.defined() || values.shape().rank() != 1) r.fail(label, ": its values must be a tensor of rank 1");
  const DType dtype = values.dtype();
  const int64_t n = values.count();
  const auto [count, bytes] = sizes(r, label, dtype, shape);
  const int rank = shape.rank();
  if (bits_of(dtype) < 8) r.raise(Code::kNotImplemented, cat(label, ": sparse tensors of type ", dtype_name(dtype), " are not supported"));
  // A few bytes must not ask for the memory of the machine.
  constexpr int64_t kFree = int64_t{64} << 20, kPerValue = 4096;
  if (bytes > kFree && bytes / kPerValue > values.bytes())
    r.raise(Code::kNotImplemented, cat(label, " of shape ", shape.str(), " would take ", bytes, " bytes for ", n, " values; it is made dense"));
  if (!indices.defined() && n) r.fail(label, ": no indices");
  if (n && indices.dtype() != DType::kInt64) r.fail(label, ": its indices must be int64");
  const bool linear = n == 0 || indices.shape().rank() == 1;
  const Shape expected = linear ? Shape({n}) : Shape({n, rank});
  if (n && !(indices.shape() == expected)) r.fail(label, ": its indices have shape ", indices.shape().str(), ", expected ", expected.str());

  Tensor dense(dtype, shape);
  const size_t each = static_cast<size_t>(bits_of(dtype) / 8);
  if (dtype != DType::kString) std::memset(dense.data(), 0, static_cast<size_t>(bytes));
  for (int64_t i = 0; i < n; ++i) {
    int64_t at = 0;
    if (linear) {
      at = indices.as<int64_t>()[i];
    } else {
      for (int d = 0; d < rank; ++d) {
        const int64_t x = indices.as<int64_t>()[i * rank + d];
        if (x < 0 || x >= shape[d]) r.fail(label, ": index ", x, " is outside dimension ", d, " of ", shape.str());
        at = at * shape[d] + x;
      }
    }
    if (at < 0 || at >= count) r.fail(label, ": index ", at, " is outside its ", count, " elements");
    if (dtype == DType::kString) dense.as<std::string>()[at] = values.as<std::string>()[i];
    else std::memcpy(dense.as<char>() + static_cast<size_t>(at) * each, values.as<char>() + static_cast<size_t>(i) * each, each);
  }
  return {name, dense};
}

}  // namespace tiercel::onnx

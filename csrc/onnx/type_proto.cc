// TypeProto and TensorShapeProto.
#include "onnx/proto.h"

namespace tiercel::onnx {
namespace {

DType read_dtype(Reader& r) {
  const int32_t t = r.integer32("elem_type");
  // An unknown element type matters only where the value is used: leave it undefined.
  return t > 0 && t < kNumDTypes ? static_cast<DType>(t) : DType::kUndefined;
}

Dim read_dim(Reader& r, SymbolTable& symbols) {
  int64_t value = -1;
  std::string_view param;
  while (r.next()) switch (r.field()) {
    case 1: value = r.integer("dim_value"); param = {}; break;
    case 2: param = r.bytes("dim_param"); value = -1; break;
    default: r.skip();
  }
  if (value >= 0) return value;
  return param.empty() ? symbols.fresh() : symbols.named(std::string(param));  // some exporters write -1 for unknown
}

void read_tensor_type(Reader& r, Type& type, Source& source) {
  while (r.next()) switch (r.field()) {
    case 1: type.dtype = read_dtype(r); break;
    case 2: {
      Reader shape = r.message("shape");
      type.shape = Shape();
      type.ranked = true;
      while (shape.next()) {
        if (shape.field() != 1) { shape.skip(); continue; }
        Reader dim = shape.message("dim", type.shape.rank());
        if (type.shape.rank() == kMaxRank)
          dim.raise(Code::kNotImplemented, cat("tensors of rank above ", kMaxRank, " are not supported"));
        type.shape.push_back(read_dim(dim, source.symbols));
      }
      break;
    }
    default: r.skip();
  }
}

// The type inside a sequence or optional.
Type read_element(Reader& r, Source& source) {
  Type type;
  while (r.next()) {
    if (r.field() != 1) { r.skip(); continue; }
    Reader m = r.message("elem_type");
    type = read_type(m, source);
  }
  return type;
}

}  // namespace

Type read_type(Reader& r, Source& source) {
  Type type;
  while (r.next()) switch (r.field()) {
    case 1: { type = {}; Reader m = r.message("tensor_type"); read_tensor_type(m, type, source); break; }
    case 4: {
      Reader m = r.message("sequence_type");
      type = read_element(m, source);
      if (!type.is_tensor()) type = {};  // a sequence of maps or sequences: its elements stay untyped
      type.kind = Kind::kSequence;
      break;
    }
    case 9: {
      Reader m = r.message("optional_type");
      type = read_element(m, source);
      type.kind = type.kind == Kind::kSequence ? Kind::kOptionalSequence : Kind::kOptional;
      break;
    }
    case 5: { Reader m = r.message("map_type"); while (m.next()) m.skip(); type = {}; type.kind = Kind::kMap; break; }
    default: r.skip();  // sparse and opaque types: unknown, an operator that meets them says so
  }
  return type;
}

}  // namespace tiercel::onnx

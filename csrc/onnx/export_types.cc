// TensorProto, TypeProto and ValueInfoProto, written.
#include "onnx/export.h"

namespace tiercel::onnx {
namespace {

Message entry(std::string_view key, std::string_view value) {
  Message m;
  m.bytes(1, key).bytes(2, value);
  return m;
}

Message tensor_type(const Type& t, const SymbolTable& symbols) {
  Message m;
  if (t.dtype != DType::kUndefined) m.integer(1, static_cast<int64_t>(t.dtype));
  if (!t.ranked) return m;
  Message shape;
  for (Dim d : t.shape) {
    Message dim;
    if (!is_symbol(d)) dim.integer(1, d);
    else dim.text(2, symbols.name(d));
    shape.message(1, dim);
  }
  return m.message(2, shape);
}

Message wrapped(uint32_t field, const Message& m) {
  Message outer;
  outer.message(field, m);
  return outer;
}

}  // namespace

Tensor::Source bytes_of_tensor(const Tensor& t) {
  return t.is_deferred() ? t.deferred_bytes() : Tensor::Source{t.data(), t.owner()};
}

int64_t DataFile::place(const Tensor& t) {
  const auto [it, added] = placed_.try_emplace(memory_of(t), pieces_.size());
  if (!added && pieces_[it->second].tensor.bytes() >= t.bytes()) return pieces_[it->second].offset;
  it->second = pieces_.size();
  pieces_.push_back({end_, t});
  end_ = round_up(end_ + t.bytes(), kPage);
  return pieces_.back().offset;
}

Message tensor_message(const Tensor& t, std::string_view name, DataFile* data) {
  Message m;
  Shape dims = t.shape();
  if (t.layout() == Layout::kBlocked && dims.rank() >= 2) {
    dims[1] = ceil_div(dims[1], kChannelBlock);
    dims.push_back(kChannelBlock);
    std::string shape;
    for (Dim d : t.shape()) shape += (shape.empty() ? "" : ",") + std::to_string(d);
    m.message(16, entry(kLayoutKey, kBlockedLayout)).message(16, entry(kShapeKey, shape));
  }
  for (Dim d : dims) m.integer(1, d);
  m.integer(2, static_cast<int64_t>(t.dtype())).text(8, name);
  if (t.dtype() == DType::kString) {
    for (int64_t i = 0; i < t.count(); ++i) m.bytes(6, t.as<std::string>()[i]);
  } else if (data && t.bytes() >= DataFile::kPage) {
    m.message(13, entry("location", data->name())).message(13, entry("offset", std::to_string(data->place(t))))
        .message(13, entry("length", std::to_string(t.bytes()))).integer(14, 1);
  } else {
    const Tensor::Source s = bytes_of_tensor(t);
    m.blob(9, s.data, static_cast<size_t>(t.bytes()), s.owner);
  }
  return m;
}

Message type_message(const Type& t, const SymbolTable& symbols) {
  const Message element = wrapped(1, tensor_type(t, symbols));  // TypeProto.tensor_type
  switch (t.kind) {
    case Kind::kSequence: return wrapped(4, wrapped(1, element));
    case Kind::kOptional: return wrapped(9, wrapped(1, element));
    case Kind::kOptionalSequence: return wrapped(9, wrapped(1, wrapped(4, wrapped(1, element))));
    case Kind::kMap: return wrapped(5, Message());
    default: return element;
  }
}

Message value_message(std::string_view name, const Type& t, const SymbolTable& symbols) {
  Message m;
  m.bytes(1, name);
  if (t.dtype != DType::kUndefined || t.kind != Kind::kTensor) m.message(2, type_message(t, symbols));
  if (t.layout == Layout::kBlocked) m.message(4, entry(kLayoutKey, kBlockedLayout));
  return m;
}

}  // namespace tiercel::onnx

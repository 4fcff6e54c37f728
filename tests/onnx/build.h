// Protobuf messages by hand: field(7, field(...)) + ..., so that tests can write right and wrong bytes alike.
#pragma once
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "onnx/onnx.h"

namespace tiercel::build {

inline std::string varint(uint64_t v) {
  std::string s;
  for (; v > 127; v >>= 7) s += static_cast<char>(v | 128);
  return s + static_cast<char>(v);
}
inline std::string field(int number, const std::string& bytes) {
  return varint(static_cast<uint64_t>(number) << 3 | 2) + varint(bytes.size()) + bytes;
}
inline std::string field(int number, const char* text) { return field(number, std::string(text)); }
inline std::string field(int number, int64_t v) { return varint(static_cast<uint64_t>(number) << 3) + varint(static_cast<uint64_t>(v)); }
inline std::string field(int number, int v) { return field(number, int64_t{v}); }
inline std::string fixed(int number, float v) {
  std::string s = varint(static_cast<uint64_t>(number) << 3 | 5);
  return s.append(reinterpret_cast<const char*>(&v), 4);
}
template <class T> std::string raw(const std::vector<T>& v) {
  return std::string(reinterpret_cast<const char*>(v.data()), v.size() * sizeof(T));
}

// TensorProto; `data` is e.g. field(9, raw(v)).
inline std::string tensor(const std::string& name, DType t, const std::vector<int64_t>& dims, const std::string& data) {
  std::string s;
  for (int64_t d : dims) s += field(1, d);
  return s + field(2, static_cast<int>(t)) + (name.empty() ? "" : field(8, name)) + data;
}
inline std::string type(DType t, const std::vector<std::string>& dims) {  // a dim is a number or a name
  std::string shape;
  for (const std::string& d : dims)
    shape += field(1, d.empty() ? "" : isdigit(d[0]) || d[0] == '-' ? field(1, int64_t{std::stoll(d)}) : field(2, d));
  return field(1, field(1, static_cast<int>(t)) + field(2, shape));
}
inline std::string value(const std::string& name, const std::string& type) { return field(1, name) + field(2, type); }
inline std::string attr(const std::string& name, int type, const std::string& data) { return field(1, name) + data + field(20, type); }
inline std::string node(const std::string& op, const std::vector<std::string>& in, const std::vector<std::string>& out,
                        const std::vector<std::string>& attributes = {}, const std::string& name = "", const std::string& domain = "") {
  std::string s;
  for (const auto& i : in) s += field(1, i);
  for (const auto& o : out) s += field(2, o);
  if (!name.empty()) s += field(3, name);
  s += field(4, op);
  for (const auto& a : attributes) s += field(5, a);
  return domain.empty() ? s : s + field(7, domain);
}
// GraphProto of nodes, initializers, inputs and outputs.
inline std::string graph(const std::vector<std::string>& nodes, const std::vector<std::string>& initializers,
                         const std::vector<std::string>& inputs, const std::vector<std::string>& outputs) {
  std::string s;
  for (const auto& n : nodes) s += field(1, n);
  s += field(2, "g");
  for (const auto& i : initializers) s += field(5, i);
  for (const auto& i : inputs) s += field(11, i);
  for (const auto& o : outputs) s += field(12, o);
  return s;
}
inline std::string opset(const std::string& domain, int version) { return field(8, field(1, domain) + field(2, version)); }
inline std::string model(const std::string& graph, const std::string& more = "") {
  return field(1, 8) + field(2, "test") + field(7, graph) + opset("", 17) + more;
}
inline Model parse(const std::string& bytes, const std::string& folder = "") {
  auto owner = std::make_shared<std::string>(bytes);
  Model m = onnx::parse(owner->data(), owner->size(), Buffer(owner, owner->data()), folder);
  m.graph->check();
  return m;
}
inline Tensor parse_tensor(const std::string& bytes) {
  auto owner = std::make_shared<std::string>(bytes);
  return onnx::parse_tensor(owner->data(), owner->size(), Buffer(owner, owner->data()));
}

// x [N,2] -> MatMul w -> Relu -> y
inline std::string small_model() {
  const std::string w = tensor("w", DType::kFloat, {2, 3}, field(9, raw<float>({1, 2, 3, 4, 5, 6})));
  return model(graph({node("MatMul", {"x", "w"}, {"h"}, {}, "mm"), node("Relu", {"h"}, {"y"})}, {w},
                     {value("x", type(DType::kFloat, {"N", "2"}))}, {value("y", type(DType::kFloat, {"N", "3"}))}));
}

}  // namespace tiercel::build

// Emits the nodes that replace one.
#pragma once
#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"

namespace tiercel {

// Before the node; types but for the dtype are inferred when the pass is over.
class Emitter {
 public:
  Emitter(Graph& graph, Node* node) : graph(graph), node(node), dtype(node->inputs[0]->type.dtype) {}
  Value* op(const char* name, std::vector<Value*> in, DType type, std::vector<std::pair<const char*, Attribute>> attributes = {}) {
    Value* v = graph.emit(name, "", 18, std::move(in), Type::tensor(type), node);
    v->producer->name = node->name;
    for (auto& [key, value] : attributes) v->producer->set(key, std::move(value));
    return v;
  }
  Value* cast(Value* v, DType to) { return op("Cast", {v}, to, {{"to", static_cast<int64_t>(to)}}); }
  Value* op(const char* name, std::vector<Value*> in) { return op(name, std::move(in), dtype); }
  Value* ints(std::vector<int64_t> v, bool scalar = false) {
    const Shape s = scalar ? Shape{} : Shape{static_cast<Dim>(v.size())};
    return named(Tensor::from_ints(DType::kInt64, s, v.data()));
  }
  Value* number(double x) {
    Value* c = named(Tensor::of<float>({}, {static_cast<float>(x)}));
    return dtype == DType::kFloat ? c : cast(c, dtype);
  }
  Value* transpose(Value* v, std::vector<int64_t> perm) { return op("Transpose", {v}, dtype, {{"perm", std::move(perm)}}); }
  Value* extent(Value* v, int64_t axis) {  // a scalar
    return op("Gather", {op("Shape", {v}, DType::kInt64), ints({axis}, true)}, DType::kInt64);
  }
  Value* range(Value* from, Value* to) { return op("Range", {from, to, ints({1}, true)}, DType::kInt64); }
  void replace(int output, Value* v) {
    if (Value* old = node->output(output)) graph.replace_uses(old, v);
  }

  Graph& graph;
  Node* node;
  DType dtype;

 private:
  Value* named(Tensor t) {
    Value* c = graph.new_constant(std::move(t), "expanded");
    return c;
  }
};

}  // namespace tiercel

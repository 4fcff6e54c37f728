// Appends nodes to a graph, typed as they are made: what gradient rules, losses and optimisers are written with.
#pragma once
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "ops/context.h"

namespace tiercel {

using AttributeList = std::vector<std::pair<const char*, Attribute>>;

class GraphWriter {
 public:
  // Infers the graph; `graph` outlives the writer, and nobody else changes it meanwhile.
  explicit GraphWriter(Graph& graph);

  Graph& graph() const { return graph_; }
  std::string name;        // of the nodes that are made from now on
  Node* before = nullptr;  // they stand before this one; null: at the end of the graph

  // A node of ONNX (or of `domain`). Errors of inference name it.
  Value* op(const char* type, std::vector<Value*> inputs, AttributeList attributes = {}, const char* domain = "");
  std::vector<Value*> ops(const char* type, std::vector<Value*> inputs, int outputs, AttributeList attributes = {}, const char* domain = "");
  // The same, of values that are there; null: the output is left out.
  void ops_into(const char* type, std::vector<Value*> inputs, std::vector<Value*> outputs, AttributeList attributes = {}, const char* domain = "");
  // Makes a node give an output that was left out.
  Value* add_output(Node* node, int index);
  Value* input(const std::string& name, const Type& type);  // of the graph
  Value* input(const std::string& name, ValueInfo info);
  // Copies of the nodes of `from` at the end of the graph, with `inputs` for its inputs; returns its outputs.
  std::vector<Value*> append(const Graph& from, std::span<Value* const> inputs);
  // What is known of v, where inference cannot see it.
  void declare(Value* v, const Type& type);
  void infer(Node* node);  // anew, after its inputs, outputs or bodies have changed
  Value* constant(Tensor t);
  Value* ints(const std::vector<int64_t>& v);            // [n]
  Value* scalar(double x, DType t);
  Value* scalar_like(double x, const Value* v) { return scalar(x, dtype(v)); }

  const ValueInfo& info(const Value* v) const { return infos_[static_cast<size_t>(v->id)]; }
  const Type& type(const Value* v) const { return info(v).type; }
  DType dtype(const Value* v) const { return type(v).dtype; }
  bool ranked(const Value* v) const { return type(v).ranked; }
  const Shape& shape(const Value* v) const { return type(v).shape; }

  Value* add(Value* a, Value* b) { return op("Add", {a, b}); }
  Value* sub(Value* a, Value* b) { return op("Sub", {a, b}); }
  Value* mul(Value* a, Value* b) { return op("Mul", {a, b}); }
  Value* div(Value* a, Value* b) { return op("Div", {a, b}); }
  Value* neg(Value* a) { return op("Neg", {a}); }
  Value* scale(Value* a, double by) { return by == 1 ? a : mul(a, scalar_like(by, a)); }
  Value* shift(Value* a, double by) { return add(a, scalar_like(by, a)); }
  Value* shape_of(Value* v) { return op("Shape", {v}); }
  // v summed to the shape that `like` has, which broadcasts to v's.
  Value* sum_to(Value* v, Value* like);
  // v, whose elements are those of `like`, in that one's shape.
  Value* reshape_like(Value* v, Value* like);
  Value* expand_like(Value* v, Value* like);
  // Zeros in the shape of v: of a tensor, or of every item of a sequence; and the sum of two such.
  Value* zeros_like(Value* v);
  Value* sum(Value* a, Value* b);
  // A SequenceMap of `sequences` whose body computes f of an item each.
  Value* map(std::vector<Value*> sequences, Value* (*f)(GraphWriter& w, std::span<Value* const> items));
  // v times the number of elements of `of` over that of `among`; of a narrow v in float, as 65504 is the most that float16 counts.
  Value* times_ratio(Value* v, Value* of, Value* among);
  bool same_shape(const Value* a, const Value* b) const;  // is it known?

 private:
  Value* count_of(Value* v, DType t);  // as a scalar

  Graph& graph_;
  std::vector<ValueInfo> infos_;  // by value id
};

}  // namespace tiercel

#include "ops/graph_writer.h"

#include "ops/infer_graph.h"
#include "ops/registry.h"

namespace tiercel {
namespace {
constexpr int kOpset = 21;
}

GraphWriter::GraphWriter(Graph& graph) : graph_(graph), infos_(infer_graph(graph)) {}

void GraphWriter::infer(Node* node) {
  infos_.resize(static_cast<size_t>(graph_.num_values()));
  std::vector<const ValueInfo*> in;
  for (const Value* v : node->inputs) in.push_back(v ? &info(v) : nullptr);
  std::vector<ValueInfo> out(node->outputs.size());
  infer_node(*node, in, out, graph_.symbols());
  for (size_t i = 0; i < out.size(); ++i)
    if (Value* v = node->outputs[i]) {
      v->type = out[i].type;
      infos_[static_cast<size_t>(v->id)] = std::move(out[i]);
    }
}

std::vector<Value*> GraphWriter::ops(const char* type, std::vector<Value*> inputs, int outputs, AttributeList attributes, const char* domain) {
  std::vector<Value*> out;
  for (int i = 0; i < outputs; ++i) out.push_back(graph_.add_value(""));
  ops_into(type, std::move(inputs), out, std::move(attributes), domain);
  return out;
}

void GraphWriter::ops_into(const char* type, std::vector<Value*> inputs, std::vector<Value*> outputs, AttributeList attributes, const char* domain) {
  Node* node = graph_.add_node(type, domain, *domain ? 1 : kOpset, std::move(inputs), std::move(outputs), before);
  node->name = name;
  for (auto& [key, value] : attributes) node->set(key, std::move(value));
  infer(node);
}

Value* GraphWriter::op(const char* type, std::vector<Value*> inputs, AttributeList attributes, const char* domain) {
  return ops(type, std::move(inputs), 1, std::move(attributes), domain)[0];
}

Value* GraphWriter::add_output(Node* node, int index) {
  Value* v = graph_.add_value("");
  if (static_cast<int>(node->outputs.size()) <= index) node->outputs.resize(static_cast<size_t>(index) + 1);
  node->outputs[static_cast<size_t>(index)] = v;
  v->producer = node;
  v->output_index = index;
  infer(node);
  return v;
}

Value* GraphWriter::input(const std::string& name, const Type& type) {
  const Type own = type;  // `type` may be one of those that are about to move
  Value* v = graph_.add_input(name, own);
  infos_.resize(static_cast<size_t>(graph_.num_values()));
  infos_[static_cast<size_t>(v->id)].type = own;
  return v;
}

Value* GraphWriter::input(const std::string& name, ValueInfo info) {
  Value* v = graph_.add_input(name, info.type);
  infos_.resize(static_cast<size_t>(graph_.num_values()));
  infos_[static_cast<size_t>(v->id)] = std::move(info);
  return v;
}

std::vector<Value*> GraphWriter::append(const Graph& from, std::span<Value* const> inputs) {
  const std::vector<Value*> outputs = graph_.append(from, inputs);
  std::vector<ValueInfo> known;
  for (const Value* v : graph_.inputs()) known.push_back(info(v));
  std::vector<const ValueInfo*> in;
  for (const ValueInfo& i : known) in.push_back(&i);
  infos_ = infer_graph(graph_, in);
  return outputs;
}

void GraphWriter::declare(Value* v, const Type& type) {
  v->type = type;
  infos_[static_cast<size_t>(v->id)].type = type;
}

Value* GraphWriter::constant(Tensor t) {
  Value* v = graph_.new_constant(std::move(t));
  infos_.resize(static_cast<size_t>(graph_.num_values()));
  infos_[static_cast<size_t>(v->id)] = {v->type, &v->constant, {}};
  return v;
}

Value* GraphWriter::ints(const std::vector<int64_t>& v) {
  return constant(Tensor::from_ints(DType::kInt64, Shape{static_cast<Dim>(v.size())}, v.data()));
}

Value* GraphWriter::scalar(double x, DType t) {
  if (t == DType::kFloat) return constant(Tensor::of<float>({}, {static_cast<float>(x)}));
  Value* wide = constant(Tensor::of<double>({}, {x}));
  return t == DType::kDouble ? wide : op("Cast", {wide}, {{"to", static_cast<int64_t>(t)}});
}

bool GraphWriter::same_shape(const Value* a, const Value* b) const { return ranked(a) && ranked(b) && shape(a) == shape(b); }

Value* GraphWriter::sum_to(Value* v, Value* like) {
  return same_shape(v, like) ? v : op("SumTo", {v, shape_of(like)}, {}, kTiercelDomain);
}
Value* GraphWriter::reshape_like(Value* v, Value* like) {
  return same_shape(v, like) ? v : op("Reshape", {v, shape_of(like)}, {{"allowzero", int64_t{1}}});
}
Value* GraphWriter::expand_like(Value* v, Value* like) { return same_shape(v, like) ? v : op("Expand", {v, shape_of(like)}); }

Value* GraphWriter::zeros_like(Value* v) {
  if (type(v).kind != Kind::kSequence) return expand_like(scalar_like(0, v), v);
  return op("SequenceZeros", {v}, {}, kTiercelDomain);
}
Value* GraphWriter::sum(Value* a, Value* b) {
  if (type(a).kind != Kind::kSequence) return add(a, b);
  const auto is_sparse = [](const Value* v) {  // zeros but for some items
    while (v->producer && v->producer->is("SequenceAddAt", kTiercelDomain)) v = v->producer->inputs[0];
    return v->producer && v->producer->is("SequenceZeros", kTiercelDomain);
  };
  if (!is_sparse(b)) std::swap(a, b);
  if (is_sparse(b)) {  // its items join the other's one by one: as much work as they are
    std::vector<const Node*> items;
    for (const Node* n = b->producer; n->is("SequenceAddAt", kTiercelDomain); n = n->inputs[0]->producer) items.push_back(n);
    for (auto n = items.rbegin(); n != items.rend(); ++n) a = op("SequenceAddAt", {a, (*n)->inputs[1], (*n)->inputs[2]}, {}, kTiercelDomain);
    return a;
  }
  return map({a, b}, [](GraphWriter& w, std::span<Value* const> items) { return w.add(items[0], items[1]); });
}
Value* GraphWriter::map(std::vector<Value*> sequences, Value* (*f)(GraphWriter& w, std::span<Value* const> items)) {
  auto body = std::make_shared<Graph>(graph_.symbol_table());
  GraphWriter w(*body);
  std::vector<Value*> items;
  for (const Value* v : sequences) items.push_back(w.input(cat("item_", items.size()), Type::tensor(dtype(v))));
  body->add_output(f(w, items));
  return op("SequenceMap", std::move(sequences), {{"body", Attribute(body)}});
}

Value* GraphWriter::times_ratio(Value* v, Value* of, Value* among) {
  const DType t = dtype(v);
  const bool narrow = t == DType::kFloat16 || t == DType::kBFloat16;
  const DType wide = narrow ? DType::kFloat : t;
  const auto as = [&](Value* x, DType to) { return narrow ? op("Cast", {x}, {{"to", static_cast<int64_t>(to)}}) : x; };
  return as(mul(as(v, wide), div(count_of(of, wide), count_of(among, wide))), t);
}

Value* GraphWriter::count_of(Value* v, DType t) {
  if (type(v).static_shape()) return scalar(static_cast<double>(shape(v).count()), t);
  return op("Cast", {op("Size", {v})}, {{"to", static_cast<int64_t>(t)}});
}

}  // namespace tiercel

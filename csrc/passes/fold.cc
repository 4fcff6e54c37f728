#include "ops/evaluate.h"
#include "ops/infer_graph.h"
#include "passes/basic.h"

namespace tiercel {
namespace {

constexpr int64_t kSmallBytes = 256 << 10;  // results up to this size are always folded

bool all_constant(const Node& node) {
  for (const Value* v : node.inputs) if (v && !v->is_constant()) return false;
  return true;
}

// Worth keeping as data: small, or not much larger than its sources.
bool worth_folding(const Node& node, std::span<const ValueInfo> out) {
  int64_t from = 0, to = 0;
  for (const Value* v : node.inputs) if (v) from += v->constant.bytes();
  for (size_t i = 0; i < out.size(); ++i) {
    if (!node.outputs[i]) continue;
    if (!out[i].type.static_shape()) return from <= kSmallBytes;
    const Type& t = out[i].type;
    to += bytes_of(t.dtype, storage_count(t.shape, t.layout));
  }
  return to <= kSmallBytes || to <= 4 * from;
}

bool left_to_product(const Node& node) {
  if (!node.is("Transpose") || !node.outputs[0] || !node.outputs[0]->has_one_use() || !node.inputs[0]) return false;
  const Use use = node.outputs[0]->uses[0];
  return use.node->is("MatMul") && use.index == 1 && node.inputs[0]->type.dtype == DType::kFloat &&
         node.inputs[0]->constant.bytes() > kSmallBytes && node.inputs[0]->type.shape.rank() == 2;
}

// All that a node's results depend on but its inputs; "": more than a key can say.
std::string key_of(const Node& node) {
  std::string key = cat("fold ", node.op_type, " ", node.domain, " ", node.opset, " ", node.outputs.size());
  const auto add = [&](const auto* data, size_t n) {
    key.append(reinterpret_cast<const char*>(&n), sizeof n).append(reinterpret_cast<const char*>(data), n * sizeof *data);
  };
  for (const Value* v : node.inputs) key += v ? '1' : '0';
  for (const auto& [name, a] : node.attributes) {
    key += cat(" ", name, " ", a.index(), " ");
    if (const auto* i = std::get_if<int64_t>(&a)) add(i, 1);
    else if (const auto* f = std::get_if<float>(&a)) add(f, 1);
    else if (const auto* s = std::get_if<std::string>(&a)) add(s->data(), s->size());
    else if (const auto* is = std::get_if<std::vector<int64_t>>(&a)) add(is->data(), is->size());
    else if (const auto* fs = std::get_if<std::vector<float>>(&a)) add(fs->data(), fs->size());
    else return "";
  }
  return key;
}

std::vector<RuntimeValue> remembered(const Graph& graph, const Node& node, const std::vector<RuntimeValue>& inputs) {
  const std::string key = graph.memo ? key_of(node) : "";
  if (key.empty()) return evaluate(node, inputs);
  std::vector<Tensor> from;
  for (const RuntimeValue& v : inputs) from.push_back(v.empty() ? Tensor() : v.tensor());
  std::vector<RuntimeValue> other;  // results that are no tensors are not kept
  const std::vector<Tensor> made = graph.memo->get(key, from, [&] {
    std::vector<Tensor> tensors;
    other = evaluate(node, inputs);
    for (const RuntimeValue& v : other) {
      if (!v.empty() && !v.is_tensor()) return std::vector<Tensor>();
      tensors.push_back(v.empty() ? Tensor() : v.tensor());
    }
    return tensors;
  });
  if (!other.empty()) return other;
  if (made.empty()) return evaluate(node, inputs);
  std::vector<RuntimeValue> results;
  for (const Tensor& t : made) results.push_back(t.defined() ? RuntimeValue(t) : RuntimeValue());
  return results;
}

// What the node computes from constant inputs; empty when it should stay a node.
std::vector<RuntimeValue> compute(const Graph& graph, const Node& node, SymbolTable& symbols) {
  std::vector<ValueInfo> infos(node.inputs.size()), out(node.outputs.size());
  std::vector<const ValueInfo*> in(node.inputs.size());
  std::vector<RuntimeValue> inputs;
  for (size_t i = 0; i < in.size(); ++i) {
    const Value* v = node.inputs[i];
    inputs.push_back(v ? RuntimeValue(v->constant) : RuntimeValue());
    if (!v) continue;
    infos[i].type = v->type;
    infos[i].constant = &v->constant;
    in[i] = &infos[i];
  }
  infer_node(node, in, out, symbols);
  if (node.is("Identity")) return inputs;  // the same memory, where it lies: weights that layers share stay one
  if (!worth_folding(node, out)) return {};
  return remembered(graph, node, inputs);
}

}  // namespace

namespace {
void fold(Graph& graph, bool all) {
  std::vector<ValueInfo> infos = infer_graph(graph);
  auto known = [&](const Value* v) { return infos[v->id].known_ints() && infos[v->id].type.static_shape(); };
  for (auto it = graph.nodes().begin(); it != graph.nodes().end();) {
    Node* node = (it++)->get();
    if (op_of(*node).flags & kRandom) continue;
    std::vector<RuntimeValue> results;
    bool all_known = !node->outputs.empty();
    for (const Value* v : node->outputs) if (v && !known(v)) all_known = false;
    if (all_known) {
      for (const Value* v : node->outputs) {
        results.emplace_back();
        if (!v) continue;
        const ValueInfo& info = infos[v->id];
        results.back() = Tensor::from_ints(info.type.dtype, info.type.shape, info.ints->data());
      }
    } else if (all_constant(*node) && node->subgraphs().empty() && (all || !left_to_product(*node))) {
      try {
        results = compute(graph, *node, graph.symbols());
      } catch (const Error&) {
        continue;  // a run that reaches the node will say what is wrong
      }
    }
    if (results.empty()) continue;
    bool tensors = true;
    for (size_t i = 0; i < results.size(); ++i) if (node->outputs[i] && !results[i].is_tensor()) tensors = false;
    if (!tensors) continue;
    for (size_t i = 0; i < results.size(); ++i)
      if (Value* v = node->outputs[i]) graph.make_constant(v, results[i].tensor());
    graph.erase(node);
  }
}
}  // namespace

void fold_constants(Graph& graph) { fold(graph, false); }
void fold_rest(Graph& graph) { fold(graph, true); }

}  // namespace tiercel

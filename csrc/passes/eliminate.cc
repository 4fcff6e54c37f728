#include <unordered_map>

#include "ops/registry.h"
#include "passes/basic.h"

namespace tiercel {
namespace {

bool dropout_is_identity(const Node& node) {
  if (node.output(1)) return false;
  if (node.opset < 7) return node.attr_int("is_test", 0) != 0;
  const Value* training = node.input(2);
  return !training || (training->is_constant() && training->constant.count() == 1 && !*training->constant.as<uint8_t>());
}

bool identity_permutation(const Node& node, const Type& type) {
  if (!type.ranked) return false;
  const auto perm = node.attr_ints("perm");
  if (perm.empty()) return type.shape.rank() <= 1;
  for (size_t i = 0; i < perm.size(); ++i) if (perm[i] != static_cast<int64_t>(i)) return false;
  return true;
}

// Does the node give back its first input, and nothing else?
bool passes_on(const Node& node) {
  const Value *in = node.input(0), *out = node.output(0);
  if (!in || !out || !node.domain.empty()) return false;
  const std::string& op = node.op_type;
  if (op == "Identity") return true;
  if (op == "Dropout") return dropout_is_identity(node);
  if (op == "Transpose") return identity_permutation(node, in->type);
  if (op == "Cast") return in->type.is_tensor() && static_cast<int64_t>(in->type.dtype) == node.attr_int("to", 0);
  if (op == "Concat" || op == "Sum" || op == "Max" || op == "Min" || op == "Mean") return node.inputs.size() == 1;
  if (op == "Reshape" || op == "Flatten" || op == "Squeeze" || op == "Unsqueeze" || op == "Expand")
    return in->type.static_shape() && out->type.static_shape() && in->type.shape == out->type.shape &&
           in->type.layout == out->type.layout;
  return false;
}

// A key that is equal for nodes that compute the same; empty when it cannot be said cheaply.
std::string key_of(const Node& node) {
  std::string key = node.domain + ":" + node.op_type + ":" + std::to_string(node.opset);
  for (const Value* v : node.inputs) key += v ? "," + std::to_string(v->id) : ",-";
  key += "|" + std::to_string(node.outputs.size());
  auto add = [&](const void* data, size_t bytes) { key.append(static_cast<const char*>(data), bytes); };
  for (const auto& [name, a] : node.attributes) {
    key += ";" + name + "=" + std::to_string(a.index()) + ":";
    if (const auto* i = std::get_if<int64_t>(&a)) add(i, sizeof *i);
    else if (const auto* f = std::get_if<float>(&a)) add(f, sizeof *f);
    else if (const auto* s = std::get_if<std::string>(&a)) key += *s;
    else if (const auto* is = std::get_if<std::vector<int64_t>>(&a)) add(is->data(), is->size() * 8);
    else if (const auto* fs = std::get_if<std::vector<float>>(&a)) add(fs->data(), fs->size() * 4);
    else if (const auto* ss = std::get_if<std::vector<std::string>>(&a)) for (const auto& s : *ss) key += s + '\0';
    else return {};
  }
  return key;
}

void merge_small_constants(Graph& graph) {
  constexpr int64_t kBytes = 64;
  std::unordered_map<std::string, Value*> seen;
  for (int id = 0; id < graph.num_values(); ++id) {
    Value* v = graph.value(id);
    if (!v || !v->is_constant() || v->graph_output_uses) continue;
    if (v->constant.dtype() == DType::kString || v->constant.bytes() > kBytes) continue;
    std::string key = v->type.str() + std::string(v->constant.as<char>(), static_cast<size_t>(v->constant.bytes()));
    auto [found, added] = seen.try_emplace(std::move(key), v);
    if (!added) graph.replace_uses(v, found->second);
  }
}

}  // namespace

void eliminate(Graph& graph) {
  for (auto it = graph.nodes().begin(); it != graph.nodes().end();) {
    Node* node = (it++)->get();
    if (!passes_on(*node)) continue;
    Value *in = node->inputs[0], *out = node->outputs[0];
    // A graph's output keeps a producer and a name of its own.
    if (out->graph_output_uses && (!in->producer || in->graph_output_uses)) continue;
    graph.replace_uses(out, in);
    graph.erase(node);
  }
}

void merge_common(Graph& graph) {
  merge_small_constants(graph);
  std::unordered_map<std::string, Node*> seen;
  for (auto it = graph.nodes().begin(); it != graph.nodes().end();) {
    Node* node = (it++)->get();
    if (op_of(*node).flags & kRandom) continue;
    const std::string key = key_of(*node);
    if (key.empty()) continue;
    auto [found, added] = seen.try_emplace(key, node);
    if (added) continue;
    const Node* first = found->second;
    bool same = true;
    for (size_t i = 0; i < node->outputs.size(); ++i)
      if (const Value* v = node->outputs[i]; v && (!first->outputs[i] || v->graph_output_uses)) same = false;
    if (!same) continue;
    for (size_t i = 0; i < node->outputs.size(); ++i)
      if (Value* v = node->outputs[i]) graph.replace_uses(v, first->outputs[i]);
    graph.erase(node);
  }
}

}  // namespace tiercel

// The order of nodes in a file: usually right, sorted where it is not.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "autodiff/gradient_operator.h"
#include "onnx/import.h"

namespace tiercel::onnx {
namespace {

using Names = std::unordered_set<std::string_view>;

void add_uses(const NodeProto& node, Names& names);

// Names that a body uses and does not define.
void add_free_names(const GraphProto& g, Names& names) {
  Names used;
  for (const NodeProto& n : g.nodes) add_uses(n, used);
  for (const ValueInfoProto& o : g.outputs) used.insert(o.name);
  for (const NodeProto& n : g.nodes) for (std::string_view o : n.outputs) used.erase(o);
  for (const ValueInfoProto& i : g.inputs) used.erase(i.name);
  for (const auto& [name, tensor] : g.initializers) used.erase(name);
  names.merge(used);
}

void add_uses(const NodeProto& node, Names& names) {
  for (std::string_view i : node.inputs) if (!i.empty()) names.insert(i);
  const bool named = node.op_type == "Gradient" && node.domain == kTrainingDomain;  // its attributes xs, zs and y name values
  for (const AttributeProto& a : node.attributes) {
    if (const auto* one = std::get_if<std::string_view>(&a.value); one && named) names.insert(*one);
    if (const auto* list = std::get_if<std::vector<std::string_view>>(&a.value); list && named) names.insert(list->begin(), list->end());
    if (const auto* g = std::get_if<AttributeProto::GraphPtr>(&a.value)) add_free_names(**g, names);
    if (const auto* gs = std::get_if<std::vector<AttributeProto::GraphPtr>>(&a.value))
      for (const auto& g : *gs) add_free_names(*g, names);
  }
}

}  // namespace

std::vector<size_t> topological_order(const std::vector<NodeProto>& nodes) {
  std::unordered_map<std::string_view, size_t> producer;
  for (size_t i = 0; i < nodes.size(); ++i)
    for (std::string_view o : nodes[i].outputs)
      if (!o.empty()) producer.try_emplace(o, i);
  std::vector<std::vector<size_t>> needs(nodes.size());
  bool sorted = true;
  for (size_t i = 0; i < nodes.size(); ++i) {
    Names used;
    add_uses(nodes[i], used);
    for (std::string_view name : used)
      if (auto it = producer.find(name); it != producer.end()) {
        needs[i].push_back(it->second);
        sorted &= it->second < i;
      }
    std::sort(needs[i].begin(), needs[i].end());
  }
  std::vector<size_t> order;
  order.reserve(nodes.size());
  if (sorted) {
    for (size_t i = 0; i < nodes.size(); ++i) order.push_back(i);
    return order;
  }
  // Depth first without recursion: a chain of nodes may be long.
  enum State : uint8_t { kNew, kOpen, kDone };
  std::vector<State> state(nodes.size(), kNew);
  std::vector<std::pair<size_t, size_t>> path;  // node, next of its needs
  for (size_t root = 0; root < nodes.size(); ++root) {
    if (state[root] != kNew) continue;
    path.push_back({root, 0});
    state[root] = kOpen;
    while (!path.empty()) {
      auto& [i, next] = path.back();
      if (next == needs[i].size()) {
        state[i] = kDone;
        order.push_back(i);
        path.pop_back();
        continue;
      }
      const size_t need = needs[i][next++];
      if (state[need] == kOpen) {
        std::string cycle;
        for (auto it = std::find_if(path.begin(), path.end(), [&](const auto& p) { return p.first == need; }); it != path.end(); ++it) {
          if (cycle.size() > 500) { cycle += "... -> "; break; }
          cycle += nodes[it->first].label() + " -> ";
        }
        fail(Code::kInvalidGraph, "the graph has a cycle: ", cycle, nodes[need].label());
      }
      if (state[need] == kNew) {
        state[need] = kOpen;
        path.push_back({need, 0});
      }
    }
  }
  return order;
}

}  // namespace tiercel::onnx

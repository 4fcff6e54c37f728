#include <algorithm>
#include <unordered_map>

#include "ops/registry.h"
#include "passes/basic.h"

namespace tiercel {
namespace {

// May the node's result lie in the memory of its first input?
bool may_alias(const Node& n) {
  for (const char* op : {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Transpose", "Cast", "CastLike", "Dropout", "Expand", "Slice", "Split",
                         "Reorder", "CenterCropPad", "Concat", "Pad", "Resize", "Upsample", "SumTo", "Tile", "Max", "Min", "Sum", "Mean"})
    if (n.op_type == op) return true;
  return n.op_type.starts_with("Reduce");
}

using Places = std::unordered_map<const Node*, int>;

int last_reader(const Value* v, const Node* except, const Places& places) {
  int last = -1;
  for (const Use& use : v->uses) {
    if (use.node == except) continue;
    last = std::max(last, places.at(use.node));
    if (may_alias(*use.node))
      for (const Value* out : use.node->outputs) if (out) last = std::max(last, last_reader(out, except, places));
  }
  return last;
}

}  // namespace

void place_updates(Graph& graph) {
  std::vector<Node*> nodes, updates;
  Places places;
  for (const auto& n : graph.nodes()) {
    places.emplace(n.get(), static_cast<int>(nodes.size()));
    nodes.push_back(n.get());
    const OpRow* row = find_op(n->op_type, n->domain, n->opset);
    if (row && row->flags & kUpdates) updates.push_back(n.get());
  }
  for (Node* n : updates) {
    int last = -1;
    for (const Value* v : n->inputs) {
      if (!v) continue;
      if (v->producer) last = std::max(last, places.at(v->producer));
      if (v->is_graph_input && v->type.shape.rank() > 0) last = std::max(last, last_reader(v, n, places));
    }
    if (last < 0 || last >= places.at(n)) continue;
    auto before = std::next(nodes[static_cast<size_t>(last)]->self);
    while (before != n->self && std::find(updates.begin(), updates.end(), before->get()) != updates.end()) ++before;
    if (before != n->self) graph.nodes().splice(before, graph.nodes(), n->self);
    places.at(n) = last;  // those that stand there keep their order, which is that in which they came
  }
}

}  // namespace tiercel

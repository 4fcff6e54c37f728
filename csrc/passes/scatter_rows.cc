// ScatterElements whose indices were expanded along all axes behind its own (index_add, scatter of whole rows) reads them as they were: what is one
// for a row need not be written out for each of its elements, nor compared again. ai.tiercel.ScatterElements is ScatterElements whose indices broadcast.
#include "ops/registry.h"
#include "passes/match.h"
#include "passes/movement.h"

namespace tiercel {
namespace {

// Do `small` indices broadcast to the updates', with one entry for all that lies behind the axis?
bool one_for_rows(const Shape& small, const Shape& indices, int axis) {
  if (small.rank() != indices.rank() || axis < 0 || axis + 1 == small.rank()) return false;
  for (int i = 0; i < small.rank(); ++i)
    if (small[i] != 1 && (i > axis || small[i] != indices[i])) return false;
  return true;
}

}  // namespace

void scatter_rows(Graph& graph) {
  std::vector<Node*> nodes;
  for (const auto& n : graph.nodes())
    if ((n->is("ScatterElements") || n->is("Scatter")) && n->inputs.size() == 3 && n->output(0)) nodes.push_back(n.get());
  for (Node* n : nodes) {
    const Node* expand = match::made_by(n->inputs[1], "Expand");
    const Value* updates = n->inputs[2];
    if (!expand || !updates || !match::same_shape(n->inputs[1], updates)) continue;
    Value* small = expand->inputs[0];
    if (!small || !small->type.ranked || small->type.layout != Layout::kPlain) continue;
    const int rank = match::rank(updates);
    if (!one_for_rows(small->type.shape, updates->type.shape, normalize_axis(n->attr_int("axis", 0), rank))) continue;
    Value* y = graph.emit("ScatterElements", kTiercelDomain, 1, {n->inputs[0], small, n->inputs[2]}, n->outputs[0]->type, n);
    y->producer->name = n->name;
    y->producer->set("axis", n->attr_int("axis", 0));
    if (n->opset >= 16) y->producer->set("reduction", n->attr_string("reduction", "none"));
    graph.replace_uses(n->outputs[0], y);
  }
}

}  // namespace tiercel

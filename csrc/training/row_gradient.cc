#include "training/row_gradient.h"

#include <algorithm>

#include "ops/registry.h"

namespace tiercel {
namespace {

// The GatherGrad nodes that v is the sum of, in the order of addition; false: something else takes part.
bool collect(const GraphWriter& w, const Value* v, const Shape& table, std::vector<const Node*>* gathers) {
  const Node* const n = v->producer;
  if (!n || !w.ranked(v) || !(w.shape(v) == table)) return false;
  if (n->is("Add")) return collect(w, n->inputs[0], table, gathers) && collect(w, n->inputs[1], table, gathers);
  if (!n->is("GatherGrad", kTiercelDomain)) return false;
  const int64_t axis = n->attr_int("axis", 0);
  gathers->push_back(n);
  return axis == 0 || axis == -table.rank();
}

void erase_unused(Graph& g, Value* v) {
  Node* const n = v->producer;
  if (!n || !v->uses.empty() || v->graph_output_uses || !(n->is("Add") || n->is("GatherGrad", kTiercelDomain))) return;
  const std::vector<Value*> inputs = n->inputs;
  g.erase(n);
  if (inputs[0]->producer) erase_unused(g, inputs[0]);
  if (inputs[1] != inputs[0] && inputs[1]->producer) erase_unused(g, inputs[1]);
}

}  // namespace

std::vector<WeightGradient> with_rows(GraphWriter& w, const std::vector<Value*>& weights, const std::vector<Value*>& gradients) {
  std::vector<WeightGradient> result;
  for (size_t i = 0; i < weights.size(); ++i) {
    result.push_back({gradients[i], nullptr});
    std::vector<const Node*> gathers;
    const Type& type = w.type(weights[i]);
    if (!gradients[i] || !type.static_shape() || !collect(w, gradients[i], type.shape, &gathers)) continue;
    std::vector<Value*> in{gathers[0]->inputs[2]};
    for (const Node* n : gathers) in.insert(in.end(), {n->inputs[0], n->inputs[1]});
    w.name = "gradient of " + weights[i]->name;
    const std::vector<Value*> out = w.ops("GatherRowsGrad", std::move(in), 2, {}, kTiercelDomain);
    result.back() = {out[1], out[0]};
  }
  std::vector<Value*> gone;  // each once: weights may share a gradient
  for (size_t i = 0; i < weights.size(); ++i)
    if (result[i].rows && std::find(gone.begin(), gone.end(), gradients[i]) == gone.end()) gone.push_back(gradients[i]);
  for (Value* v : gone) erase_unused(w.graph(), v);
  return result;
}

}  // namespace tiercel

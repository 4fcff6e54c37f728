#include "training/training_mode.h"

#include <algorithm>

#include "ops/registry.h"

namespace tiercel {
namespace {

void train_norm(Graph& graph, Node& n, std::map<Value*, Value*>& after) {
  if (n.opset < 9 && !n.attr_int("spatial", 1)) return;  // stays as it is: no statistics of the kind
  if (n.inputs.size() < 5 || !n.inputs[3] || !n.inputs[4]) return;
  n.opset = std::max(n.opset, 15);
  for (const char* old : {"spatial", "is_test", "consumed_inputs"}) n.unset(old);
  n.set("training_mode", int64_t{1});
  n.set("unbiased", int64_t{1});
  n.outputs.resize(3);
  for (int i : {1, 2}) {
    Value*& out = n.outputs[static_cast<size_t>(i)];
    if (out && (out->uses.size() || out->graph_output_uses)) return;
    if (!out) out = graph.add_value("");
    out->producer = &n;
    out->output_index = i;
    // Of a layer that is applied twice, the second time goes on from the first.
    Value* const before = n.inputs[static_cast<size_t>(i) + 2];
    if (const auto it = after.find(before); it != after.end()) graph.set_input(&n, i + 2, it->second);
    after[before] = out;
  }
}

void train_dropout(Graph& graph, Node& n, Value* step, int64_t seed) {
  if (n.outputs.size() > 1 && n.outputs[1] && !n.outputs[1]->uses.empty()) return;
  Value* ratio = n.input(1);
  if (n.opset < 12) ratio = nullptr;
  if (!ratio) {
    const DType t = n.inputs[0]->type.dtype;
    const double r = n.opset < 12 ? static_cast<double>(n.attr_float("ratio", 0.5f)) : 0.5;
    ratio = graph.new_constant(t == DType::kDouble ? Tensor::of<double>({}, {r}) : Tensor::of<float>({}, {static_cast<float>(r)}), "ratio");
  }
  Value* y = graph.emit("Dropout", kTiercelDomain, 1, {n.inputs[0], ratio, step}, n.outputs[0]->type, &n);
  y->producer->name = n.name;
  y->producer->set("seed", seed);
  graph.replace_uses(n.outputs[0], y);
}

bool unused(const Node& n, int i) { return !n.output(i) || (n.output(i)->uses.empty() && !n.output(i)->graph_output_uses); }

}  // namespace

void to_inference_mode(Graph& graph) {
  for (const auto& n : graph.nodes()) {
    const bool norm = n->is("BatchNormalization");
    if (!norm && !n->is("Dropout")) continue;
    bool alone = true;
    for (int i = 1; i < static_cast<int>(n->outputs.size()); ++i) alone &= unused(*n, i);
    if (!alone) continue;
    if (norm && n->opset < 7) n->set("is_test", int64_t{1});
    if (norm) n->unset("training_mode");
    if (!norm && n->inputs.size() > 2 && n->inputs[2] && n->inputs[2]->is_constant()) graph.resize_inputs(n.get(), 2);
    for (size_t i = 1; i < n->outputs.size(); ++i)
      if (n->outputs[i]) n->outputs[i]->producer = nullptr;
    n->outputs.resize(std::min<size_t>(n->outputs.size(), 1));
  }
}

std::map<Value*, Value*> to_training_mode(Graph& graph, Value* step, int64_t seed) {
  std::map<Value*, Value*> after;
  std::vector<Node*> nodes;
  for (const auto& n : graph.nodes()) nodes.push_back(n.get());
  for (Node* n : nodes) {
    if (n->is("BatchNormalization")) train_norm(graph, *n, after);
    if (n->is("Dropout")) train_dropout(graph, *n, step, seed++);
  }
  return after;
}

}  // namespace tiercel

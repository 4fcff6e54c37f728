#include "ops/activation.h"
#include "ops/registry.h"
#include "passes/fuse_norm.h"
#include "passes/match.h"

namespace tiercel {
namespace {

// ---- Add before a norm of rows

// May v be an addend of a sum of this shape and of its type, and is it worth adding here? A constant is not: it is a bias.
bool addend(const Value* v, const Value* sum) { return v && !v->is_constant() && match::same_shape(v, sum) && v->type.dtype == sum->type.dtype; }

void fuse_skip(Graph& graph, Node* node) {
  const bool tiercel = node->domain == kTiercelDomain;
  const bool layer = node->is("LayerNormalization") || node->is("LayerNormalization", kTiercelDomain);
  const bool rms = node->is("RMSNormalization") || node->is("RMSNormalization", kTiercelDomain);
  if (!layer && !rms) return;
  for (size_t i = 1; i < node->outputs.size(); ++i) if (node->outputs[i]) return;
  Value* sum = node->inputs[0];
  Node* add = match::made_by(sum, "Add");
  if (!add || !match::is_f32(sum) || !addend(add->inputs[0], sum) || !addend(add->inputs[1], sum)) return;
  const int rank = match::rank(sum), axis = normalize_axis(node->attr_int("axis", -1), rank);
  if (tiercel && node->attr_int("num_axes", 0) && axis + node->attr_int("num_axes", 0) != rank) return;
  for (int i : {1, 2}) if (node->input(i) && !match::is_f32(node->input(i))) return;

  // where the sum stood: its other readers may come before the norm
  Node* before = add;
  for (Value* v : node->inputs)
    if (v && v->producer && v != sum) return;  // scale and bias are constants or inputs of the graph
  std::vector<Value*> inputs{add->inputs[0], add->inputs[1]};
  for (int i : {1, 2}) if (i < static_cast<int>(node->inputs.size())) inputs.push_back(node->inputs[static_cast<size_t>(i)]);
  const bool needed = sum->uses.size() > 1 || sum->graph_output_uses;
  Value *y = graph.add_value("", node->outputs[0]->type), *total = needed ? graph.add_value("", sum->type) : nullptr;
  std::vector<Value*> outputs{y};
  if (total) outputs.push_back(total);
  Node* fused = graph.add_node(layer ? "SkipLayerNormalization" : "SkipRMSNormalization", kTiercelDomain, 1, std::move(inputs),
                               std::move(outputs), before);
  fused->name = node->name;
  fused->set("axis", static_cast<int64_t>(axis));
  fused->set("epsilon", node->attr_float("epsilon", 1e-5f));
  graph.replace_uses(node->outputs[0], y);
  graph.erase(node);
  if (total) graph.replace_uses(sum, total);
  graph.erase(add);
}

// ---- An activation after a norm of images

void fuse_activation(Graph& graph, Node* node) {
  const bool fused = node->domain == kTiercelDomain;
  const bool group = (fused || node->opset >= 21) && node->op_type == "GroupNormalization", instance = node->is("InstanceNormalization");
  const bool batch = node->op_type == "BatchNormalization" && (fused || node->opset >= 7);
  if (!(group || instance || batch) || !(fused || node->domain.empty()) || node->has("activation")) return;
  for (size_t i = 1; i < node->outputs.size(); ++i) if (node->outputs[i]) return;
  if (batch && (node->attr_int("training_mode", 0) || (!fused && node->opset < 9 && !node->attr_int("spatial", 1)))) return;
  Value* y = node->outputs[0];
  if (!match::is_f32(y) || !y->has_one_use()) return;
  Node* reader = y->uses[0].node;
  if (y->uses[0].index != 0) return;
  const auto activation = as_activation(*reader);
  if (!activation || !*activation || !match::same_shape(y, reader->outputs[0])) return;
  node->domain = kTiercelDomain;
  node->opset = 1;
  if (instance) {
    node->op_type = "GroupNormalization";
    node->set("num_groups", int64_t{0});
  }
  set_activation(*node, *activation);
  graph.replace_uses(reader->outputs[0], y);
}

}  // namespace

void fuse_norm_neighbours(Graph& graph) {
  for (auto it = graph.nodes().begin(); it != graph.nodes().end();) {
    Node* node = (it++)->get();
    fuse_activation(graph, node);
  }
  for (auto it = graph.nodes().begin(); it != graph.nodes().end();) {
    Node* node = (it++)->get();
    if (!node->outputs.empty() && node->outputs[0]) fuse_skip(graph, node);
  }
}

}  // namespace tiercel

#include <algorithm>

#include "ops/activation.h"
#include "ops/registry.h"
#include "passes/fuse_conv.h"
#include "passes/match.h"

namespace tiercel {
namespace {

constexpr int64_t kWorthwhile = 2 << 20;  // bytes between the convolutions: less stays in the cores' L2 from one to the next
constexpr int64_t kMostWeights = 512 << 10;  // bytes of a pointwise convolution: more would come from beyond L2 once a band
constexpr int64_t kRows = 128;              // of images whose extents are not known

bool all_are(const std::vector<int64_t>& v, int64_t x) { return std::all_of(v.begin(), v.end(), [x](int64_t e) { return e == x; }); }

// Convolutions of images in channel blocks, with constant weights and biases.
bool is_candidate(const Node* n) {
  if (!n || !n->is("Conv", kTiercelDomain) || n->inputs.size() < 2 || !n->output()) return false;
  const Value *x = n->inputs[0], *w = n->inputs[1], *b = n->input(2), *y = n->outputs[0];
  return x && match::is_f32(x) && match::rank(x) == 4 && x->type.layout == Layout::kBlocked && y->type.layout == Layout::kBlocked && w->is_constant() &&
         (!b || b->is_constant()) && w->constant.count() > 0;
}
bool is_depthwise(const Node* n) {
  if (!is_candidate(n)) return false;
  const Shape& w = n->inputs[1]->type.shape;
  return w[0] > 1 && w[1] == 1 && n->attr_int("group", 1) == w[0] && n->inputs[0]->type.shape[1] == w[0];
}
// With few enough weights.
bool is_pointwise(const Node* n) {
  if (!is_candidate(n) || n->attr_int("group", 1) != 1) return false;
  const Shape& w = n->inputs[1]->type.shape;
  return w[2] == 1 && w[3] == 1 && w.count() * 4 <= kMostWeights && all_are(n->attr_ints("strides"), 1) && all_are(n->attr_ints("pads"), 0);
}

// Bytes of a value in channel blocks; what is not known counts as large for extents of images, as one for batches.
int64_t bytes(const Value* v) {
  const Shape& s = v->type.shape;
  double n = 4.0 * static_cast<double>(round_up(s[1], kChannelBlock)) * (is_symbol(s[0]) ? 1.0 : static_cast<double>(s[0]));
  for (int a : {2, 3}) n *= is_symbol(s[a]) ? static_cast<double>(kRows) : static_cast<double>(s[a]);
  return static_cast<int64_t>(std::min(n, 1e15));
}

// Each thread computes the rows anew that the windows of its first band share with the band before: is that little of an image, for some threads?
bool shares_few_rows(const Node* depthwise) {
  const auto first = [&](const char* key) {
    const std::vector<int64_t> v = depthwise->attr_ints(key);
    return v.empty() ? 1 : v[0];
  };
  const Dim rows = depthwise->inputs[0]->type.shape[2];
  const int64_t shared = (depthwise->inputs[1]->type.shape[2] - 1) * first("dilations") + 1 - first("strides");
  return shared <= (is_symbol(rows) ? kRows : rows) / 8;
}

void fuse(Graph& graph, Node* node) {
  Node *before = node->inputs[0]->has_one_use() ? node->inputs[0]->producer : nullptr;
  if (!is_pointwise(before) || before->input(3) || !shares_few_rows(node)) before = nullptr;
  Node* after = node->outputs[0]->has_one_use() && !node->input(3) ? node->outputs[0]->uses[0].node : nullptr;
  if (!is_pointwise(after) || after->inputs[0] != node->outputs[0] || (after->input(3) == node->outputs[0])) after = nullptr;
  const int64_t saved = (before ? bytes(node->inputs[0]) : 0) + (after ? bytes(node->outputs[0]) : 0);
  if (saved < kWorthwhile) return;
  Node* const last = after ? after : node;
  std::vector<Value*> inputs{before ? before->inputs[0] : node->inputs[0]};
  for (const Node* n : {static_cast<const Node*>(before), static_cast<const Node*>(node), static_cast<const Node*>(after)})
    for (int i : {1, 2}) inputs.push_back(n ? n->input(i) : nullptr);
  inputs.push_back(last->input(3));
  Value* const y = graph.add_value("", last->outputs[0]->type);
  Node* const chain = graph.add_node("ConvChain", kTiercelDomain, 1, std::move(inputs), {y}, last);
  chain->name = node->name;
  for (const char* key : {"kernel_shape", "strides", "pads", "dilations", "auto_pad"})
    if (const Attribute* a = node->attribute(key)) chain->set(key, *a);
  if (before) set_activation(*chain, activation_of(*before), "before_");
  if (after) set_activation(*chain, activation_of(*node), "depthwise_");
  set_activation(*chain, activation_of(*last));
  if (last->outputs[0]->graph_output_uses) std::swap(last->outputs[0]->name, y->name);
  graph.replace_uses(last->outputs[0], y);
  if (after) graph.erase(after);
  graph.erase(node);
  if (before) graph.erase(before);
}

}  // namespace

void fuse_depthwise(Graph& graph) {
  std::vector<Node*> nodes;
  for (const auto& n : graph.nodes())
    if (is_depthwise(n.get())) nodes.push_back(n.get());
  for (Node* n : nodes) fuse(graph, n);
}

}  // namespace tiercel

#include "passes/subpixel.h"

#include <algorithm>

#include "ops/activation.h"
#include "ops/registry.h"
#include "passes/match.h"

namespace tiercel {
namespace {

bool all_are(const std::vector<int64_t>& v, int64_t x) { return std::all_of(v.begin(), v.end(), [x](int64_t e) { return e == x; }); }

// The stride of a transposed convolution whose windows tile the output without overlap; 0: some other one.
int64_t tiling_stride(const Node& n) {
  if (n.op_type != "ConvTranspose" || (!n.domain.empty() && n.domain != kTiercelDomain) || n.inputs.size() < 2 || n.input(3) || n.outputs.size() != 1) return 0;
  const Value *x = n.inputs[0], *w = n.inputs[1];
  if (!match::is_f32(x) || match::rank(x) != 4 || x->type.layout != Layout::kPlain || !w || !w->is_constant() || match::rank(w) != 4) return 0;
  const std::string pad = n.attr_string("auto_pad", "NOTSET");
  if (n.attr_int("group", 1) != 1 || n.has("output_shape") || (pad != "NOTSET" && pad != "VALID")) return 0;
  if (!all_are(n.attr_ints("pads"), 0) || !all_are(n.attr_ints("output_padding"), 0) || !all_are(n.attr_ints("dilations"), 1)) return 0;
  const int64_t s = w->type.shape[2];
  const std::vector<int64_t> strides = n.attr_ints("strides");
  return s > 1 && w->type.shape[3] == s && strides.size() == 2 && all_are(strides, s) && w->constant.count() > 0 ? s : 0;
}

void rewrite(Graph& graph, Node* node, int64_t stride) {
  Value *const x = node->inputs[0], *const bias = node->input(2);
  const Tensor& w = node->inputs[1]->constant;
  const int64_t channels = w.shape()[0], outputs = w.shape()[1], area = stride * stride;
  Tensor pointwise = graph.derived("subpixel", {node->inputs[1]}, [&] {
    Tensor t(DType::kFloat, Shape{outputs * area, channels, 1, 1});
    for (int64_t o = 0; o < outputs * area; ++o)
      for (int64_t c = 0; c < channels; ++c) t.as<float>()[o * channels + c] = w.as<float>()[c * outputs * area + o];
    return t;
  });
  Tensor shifts(DType::kFloat, Shape{outputs * area});
  for (int64_t o = 0; o < outputs * area; ++o) shifts.as<float>()[o] = bias ? bias->constant.as<float>()[o / area] : 0;
  Value* const out = node->outputs[0];
  const Shape& s = x->type.shape;
  const Type wide = Type::tensor(DType::kFloat, Shape{s[0], outputs * area, s[2], s[3]});
  Value* const products = graph.emit("Conv", kTiercelDomain, 1, {x, graph.new_constant(std::move(pointwise)), graph.new_constant(std::move(shifts))}, wide, node);
  products->producer->name = node->name;
  if (node->has("activation")) set_activation(*products->producer, activation_of(*node));
  Value* const y = graph.emit("DepthToSpace", "", 13, {products}, out->type, node);
  y->producer->set("blocksize", stride);
  y->producer->set("mode", std::string("CRD"));
  if (out->graph_output_uses) std::swap(out->name, y->name);
  graph.replace_uses(out, y);
  graph.erase(node);
}

}  // namespace

void subpixel(Graph& graph) {
  for (auto it = graph.nodes().begin(); it != graph.nodes().end();) {
    Node* const n = (it++)->get();
    const int64_t stride = tiling_stride(*n);
    if (!stride) continue;
    if (const Value* b = n->input(2); b && !b->is_constant()) continue;
    const int64_t outputs = n->inputs[1]->type.shape[1], area = stride * stride;
    if (2 * ceil_div(outputs * area, kChannelBlock) <= area * ceil_div(outputs, kChannelBlock)) rewrite(graph, n, stride);
  }
}

}  // namespace tiercel

#include "passes/fuse_conv.h"

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "base/file_map.h"
#include "ops/activation.h"
#include "ops/registry.h"
#include "passes/affine.h"
#include "passes/match.h"

namespace tiercel {
namespace {

bool is_conv(const Node* n) {
  return n && (n->op_type == "Conv" || n->op_type == "ConvTranspose") && (n->domain.empty() || n->domain == kTiercelDomain);
}
bool transposed(const Node* conv) { return conv->op_type == "ConvTranspose"; }
bool has_activation(const Node* conv) { return conv->has("activation"); }
bool has_residual(const Node* conv) { return conv->input(3) != nullptr; }

// Output channels, when W is a constant.
int64_t outputs_of(const Node* conv) {
  const Shape& w = conv->inputs[1]->constant.shape();
  return transposed(conv) ? w[1] * conv->attr_int("group", 1) : w[0];
}

// `by` takes the place of `old`, and its name when the graph gives it back.
void supersede(Graph& graph, Value* old, Value* by) {
  if (old->graph_output_uses) std::swap(old->name, by->name);
  Node* const producer = old->producer;
  graph.replace_uses(old, by);
  graph.erase(producer);
}

void become_fused(Node* conv) {
  conv->domain = kTiercelDomain;
  conv->opset = 1;
}

// ---- Affine maps ------------------------------------------------------------------------------------------------------

// The elements of a constant that varies along the channels alone of a tensor of rank `rank`; nullopt otherwise.
std::optional<std::vector<double>> per_channel(const Value* v, int64_t channels, int rank) {
  if (!v || !v->is_constant() || v->constant.dtype() != DType::kFloat) return std::nullopt;
  if (v->constant.count() == 1 && v->constant.shape().rank() <= rank)
    return std::vector<double>(static_cast<size_t>(channels), v->constant.doubles()[0]);
  if (!match::is_vector_along(v, channels, rank, 1)) return std::nullopt;
  return v->constant.doubles();
}

// The reader of a convolution's result as an affine map of it.
std::optional<Affine> affine_reader(const Node* reader, const Value* y, int64_t channels, int rank) {
  if (reader->is("BatchNormalization") && reader->inputs[0] == y) return batch_norm(reader, channels);
  if (!reader->domain.empty() || reader->inputs.size() != 2 || reader->opset < 7) return std::nullopt;
  const auto c = per_channel(match::other(reader, y), channels, rank);
  if (!c || reader->inputs[0] == reader->inputs[1]) return std::nullopt;
  Affine a(channels);
  const bool first = reader->inputs[0] == y;
  for (size_t i = 0; i < c->size(); ++i) {
    const double v = (*c)[i];
    if (!std::isfinite(v)) return std::nullopt;
    if (reader->op_type == "Mul") a.scale[i] = v;
    else if (reader->op_type == "Div" && first && v != 0) a.scale[i] = 1 / v;
    else if (reader->op_type == "Add") a.shift[i] = v;
    else if (reader->op_type == "Sub" && first) a.shift[i] = -v;
    else if (reader->op_type == "Sub") { a.scale[i] = -1; a.shift[i] = v; }
    else return std::nullopt;
  }
  return a;
}

bool fold_affine(Graph& graph, Node* conv) {
  Value* const y = conv->outputs[0];
  const Value *w = conv->inputs[1], *b = conv->input(2);
  if (!y->has_one_use() || has_activation(conv) || has_residual(conv) || !w->is_constant() || (b && !b->is_constant())) return false;
  const int64_t n = outputs_of(conv);
  Node* const reader = y->uses[0].node;
  if (!reader->output() || !reader->outputs[0]->type.ranked || reader->outputs[0]->type.shape.rank() != w->constant.shape().rank()) return false;
  const auto a = affine_reader(reader, y, n, w->constant.shape().rank());
  if (!a) return false;
  const Tensor& old = w->constant;
  if (std::any_of(a->scale.begin(), a->scale.end(), [](double s) { return s != 1; })) {
    const Shape& s = old.shape();
    // Rows that share an output channel: W is [outputs, ...], transposed [channels, outputs / groups, ...].
    const int64_t row = transposed(conv) ? s.count(2, s.rank()) : s.count(1, s.rank());
    const int64_t out_group = transposed(conv) ? s[1] : n, in_group = transposed(conv) ? s[0] / conv->attr_int("group", 1) : 1;
    const std::string key = cat(conv->op_type, in_group) + std::string(reinterpret_cast<const char*>(a->scale.data()), a->scale.size() * sizeof(double));
    graph.set_input(conv, 1, graph.new_constant(graph.derived(key, {w}, [&] {
      Tensor scaled(DType::kFloat, old.shape());
      float* to = scaled.as<float>();
      for (int64_t r = 0, rows = row ? old.count() / row : 0; r < rows; ++r, to += row) {  // read in place, even from a file
        const int64_t oc = transposed(conv) ? r / out_group / in_group * out_group + r % out_group : r;
        const double factor = a->scale[static_cast<size_t>(oc)];
        old.read(r * row * int64_t{sizeof(float)}, row * int64_t{sizeof(float)}, to);
        for (int64_t i = 0; i < row; ++i) to[i] = static_cast<float>(to[i] * factor);
      }
      release_pages(old);
      return scaled;
    })));
  }
  Tensor bias(DType::kFloat, Shape{n});
  for (int64_t i = 0; i < n; ++i)
    bias.as<float>()[i] = static_cast<float>((b ? b->constant.as<float>()[i] : 0) * a->scale[static_cast<size_t>(i)] + a->shift[static_cast<size_t>(i)]);
  if (conv->inputs.size() < 3) graph.add_node_input(conv, nullptr);
  graph.set_input(conv, 2, graph.new_constant(std::move(bias)));
  supersede(graph, reader->outputs[0], y);
  return true;
}

// ---- Padding ----------------------------------------------------------------------------------------------------------

std::optional<std::vector<int64_t>> constant_ints(const Value* v) {
  if (!v || !v->is_constant() || !is_integer(v->constant.dtype()) || v->constant.count() > 2 * kMaxRank) return std::nullopt;
  return v->constant.ints();
}

// Zeros at begin and end of each axis, when that is all that the node does.
std::optional<std::vector<int64_t>> zero_padding(const Node* pad, int rank) {
  if (pad->attr_string("mode", "constant") != "constant") return std::nullopt;
  std::vector<int64_t> pads;
  if (pad->opset < 11) {
    pads = pad->attr_ints(pad->opset < 2 ? "paddings" : "pads");
    if (pad->attr_float("value", 0) != 0) return std::nullopt;
  } else {
    const auto known = constant_ints(pad->input(1));
    if (!known || (pad->input(2) && match::scalar(pad->input(2)) != 0)) return std::nullopt;
    pads = *known;
    if (pad->input(3)) {
      const auto axes = constant_ints(pad->input(3));
      if (!axes || pads.size() != 2 * axes->size()) return std::nullopt;
      std::vector<int64_t> all(static_cast<size_t>(2 * rank), 0);
      for (size_t i = 0; i < axes->size(); ++i) {
        const int axis = normalize_axis((*axes)[i], rank);
        if (axis < 0) return std::nullopt;
        all[static_cast<size_t>(axis)] = pads[i];
        all[static_cast<size_t>(axis + rank)] = pads[axes->size() + i];
      }
      pads = std::move(all);
    }
  }
  if (static_cast<int>(pads.size()) != 2 * rank) return std::nullopt;
  return pads;
}

bool fold_padding(Graph& graph, Node* conv) {
  if (transposed(conv)) return false;
  Node* const pad = match::made_by(conv->inputs[0], "Pad");
  const std::string mode = conv->attr_string("auto_pad", "NOTSET");
  if (!pad || !pad->inputs[0]->type.ranked || (mode != "NOTSET" && mode != "VALID" && !mode.empty())) return false;
  const int rank = pad->inputs[0]->type.shape.rank();
  const auto extra = zero_padding(pad, rank);
  if (!extra || rank < 3) return false;
  const size_t spatial = static_cast<size_t>(rank - 2);
  std::vector<int64_t> pads = conv->attr_ints("pads");
  if (mode == "VALID" || pads.empty()) pads.assign(2 * spatial, 0);
  if (pads.size() != 2 * spatial) return false;
  for (size_t i = 0; i < extra->size(); ++i) {
    const size_t axis = i % static_cast<size_t>(rank);
    if (axis < 2 ? (*extra)[i] != 0 : (*extra)[i] < 0 || (*extra)[i] > INT32_MAX / 2) return false;
    if (axis >= 2) pads[axis - 2 + (i < static_cast<size_t>(rank) ? 0 : spatial)] += (*extra)[i];
  }
  conv->unset("auto_pad");
  conv->set("pads", pads);
  graph.set_input(conv, 0, pad->inputs[0]);
  return true;  // the Pad goes when nobody else reads it
}

// ---- Residual and activation ------------------------------------------------------------------------------------------

// The Add takes the convolution's place, so that its other operand is computed by then.
Node* fold_residual(Graph& graph, Node* conv) {
  Value* const y = conv->outputs[0];
  if (!y->has_one_use() || has_activation(conv) || has_residual(conv)) return nullptr;
  Node* const add = match::only_reader(y, "Add");
  if (!add || add->opset < 7) return nullptr;
  Value* const z = match::other(add, y);
  if (!z || z == y || !match::is_f32(z) || !match::same_shape(z, y) || !match::same_shape(add->outputs[0], y)) return nullptr;
  // Of two convolutions that are added, the later one takes the sum: fewer values stay alive.
  if (is_conv(z->producer) && z->has_one_use() && !has_residual(z->producer) && !has_activation(z->producer)) {
    for (auto it = std::next(conv->self); it != add->self; ++it)
      if (it->get() == z->producer) return nullptr;
  }
  Value* const b = conv->input(2);
  Value* const sum = graph.add_value("", y->type);
  sum->name = cat("tiercel_sum_", sum->id);
  Node* const fused = graph.add_node(conv->op_type, kTiercelDomain, 1, {conv->inputs[0], conv->inputs[1], b, z}, {sum}, add);
  fused->name = conv->name;
  fused->attributes = conv->attributes;
  supersede(graph, add->outputs[0], sum);
  graph.erase(conv);
  return fused;
}

// Mul(y, gate(y)) as the activation it is.
std::optional<Activation> gated(const Value* y, Node*& gate, Node*& product) {
  if (y->graph_output_uses || y->uses.size() != 2) return std::nullopt;
  for (int i = 0; i < 2; ++i) {
    gate = y->uses[static_cast<size_t>(i)].node;
    product = y->uses[static_cast<size_t>(1 - i)].node;
    if (!product->is("Mul") || product->inputs.size() != 2 || product->opset < 7 || !gate->output()) continue;
    if (match::other(product, y) != gate->outputs[0] || !gate->outputs[0]->has_one_use()) continue;
    const auto a = as_activation(*gate);
    if (!a) continue;
    if (a->kind == ActivationKind::kSigmoid) return Activation{ActivationKind::kSilu, 1};
    if (a->kind == ActivationKind::kHardSigmoid) return Activation{ActivationKind::kHardSwish, a->alpha, a->beta};
  }
  return std::nullopt;
}

bool fold_activation(Graph& graph, Node* conv) {
  Value* const y = conv->outputs[0];
  if (has_activation(conv)) return false;
  if (y->has_one_use()) {
    Node* const reader = y->uses[0].node;
    if (reader->inputs[0] != y || y->uses[0].index != 0 || !reader->output() || reader->outputs.size() != 1) return false;
    const auto a = as_activation(*reader);
    if (!a) return false;
    become_fused(conv);
    set_activation(*conv, *a);
    supersede(graph, reader->outputs[0], y);
    return true;
  }
  Node *gate = nullptr, *product = nullptr;
  const auto a = gated(y, gate, product);
  if (!a) return false;
  become_fused(conv);
  set_activation(*conv, *a);
  Value* const out = product->outputs[0];
  if (out->graph_output_uses) std::swap(out->name, y->name);
  graph.replace_uses(out, y);
  graph.erase(product);
  graph.erase(gate);
  return true;
}

std::vector<Node*> convs_of(const Graph& graph) {
  std::vector<Node*> convs;
  for (const auto& n : graph.nodes())
    if (is_conv(n.get()) && n->output() && match::is_f32(n->outputs[0]) && n->inputs.size() >= 2) convs.push_back(n.get());
  return convs;
}

}  // namespace

void fold_into_conv(Graph& graph) {
  for (Node* conv : convs_of(graph)) {
    fold_padding(graph, conv);
    while (fold_affine(graph, conv)) {}
  }
}

void fuse_conv(Graph& graph) {
  for (Node* conv : convs_of(graph)) {
    for (bool changed = true; changed;) {
      changed = fold_affine(graph, conv);
      if (Node* fused = fold_residual(graph, conv)) {
        conv = fused;
        changed = true;
      }
      changed = fold_activation(graph, conv) || changed;
    }
  }
}

}  // namespace tiercel

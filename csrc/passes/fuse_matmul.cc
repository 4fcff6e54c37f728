#include "passes/fuse_matmul.h"

#include <algorithm>
#include <cmath>

#include "base/file_map.h"
#include "ops/activation.h"
#include "ops/registry.h"
#include "passes/affine.h"
#include "passes/match.h"

namespace tiercel {
namespace {

bool is_product(const Node* n) {
  return n->is("MatMul") || n->is("Gemm") || n->is("FusedMatMul", kTiercelDomain) || n->is("FusedMatMul", kMicrosoftDomain);
}
bool plain(const Node* n) { return !n->has("activation") && !n->input(2) && !n->input(3); }  // product and alpha alone

// A copy of `product` before `before`, as FusedMatMul with a new output; the caller removes the old node.
Node* fused_before(Graph& graph, const Node* product, Node* before) {
  Value* const y = graph.add_value("", product->outputs[0]->type);
  y->name = cat("tiercel_product_", y->id);
  std::vector<Value*> inputs = product->inputs;
  inputs.resize(4, nullptr);
  Node* const n = graph.add_node("FusedMatMul", kTiercelDomain, 1, std::move(inputs), {y}, before);
  n->name = product->name;
  n->attributes = product->attributes;
  n->unset("broadcast");  // of Gemm below opset 7
  return n;
}

// `fused` gives what `reader` gave, and stands in its place; `reader` and `product` go.
void take_over(Graph& graph, Node* product, Node* reader, Node* fused) {
  Value *const old = reader->outputs[0], *const y = fused->outputs[0];
  if (old->graph_output_uses) std::swap(old->name, y->name);
  graph.replace_uses(old, y);
  graph.erase(reader);
  graph.erase(product);
}

bool broadcasts_to(const Value* addend, const Value* y) {
  if (!match::is_f32(addend) || !addend->type.ranked || !y->type.ranked || addend->type.layout != Layout::kPlain) return false;
  const Shape &s = addend->type.shape, &out = y->type.shape;
  if (s.rank() > out.rank()) return false;
  for (int i = 0; i < s.rank(); ++i)
    if (s[i] != 1 && s[i] != out[i + out.rank() - s.rank()]) return false;
  return true;
}

// Swaps the last two axes and leaves the others.
bool swaps_last_two(const Node* transpose) {
  const int rank = match::rank(transpose->inputs[0]);
  if (rank < 2) return false;
  std::vector<int64_t> perm = transpose->attr_ints("perm");
  if (perm.empty()) return rank == 2;
  if (static_cast<int>(perm.size()) != rank || perm[static_cast<size_t>(rank - 2)] != rank - 1 || perm[static_cast<size_t>(rank - 1)] != rank - 2) return false;
  for (int i = 0; i + 2 < rank; ++i)
    if (perm[static_cast<size_t>(i)] != i) return false;
  return true;
}

Node* fold_transpose(Graph& graph, Node* product) {
  Node* fused = nullptr;
  for (int i : {0, 1}) {
    Node* const transpose = match::made_by((fused ? fused : product)->inputs[static_cast<size_t>(i)], "Transpose");
    if (!transpose || !swaps_last_two(transpose) || transpose->outputs[0]->uses.size() != 1) continue;
    const std::string key = i ? "transB" : "transA", batch = i ? "transBatchB" : "transBatchA";
    if (product->attr_int(batch, 0)) continue;
    if (!fused) {
      fused = fused_before(graph, product, product);
      Value *const old = product->outputs[0], *const y = fused->outputs[0];
      if (old->graph_output_uses) std::swap(old->name, y->name);
      graph.replace_uses(old, y);
      graph.erase(product);
    }
    fused->set(key, int64_t{fused->attr_int(key, 0) == 0});
    graph.set_input(fused, i, transpose->inputs[0]);
  }
  return fused;
}

// alpha rounds once more than the sum, as the Mul did; a Div by a power of two is such a Mul.
Node* fold_scale(Graph& graph, Node* product) {
  Value* const y = product->outputs[0];
  if (!y->has_one_use() || !plain(product) || product->attr_float("alpha", 1) != 1) return nullptr;
  Node* const reader = y->uses[0].node;
  const bool mul = reader->is("Mul"), div = reader->is("Div");
  if ((!mul && !div) || reader->opset < 7 || (div && reader->inputs[0] != y)) return nullptr;
  const Value* const other = match::other(reader, y);
  const auto s = match::scalar(other);
  if (!s || !match::is_f32(other) || match::rank(other) > match::rank(y) || !std::isfinite(*s)) return nullptr;
  double alpha = *s;
  if (div) {
    int exponent;
    if (alpha == 0 || std::fabs(std::frexp(alpha, &exponent)) != 0.5 || std::abs(exponent) > 100) return nullptr;
    alpha = 1 / alpha;
  }
  Node* const fused = fused_before(graph, product, reader);
  fused->set("alpha", static_cast<float>(alpha));
  take_over(graph, product, reader, fused);
  return fused;
}

// A product whose B is a constant matrix that nobody else reads, whose bias is a constant vector along its columns, or none.
struct Weighted {
  const Value *b, *bias;
  bool transposed;
  int64_t k, n;
};

std::optional<Weighted> weighted(const Node* product) {
  const Value *const y = product->outputs[0], *const b = product->inputs[1], *const bias = product->input(2);
  if (product->has("activation") || product->input(3) || product->attr_float("beta", 1) != 1 || product->attr_int("transBatchB", 0)) return std::nullopt;
  if (match::rank(y) < 2 || !match::is_f32(b) || !b->is_constant() || match::rank(b) != 2 || !b->has_one_use()) return std::nullopt;
  const bool transposed = product->attr_int("transB", 0) != 0;
  const Shape& s = b->type.shape;
  const Weighted w{b, bias, transposed, s[transposed ? 1 : 0], s[transposed ? 0 : 1]};
  if (bias && (!match::is_f32(bias) || !match::is_vector_along(bias, w.n, match::rank(y), match::rank(y) - 1))) return std::nullopt;
  return w;
}

// B with rows and columns multiplied (an empty factor: left alone), in double.
Tensor scaled(const Graph& graph, const Weighted& w, const std::vector<double>& rows, const std::vector<double>& columns) {
  const auto bytes = [](const std::vector<double>& v) { return std::string(reinterpret_cast<const char*>(v.data()), v.size() * sizeof(double)); };
  return graph.derived(cat("product", w.transposed, rows.size(), ":") + bytes(rows) + bytes(columns), {w.b}, [&] {
    Tensor t(DType::kFloat, w.b->type.shape);
    const Tensor& b = w.b->constant;
    const std::vector<double>&down = w.transposed ? columns : rows, &across = w.transposed ? rows : columns;
    const int64_t height = w.transposed ? w.n : w.k, width = w.transposed ? w.k : w.n;
    float* to = t.as<float>();
    for (int64_t i = 0; i < height; ++i, to += width) {  // read in place, even from a file
      b.read(i * width * int64_t{sizeof(float)}, width * int64_t{sizeof(float)}, to);
      const double factor = down.empty() ? 1 : down[static_cast<size_t>(i)];
      for (int64_t j = 0; j < width; ++j) to[j] = static_cast<float>(to[j] * factor * (across.empty() ? 1 : across[static_cast<size_t>(j)]));
    }
    release_pages(b);
    return t;
  });
}

// The product with other constants, before `before`; nullptr where they are not finite: an infinity times the sum is not the sum of its
// terms' infinities.
Node* with_weights(Graph& graph, Node* product, Node* before, Tensor b, Tensor bias) {
  if (!match::all_finite(graph, b) || !match::all_finite(bias)) return nullptr;
  Node* const fused = fused_before(graph, product, before);
  if (!product->input(2)) fused->unset("beta");  // it scaled a C that was not there
  graph.set_input(fused, 1, graph.new_constant(std::move(b)));
  graph.set_input(fused, 2, graph.new_constant(std::move(bias)));
  return fused;
}

// The only reader of v when it gives v's elements in another shape; else null.
Node* only_reshape(const Value* v) {
  for (const char* op : {"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
    if (Node* n = match::only_reader(v, op)) return n->inputs[0] == v && n->output() ? n : nullptr;
  return nullptr;
}

// BatchNormalization of the product's columns goes into B and the bias; what flattens rows between keeps its place.
Node* fold_batch_norm(Graph& graph, Node* product) {
  Value* const y = product->outputs[0];
  const auto w = weighted(product);
  if (!w) return nullptr;
  Node* const reshape = only_reshape(y);
  Value* const rows = reshape ? reshape->outputs[0] : y;
  Node* const bn = match::only_reader(rows, "BatchNormalization");
  if (!bn || bn->inputs[0] != rows || match::rank(rows) != 2 || rows->type.shape[1] != w->n || y->type.shape[match::rank(y) - 1] != w->n) return nullptr;
  const auto a = batch_norm(bn, w->n);
  if (!a) return nullptr;
  Tensor bias(DType::kFloat, Shape{w->n});
  for (int64_t j = 0; j < w->n; ++j) {
    const auto c = static_cast<size_t>(j);
    bias.as<float>()[j] = static_cast<float>((w->bias ? w->bias->constant.as<float>()[j] : 0) * a->scale[c] + a->shift[c]);
  }
  Node* const fused = with_weights(graph, product, rows == y ? bn : reshape, scaled(graph, *w, {}, a->scale), std::move(bias));
  if (!fused) return nullptr;
  if (rows == y) {
    take_over(graph, product, bn, fused);
    return fused;
  }
  graph.set_input(reshape, 0, fused->outputs[0]);
  graph.erase(product);
  Value* const old = bn->outputs[0];
  if (old->graph_output_uses) std::swap(old->name, rows->name);
  graph.replace_uses(old, rows);
  graph.erase(bn);
  // Rows that are only unflattened again need not be flattened.
  Node* const back = only_reshape(rows);
  if (back && match::same_shape(back->outputs[0], fused->outputs[0])) {
    Value* const whole = back->outputs[0];
    if (whole->graph_output_uses) std::swap(whole->name, fused->outputs[0]->name);
    graph.replace_uses(whole, fused->outputs[0]);
    graph.erase(back);
    graph.erase(reshape);
  }
  return fused;
}

// BatchNormalization of the rows that a product takes: its scale goes into B's rows, its shift times B into the bias.
Node* fold_batch_norm_of_rows(Graph& graph, Node* product) {
  Value *const x = product->inputs[0], *const y = product->outputs[0];
  Node* const bn = match::made_by(x, "BatchNormalization");
  const auto w = weighted(product);
  if (!bn || !w || product->attr_int("transA", 0) || product->attr_int("transBatchA", 0) || match::rank(x) != 2 || x->type.shape[1] != w->k) return nullptr;
  const auto a = batch_norm(bn, w->k);
  if (!a) return nullptr;
  const double alpha = product->attr_float("alpha", 1);
  std::vector<double> sum(static_cast<size_t>(w->n), 0);
  const float* const b = w->b->constant.as<float>();
  for (int64_t k = 0; k < w->k; ++k)
    for (int64_t j = 0; j < w->n; ++j) sum[static_cast<size_t>(j)] += a->shift[static_cast<size_t>(k)] * b[w->transposed ? j * w->k + k : k * w->n + j];
  Tensor bias(DType::kFloat, Shape{w->n});
  for (int64_t j = 0; j < w->n; ++j)
    bias.as<float>()[j] = static_cast<float>((w->bias ? w->bias->constant.as<float>()[j] : 0) + alpha * sum[static_cast<size_t>(j)]);
  Node* const fused = with_weights(graph, product, product, scaled(graph, *w, a->scale, {}), std::move(bias));
  if (!fused) return nullptr;
  graph.set_input(fused, 0, bn->inputs[0]);
  if (y->graph_output_uses) std::swap(y->name, fused->outputs[0]->name);
  graph.replace_uses(y, fused->outputs[0]);
  graph.erase(product);
  return fused;  // the normalisation goes when nobody else reads it
}

// A constant factor for each column goes into B and the bias: the layer scale of vision models.
Node* fold_column_scale(Graph& graph, Node* product) {
  Value* const y = product->outputs[0];
  const auto w = weighted(product);
  Node* const mul = match::only_reader(y, "Mul");
  if (!w || !mul || mul->opset < 7) return nullptr;
  const Value* const factor = match::other(mul, y);
  const int rank = match::rank(y);
  if (!factor || !match::is_f32(factor) || !match::is_vector_along(factor, w->n, rank, rank - 1)) return nullptr;
  const float* const f = factor->constant.as<float>();
  Tensor b = scaled(graph, *w, {}, factor->constant.doubles()), bias;
  if (w->bias) {
    bias = Tensor(DType::kFloat, w->bias->type.shape);
    for (int64_t j = 0; j < w->n; ++j) bias.as<float>()[j] = w->bias->constant.as<float>()[j] * f[j];
  }
  if (!match::all_finite(graph, b) || (w->bias && !match::all_finite(bias))) return nullptr;
  Node* const fused = fused_before(graph, product, mul);
  graph.set_input(fused, 1, graph.new_constant(std::move(b)));
  if (w->bias) graph.set_input(fused, 2, graph.new_constant(std::move(bias)));
  take_over(graph, product, mul, fused);
  return fused;
}

Node* fold_addend(Graph& graph, Node* product) {
  Value* const y = product->outputs[0];
  if (product->has("activation") || product->input(3)) return nullptr;
  Node* const add = match::only_reader(y, "Add");
  if (!add || add->opset < 7) return nullptr;
  Value* const z = match::other(add, y);
  if (!z || z == y || !broadcasts_to(z, y)) return nullptr;
  // Of two products that are added, the later one takes the sum: fewer values stay alive.
  if (z->producer && is_product(z->producer) && z->has_one_use() && !z->producer->input(3) && !z->producer->has("activation") &&
      broadcasts_to(y, z)) {
    for (auto it = std::next(product->self); it != add->self; ++it)
      if (it->get() == z->producer) return nullptr;
  }
  Node* const fused = fused_before(graph, product, add);
  if (!product->input(2)) fused->unset("beta");  // it scaled a C that was not there
  graph.set_input(fused, product->input(2) ? 3 : 2, z);
  take_over(graph, product, add, fused);
  return fused;
}

// An activation behind a reshape of the product goes before it, where it can be folded: exporters flatten rows around Gemm.
void lift_activation(Graph& graph, const Node* product) {
  Value* const y = product->outputs[0];
  Node* const reshape = only_reshape(y);
  if (!reshape || !reshape->outputs[0]->has_one_use() || product->has("activation")) return;
  Node* const reader = reshape->outputs[0]->uses[0].node;
  if (reshape->outputs[0]->uses[0].index != 0 || reader->outputs.size() != 1 || !reader->output() || !as_activation(*reader)) return;
  std::vector<Value*> inputs = reader->inputs;
  inputs[0] = y;
  Value* const lifted = graph.add_value("", y->type);
  lifted->name = cat("tiercel_lifted_", lifted->id);
  Node* const n = graph.add_node(reader->op_type, reader->domain, reader->opset, std::move(inputs), {lifted}, reshape);
  n->name = reader->name;
  n->attributes = reader->attributes;
  graph.set_input(reshape, 0, lifted);
  Value *const old = reader->outputs[0], *const out = reshape->outputs[0];
  if (old->graph_output_uses) std::swap(old->name, out->name);
  graph.replace_uses(old, out);
  graph.erase(reader);
}

// Mul(y, gate(y)) as the activation it is.
std::optional<Activation> gated(const Value* y, Node*& gate, Node*& mul) {
  if (y->graph_output_uses || y->uses.size() != 2) return std::nullopt;
  for (size_t i = 0; i < 2; ++i) {
    gate = y->uses[i].node;
    mul = y->uses[1 - i].node;
    if (!mul->is("Mul") || mul->inputs.size() != 2 || mul->opset < 7 || gate->outputs.size() != 1 || !gate->output()) continue;
    if (match::other(mul, y) != gate->outputs[0] || !gate->outputs[0]->has_one_use()) continue;
    const auto a = as_activation(*gate);
    if (a && a->kind == ActivationKind::kSigmoid) return Activation{ActivationKind::kSilu, 1};
    if (a && a->kind == ActivationKind::kHardSigmoid) return Activation{ActivationKind::kHardSwish, a->alpha, a->beta};
  }
  return std::nullopt;
}

Node* fold_activation(Graph& graph, Node* product) {
  Value* const y = product->outputs[0];
  if (product->has("activation")) return nullptr;
  Node *reader = nullptr, *gate = nullptr;
  std::optional<Activation> a;
  if (y->has_one_use()) {
    reader = y->uses[0].node;
    if (y->uses[0].index != 0 || reader->outputs.size() != 1 || !reader->output()) return nullptr;
    a = as_activation(*reader);
  } else {
    a = gated(y, gate, reader);
  }
  if (!a) return nullptr;
  Node* const fused = fused_before(graph, product, reader);
  set_activation(*fused, *a);
  if (gate) {
    // The product of y and its gate: reader goes first, then the gate, then y's node.
    Value *const old = reader->outputs[0], *const out = fused->outputs[0];
    if (old->graph_output_uses) std::swap(old->name, out->name);
    graph.replace_uses(old, out);
    graph.erase(reader);
    graph.erase(gate);
    graph.erase(product);
  } else {
    take_over(graph, product, reader, fused);
  }
  return fused;
}

}  // namespace

void fuse_matmul(Graph& graph) {
  std::vector<Node*> products;
  for (const auto& n : graph.nodes())
    if (is_product(n.get())) products.push_back(n.get());
  for (Node* product : products) {
    if (!product->output() || !match::is_f32(product->outputs[0]) || product->inputs.size() < 2) continue;
    if (Node* fused = fold_transpose(graph, product)) product = fused;
    if (Node* fused = fold_batch_norm_of_rows(graph, product)) product = fused;
    for (bool changed = true; changed;) {
      changed = false;
      lift_activation(graph, product);
      for (auto fold : {fold_scale, fold_column_scale, fold_batch_norm, fold_addend, fold_activation})
        if (Node* fused = fold(graph, product)) {
          product = fused;
          changed = true;
        }
    }
  }
}

}  // namespace tiercel

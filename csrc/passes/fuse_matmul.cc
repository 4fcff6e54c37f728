#include "passes/fuse_matmul.h"

#include <algorithm>
#include <cmath>

#include "ops/activation.h"
#include "ops/registry.h"
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

// A constant factor for each column goes into B and the bias: the layer scale of vision models.
Node* fold_column_scale(Graph& graph, Node* product) {
  Value *const y = product->outputs[0], *const b = product->inputs[1], *const bias = product->input(2);
  if (product->has("activation") || product->input(3) || product->attr_float("beta", 1) != 1 || product->attr_int("transBatchB", 0)) return nullptr;
  Node* const mul = match::only_reader(y, "Mul");
  if (!mul || mul->opset < 7 || match::rank(y) < 2 || !b->is_constant() || match::rank(b) != 2 || !b->has_one_use()) return nullptr;
  const bool transposed = product->attr_int("transB", 0) != 0;
  const int64_t rows = b->type.shape[0], n = b->type.shape[transposed ? 0 : 1];
  const Value* const factor = match::other(mul, y);
  const int rank = match::rank(y);
  if (!factor || !match::is_f32(factor) || !match::is_vector_along(factor, n, rank, rank - 1)) return nullptr;
  if (bias && (!match::is_f32(bias) || !match::is_vector_along(bias, n, rank, rank - 1))) return nullptr;
  const float* const f = factor->constant.as<float>();
  Tensor scaled(DType::kFloat, b->type.shape);
  const int64_t columns = scaled.count() / std::max<int64_t>(rows, 1);
  const float* from = b->constant.as<float>();
  float* to = scaled.as<float>();
  for (int64_t i = 0; i < rows; ++i, from += columns, to += columns)
    for (int64_t j = 0; j < columns; ++j) to[j] = from[j] * (transposed ? f[i] : f[j]);
  Tensor shifted;
  if (bias) {
    shifted = Tensor(DType::kFloat, bias->type.shape);
    for (int64_t j = 0; j < n; ++j) shifted.as<float>()[j] = bias->constant.as<float>()[j] * f[j];
  }
  // An infinity times the sum is not the sum of its terms' infinities.
  const auto finite = [](const Tensor& t) {
    const float* const v = t.as<float>();
    return std::all_of(v, v + t.count(), [](float x) { return std::isfinite(x); });
  };
  if (!finite(scaled) || (bias && !finite(shifted))) return nullptr;
  const auto constant = [&](Tensor t) {
    Value* const v = graph.add_constant("", std::move(t));
    v->name = cat("tiercel_constant_", v->id);
    return v;
  };
  Node* const fused = fused_before(graph, product, mul);
  graph.set_input(fused, 1, constant(std::move(scaled)));
  if (bias) graph.set_input(fused, 2, constant(std::move(shifted)));
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

// An activation behind a Reshape of the product goes before it, where it can be folded: exporters flatten rows around Gemm.
void lift_activation(Graph& graph, const Node* product) {
  Value* const y = product->outputs[0];
  Node* const reshape = match::only_reader(y, "Reshape");
  if (!reshape || reshape->inputs[0] != y || !reshape->output() || !reshape->outputs[0]->has_one_use() || product->has("activation")) return;
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
    lift_activation(graph, product);
    for (bool changed = true; changed;) {
      changed = false;
      for (auto fold : {fold_scale, fold_column_scale, fold_addend, fold_activation})
        if (Node* fused = fold(graph, product)) {
          product = fused;
          changed = true;
        }
    }
  }
}

}  // namespace tiercel

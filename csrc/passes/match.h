// Small questions that rewrites ask of a graph. All general: constants are compared by value, scalars may have any rank.
#pragma once
#include <cmath>
#include <initializer_list>
#include <optional>
#include <string_view>
#include <utility>

#include "graph/graph.h"

namespace tiercel::match {

// The number that a one-element constant of a real dtype holds; nullopt for anything else.
inline std::optional<double> scalar(const Value* v) {
  if (!v || !v->is_constant() || v->constant.dtype() == DType::kString || v->constant.count() != 1) return std::nullopt;
  if (bits_of(v->constant.dtype()) < 8) return std::nullopt;
  return v->constant.doubles()[0];
}
// Is v that number, within a relative tolerance (exporters write sqrt(2) in many ways)?
inline bool is_scalar(const Value* v, double expected, double tolerance = 1e-4) {
  const auto s = scalar(v);
  return s && std::fabs(*s - expected) <= tolerance * std::fmax(1e-30, std::fabs(expected));
}

// The node that computes v when it is `op` of `domain`; else null.
inline Node* made_by(const Value* v, std::string_view op, std::string_view domain = "") {
  return v && v->producer && v->producer->is(op, domain) ? v->producer : nullptr;
}
// As made_by, and nobody else reads v: the node may be swallowed by a fusion.
inline Node* only_made_by(const Value* v, std::string_view op, std::string_view domain = "") {
  return v && v->has_one_use() ? made_by(v, op, domain) : nullptr;
}
// The only reader of v when it is `op`; else null.
inline Node* only_reader(const Value* v, std::string_view op, std::string_view domain = "") {
  return v && v->has_one_use() && v->uses[0].node->is(op, domain) ? v->uses[0].node : nullptr;
}

// Of a two-operand node: the operand that is not v (v * v gives v).
inline Value* other(const Node* node, const Value* v) {
  return node->inputs.size() != 2 ? nullptr : node->inputs[0] == v ? node->inputs[1] : node->inputs[0];
}
// Of a commutative two-operand node: {operand that is not the constant, the constant's value}.
inline std::optional<std::pair<Value*, double>> with_scalar(const Node* node) {
  if (!node || node->inputs.size() != 2) return std::nullopt;
  for (int i : {1, 0})
    if (const auto s = scalar(node->inputs[i])) return std::pair{node->inputs[1 - i], *s};
  return std::nullopt;
}

inline bool same_shape(const Value* a, const Value* b) {
  return a->type.ranked && b->type.ranked && a->type.shape == b->type.shape && a->type.layout == b->type.layout;
}
inline bool is_f32(const Value* v) { return v && v->type.is_tensor() && v->type.dtype == DType::kFloat; }
inline int rank(const Value* v) { return v && v->type.ranked ? v->type.shape.rank() : -1; }

// Has an f32 tensor neither infinities nor NaN? Reads in place, even from a file.
inline bool all_finite(const Tensor& t) {
  constexpr int64_t kPart = 4096;
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t part[kPart];
  for (int64_t i = 0, n = t.count(); i < n; i += kPart) {
    const int64_t m = n - i < kPart ? n - i : kPart;
    t.read(4 * i, 4 * m, part);
    bool odd = false;
    for (int64_t j = 0; j < m; ++j) odd |= (part[j] & kExponent) == kExponent;
    if (odd) return false;
  }
  return true;
}

// The same of a constant of a graph, which may remember it.
inline bool all_finite(const Graph& graph, const Tensor& t) {
  if (!graph.memo) return all_finite(t);
  return graph.memo->get("finite", {t}, [&] { return std::vector{Tensor::of<bool>({}, {all_finite(t)})}; })[0].as<bool>()[0];
}

// A constant's `n` elements along one axis and 1 elsewhere (a bias or scale per channel): is `v` such, with the axis counted
// from the end of a shape of rank `rank`?  [n], [1,n], [n,1,1], ...
inline bool is_vector_along(const Value* v, int64_t n, int rank, int axis) {
  if (!v || !v->is_constant()) return false;
  const Shape& s = v->type.shape;
  const int at = axis - (rank - s.rank());
  if (s.rank() > rank || at < 0 || s[at] != n) return false;
  for (int i = 0; i < s.rank(); ++i) if (i != at && s[i] != 1) return false;
  return true;
}

}  // namespace tiercel::match

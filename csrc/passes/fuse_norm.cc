#include "passes/fuse_norm.h"

#include <algorithm>
#include <numeric>

#include "ops/registry.h"
#include "passes/match.h"

namespace tiercel {
namespace {

using match::made_by;

// ---- Pieces of the formulas

bool is_power(const Node* n, double exponent) { return n && n->is("Pow") && match::is_scalar(n->inputs[1], exponent); }

// a, where v is a * a.
Value* square_of(const Value* v) {
  if (!v || !v->producer) return nullptr;
  const Node* n = v->producer;
  if (n->is("Mul") && n->inputs[0] == n->inputs[1]) return n->inputs[0];
  return is_power(n, 2) ? n->inputs[0] : nullptr;
}
// t, where v is sqrt(t).
Value* sqrt_of(const Value* v) {
  if (!v || !v->producer) return nullptr;
  return v->producer->is("Sqrt") || is_power(v->producer, 0.5) ? v->producer->inputs[0] : nullptr;
}
// a, where v is 1 / a.
Value* inverse_of(const Value* v) {
  if (!v || !v->producer) return nullptr;
  const Node* n = v->producer;
  if (n->is("Reciprocal") || is_power(n, -1)) return n->inputs[0];
  return n->is("Div") && match::is_scalar(n->inputs[0], 1) ? n->inputs[1] : nullptr;
}
// t, where v is 1 / sqrt(t).
Value* rsqrt_of(const Value* v) {
  if (!v || !v->producer) return nullptr;
  if (is_power(v->producer, -0.5)) return v->producer->inputs[0];
  if (Value* t = sqrt_of(inverse_of(v))) return t;
  return inverse_of(sqrt_of(v));
}
// (a, e), where v is a + e with e a number that is not negative; (v, 0) otherwise.
std::pair<Value*, double> without_epsilon(Value* v) {
  if (const Node* add = made_by(v, "Add"))
    if (const auto t = match::with_scalar(add); t && t->second >= 0 && match::rank(t->first) == match::rank(v)) return *t;
  return {v, 0};
}

using Axes = std::vector<int>;

// The axes of a Reduce* node that keeps them, in order.
std::optional<Axes> axes_of(const Node* n) {
  const int rank = n ? match::rank(n->inputs[0]) : -1;
  if (rank < 1 || n->attr_int("keepdims", 1) == 0) return std::nullopt;
  std::vector<int64_t> given = n->attr_ints("axes");
  if (const Value* v = n->input(1)) {
    if (!v->is_constant()) return std::nullopt;
    given = v->constant.ints();
  }
  Axes axes;
  for (int64_t a : given) axes.push_back(normalize_axis(a, rank));
  if (given.empty()) {
    if (n->attr_int("noop_with_empty_axes", 0)) return std::nullopt;
    axes.resize(static_cast<size_t>(rank));
    std::iota(axes.begin(), axes.end(), 0);
  }
  std::sort(axes.begin(), axes.end());
  if (axes.front() < 0 || std::adjacent_find(axes.begin(), axes.end()) != axes.end()) return std::nullopt;
  return axes;
}

// (a, axes), where v is the mean of a.
struct Mean {
  Value* of;
  Axes axes;
};
std::optional<Mean> mean_of(const Value* v) {
  Node* n = made_by(v, "ReduceMean");
  const auto axes = axes_of(n);
  if (!axes) return std::nullopt;
  return Mean{n->inputs[0], *axes};
}

// x, where v is x - mean x over the axes.
Value* centered(const Value* v, const Axes& axes) {
  const Node* sub = made_by(v, "Sub");
  if (!sub) return nullptr;
  const auto mean = mean_of(sub->inputs[1]);
  return mean && mean->of == sub->inputs[0] && mean->axes == axes ? mean->of : nullptr;
}

// What a norm is of; `rms`: the mean is not taken off.
struct Norm {
  Value* x = nullptr;
  Axes axes;
  double epsilon = 0;
  bool rms = false;
};

// The norm whose mean square, with its epsilon, is t and whose numerator is `num`.
std::optional<Norm> norm_of(Value* num, Value* t) {
  const auto [variance, epsilon] = without_epsilon(t);
  if (const auto mean = mean_of(variance)) {
    Value* a = square_of(mean->of);
    if (!a) return std::nullopt;
    Value* x = centered(num, mean->axes);
    if (x && (a == num || centered(a, mean->axes) == x)) return Norm{x, mean->axes, epsilon, false};
    if (a == num) return Norm{num, mean->axes, epsilon, true};
    return std::nullopt;
  }
  // mean x^2 - (mean x)^2
  if (const Node* sub = made_by(variance, "Sub")) {
    const auto square = mean_of(sub->inputs[0]), mean = mean_of(square_of(sub->inputs[1]));
    if (square && mean && square->axes == mean->axes && square_of(square->of) == mean->of && centered(num, mean->axes) == mean->of)
      return Norm{mean->of, mean->axes, epsilon, false};
  }
  return std::nullopt;
}

std::optional<Norm> match_norm(const Node* n) {
  if (n->is("Div"))
    if (Value* t = sqrt_of(n->inputs[1])) return norm_of(n->inputs[0], t);
  if (n->is("Mul"))
    for (int i : {0, 1})
      if (Value* t = rsqrt_of(n->inputs[i]))
        if (auto norm = norm_of(n->inputs[1 - i], t)) return norm;
  return std::nullopt;
}

// x g + (bias - mean g), g = scale / sqrt(variance + e): how a batch normalisation written out is used for layers.
struct Folded {
  Norm norm;
  Value *scale = nullptr, *bias = nullptr;
};
std::optional<Folded> match_folded(const Node* n) {
  if (!n->is("Add")) return std::nullopt;
  for (int i : {0, 1}) {
    const Node *product = made_by(n->inputs[i], "Mul"), *rest = made_by(n->inputs[1 - i], "Sub");
    const Node* shift = rest ? made_by(rest->inputs[1], "Mul") : nullptr;
    if (!product || !shift) continue;
    for (int k : {0, 1}) {
      Value *x = product->inputs[k], *g = product->inputs[1 - k];
      const Value* mean = match::other(shift, g);
      if (!mean || (shift->inputs[0] != g && shift->inputs[1] != g)) continue;
      const auto m = mean_of(mean);
      if (!m || m->of != x) continue;
      Folded f;
      f.bias = rest->inputs[0];
      Value* t = rsqrt_of(g);
      if (const Node* scaled = t ? nullptr : made_by(g, "Mul"))
        for (int j : {0, 1})
          if ((t = rsqrt_of(scaled->inputs[j]))) {
            f.scale = scaled->inputs[1 - j];
            break;
          }
      if (!t) continue;
      const auto [variance, epsilon] = without_epsilon(t);
      const auto v = mean_of(variance);
      const Value* d = v ? square_of(v->of) : nullptr;
      if (!d || v->axes != m->axes || centered(d, m->axes) != x) continue;
      f.norm = {x, m->axes, epsilon, false};
      return f;
    }
  }
  return std::nullopt;
}

// ---- Scale and bias

// How the operands of a norm lie: as the normalised axes [d0, d1, ...], or as one axis's extent [n].
struct Place {
  int first, last;  // axes [first, last) of x
};

// Does `v`, broadcast to x, vary along the axes of the place alone, with their extents?
bool fits(const Value* v, const Shape& x, Place p) {
  if (!v || !v->type.static_shape()) return false;
  const Shape& s = v->type.shape;
  const int skip = x.rank() - s.rank();
  if (skip > p.first || skip < 0) return false;
  for (int i = 0; i < s.rank(); ++i)
    if (s[i] != (i + skip >= p.first && i + skip < p.last ? x[i + skip] : 1)) return false;
  return v->is_constant() || (s.rank() == p.last - p.first && p.last == x.rank());
}

// The same elements as exactly the axes of the place.
Value* placed(Graph& graph, Value* v, const Shape& x, Place p) {
  if (!v) return nullptr;
  const Shape want(x.span().subspan(static_cast<size_t>(p.first), static_cast<size_t>(p.last - p.first)));
  if (v->type.shape == want) return v;
  Value* made = graph.new_constant(v->constant.reshaped(want), "norm");
  return made;
}

// [* scale] [+ bias] behind y, as far as y has no other reader.
struct Affine {
  Value *scale = nullptr, *bias = nullptr;
  Value* last;
};
Affine affine_after(Value* y, Place p, bool with_bias) {
  Affine a{nullptr, nullptr, y};
  const Shape& x = y->type.shape;
  if (const Node* mul = match::only_reader(a.last, "Mul"); mul && match::same_shape(y, mul->outputs[0])) {
    Value* v = match::other(mul, a.last);
    const bool nothing = match::is_scalar(v, 1, 0);
    if (nothing || fits(v, x, p)) {
      a.scale = nothing ? nullptr : v;
      a.last = mul->outputs[0];
    }
  }
  if (const Node* add = with_bias ? match::only_reader(a.last, "Add") : nullptr; add && match::same_shape(y, add->outputs[0])) {
    Value* v = match::other(add, a.last);
    const bool nothing = match::is_scalar(v, 0, 0);
    if (nothing || fits(v, x, p)) {
      a.bias = nothing ? nullptr : v;
      a.last = add->outputs[0];
    }
  }
  return a;
}

// ---- Replacements

void replace(Graph& graph, Value* old, std::string op, int opset, std::vector<Value*> inputs,
             std::vector<std::pair<std::string, Attribute>> attributes) {
  while (!inputs.empty() && !inputs.back()) inputs.pop_back();
  Value* y = graph.emit(op, opset == 1 ? kTiercelDomain : "", opset, std::move(inputs), old->type, old->producer);
  for (auto& [key, value] : attributes) y->producer->set(key, std::move(value));
  y->producer->name = old->producer->name;
  graph.replace_uses(old, y);
}

// A norm over the last axes, or over one axis inside.
void emit_norm(Graph& graph, const Norm& n, Value* scale, Value* bias, Value* last) {
  const Shape& x = n.x->type.shape;
  const int first = n.axes.front(), end = n.axes.back() + 1;
  const Place p{first, end};
  const int64_t axis = first;
  const float epsilon = static_cast<float>(n.epsilon);
  Value *s = placed(graph, scale, x, p), *b = placed(graph, bias, x, p);
  if (end == x.rank() && s && !n.rms) return replace(graph, last, "LayerNormalization", 17, {n.x, s, b}, {{"axis", axis}, {"epsilon", epsilon}});
  if (end == x.rank() && s && !b) return replace(graph, last, "RMSNormalization", 23, {n.x, s}, {{"axis", axis}, {"epsilon", epsilon}});
  replace(graph, last, n.rms ? "RMSNormalization" : "LayerNormalization", 1, {n.x, s, b},
          {{"axis", axis}, {"num_axes", static_cast<int64_t>(n.axes.size())}, {"epsilon", epsilon}});
}

bool supported(const Value* v) {
  const DType t = v->type.dtype;
  return v->type.is_tensor() && (t == DType::kFloat || t == DType::kDouble || t == DType::kFloat16 || t == DType::kBFloat16);
}

bool contiguous(const Axes& axes) { return axes.back() - axes.front() + 1 == static_cast<int>(axes.size()); }
bool spatial(const Axes& axes, int rank) { return rank > 2 && axes.front() == 2 && static_cast<int>(axes.size()) == rank - 2; }

// x half -> Cast to f32 -> norm -> Cast back: the operator takes halves itself, and computes in f32.
void skip_casts(Norm& n, Value*& y) {
  const Node *in = made_by(n.x, "Cast"), *out = match::only_reader(y, "Cast");
  if (!in || !out || y->type.dtype != DType::kFloat) return;
  const DType t = in->inputs[0]->type.dtype;
  if ((t != DType::kFloat16 && t != DType::kBFloat16) || out->outputs[0]->type.dtype != t) return;
  n.x = in->inputs[0];
  y = out->outputs[0];
}

bool fuse_layer_norm(Graph& graph, Node* node) {
  auto n = match_norm(node);
  Value *scale = nullptr, *bias = nullptr, *y = node->outputs[0];
  if (!n) {
    if (auto f = match_folded(node)) {
      const Place p{f->norm.axes.front(), f->norm.axes.back() + 1};
      const Shape& x = f->norm.x->type.shape;
      if ((f->scale && !fits(f->scale, x, p)) || !fits(f->bias, x, p) || p.last != x.rank()) return false;
      n = f->norm;
      scale = f->scale;
      bias = f->bias;
    }
  }
  if (!n || !supported(n->x) || !match::same_shape(n->x, y) || !contiguous(n->axes)) return false;
  const int rank = match::rank(n->x);
  const bool last_axes = n->axes.back() == rank - 1;
  if (!last_axes && (n->axes.size() != 1 || n->x->type.dtype != DType::kFloat)) return false;
  if (bias) {
    emit_norm(graph, *n, scale, bias, y);
    return true;
  }
  skip_casts(*n, y);
  const Place along{n->axes.front(), n->axes.back() + 1};
  const Affine a = affine_after(y, along, !n->rms);
  if (!a.scale && !a.bias && !n->rms && spatial(n->axes, rank)) {  // one scale a channel: the norm of an instance
    const Affine c = affine_after(y, {1, 2}, true);
    const Shape& x = n->x->type.shape;
    if (c.last != y) {
      replace(graph, c.last, "GroupNormalization", 1, {n->x, placed(graph, c.scale, x, {1, 2}), placed(graph, c.bias, x, {1, 2})},
              {{"num_groups", int64_t{0}}, {"epsilon", static_cast<float>(n->epsilon)}});
      return true;
    }
  }
  emit_norm(graph, *n, a.scale, a.bias, a.last);
  return true;
}

// ---- Norms of vectors

// (x, axes, |x|^2 or |x|), where v is the length of x.
struct Length {
  Value* x = nullptr;
  Axes axes;
};
std::optional<Length> squared_length_of(const Value* v) {
  if (Node* n = made_by(v, "ReduceSumSquare"))
    if (auto axes = axes_of(n)) return Length{n->inputs[0], *axes};
  if (Node* n = made_by(v, "ReduceSum"))
    if (auto axes = axes_of(n))
      if (Value* x = square_of(n->inputs[0])) {
        if (const Node* magnitude = made_by(x, "Abs")) x = magnitude->inputs[0];
        return Length{x, *axes};
      }
  return std::nullopt;
}
std::optional<Length> length_of(const Value* v) {
  if (Node* n = made_by(v, "ReduceL2"))
    if (auto axes = axes_of(n)) return Length{n->inputs[0], *axes};
  return squared_length_of(sqrt_of(v));
}

// max(a, e) with e > 0: Clip without an upper bound, or Max.
std::optional<std::pair<Value*, double>> at_least(const Value* v) {
  if (const Node* clip = made_by(v, "Clip")) {
    const auto low = clip->opset < 11 ? std::optional<double>(clip->attr_float("min", -INFINITY)) : match::scalar(clip->input(1));
    const auto high = clip->opset < 11 ? std::optional<double>(clip->attr_float("max", INFINITY))
                      : clip->input(2) ? match::scalar(clip->input(2)) : std::optional<double>(INFINITY);
    if (low && high && *low >= 0 && *high >= 3.4e38) return std::pair{clip->inputs[0], *low};
  }
  if (const Node* max = made_by(v, "Max"))
    if (const auto t = match::with_scalar(max); t && t->second >= 0 && match::rank(t->first) == match::rank(v)) return t;
  return std::nullopt;
}

bool fuse_l2_norm(Graph& graph, Node* node) {
  Value *x = nullptr, *d = nullptr;  // y = x / d
  std::optional<Length> length;
  const char* mode = "max";
  double epsilon = 0;
  const auto inside = [&](Value* t) {  // d = sqrt(t)
    const auto [sum, e] = without_epsilon(t);
    length = squared_length_of(sum);
    if (length && e > 0) {
      mode = "inside";
      epsilon = e;
    }
  };
  if (node->is("Mul")) {
    for (int i : {0, 1})
      if (Value* t = rsqrt_of(node->inputs[i]); t && !length) {
        x = node->inputs[1 - i];
        inside(t);
      }
  } else if (node->is("Div")) {
    x = node->inputs[0];
    d = node->inputs[1];
    if (const Node* expand = made_by(d, "Expand"); expand && match::same_shape(x, d)) d = expand->inputs[0];
    if (const auto t = at_least(d)) {
      length = length_of(t->first);
      epsilon = t->second;
    } else if (const auto [a, e] = without_epsilon(d); e > 0 && length_of(a)) {
      length = length_of(a);
      mode = "add";
      epsilon = e;
    } else if (Value* t = sqrt_of(d)) {
      inside(t);
    } else {
      length = length_of(d);
    }
  }
  if (!length || length->x != x || length->axes.size() != 1 || !supported(x) || !match::same_shape(x, node->outputs[0])) return false;
  replace(graph, node->outputs[0], "L2Normalization", 1, {x},
          {{"axis", static_cast<int64_t>(length->axes[0])}, {"epsilon", static_cast<float>(epsilon)}, {"mode", std::string(mode)}});
  return true;
}

// ---- Groups

// A constant per group as one per channel; null stays null, and so does what changes nothing.
Value* per_channel(Graph& graph, const Value* v, int64_t channels, double nothing) {
  if (!v) return nullptr;
  const std::vector<double> values = v->constant.doubles();
  if (std::all_of(values.begin(), values.end(), [&](double d) { return d == nothing; })) return nullptr;
  const int64_t each = channels / static_cast<int64_t>(values.size());
  Tensor t(DType::kFloat, {channels});
  for (int64_t c = 0; c < channels; ++c) t.as<float>()[c] = static_cast<float>(values[static_cast<size_t>(c / each)]);
  Value* made = graph.new_constant(std::move(t), "norm");
  return made;
}

bool has_ones(const Value* v, double number) {
  if (!v) return true;
  if (!v->is_constant() || v->type.dtype != DType::kFloat) return false;
  const auto values = v->constant.doubles();
  return std::all_of(values.begin(), values.end(), [&](double d) { return d == number; });
}

// Reshape [N,C,...] -> [N,G,...], a norm of each group, Reshape back. With scale and bias of its own the norm must do nothing
// more, unless nothing per channel follows.
bool fuse_group_norm(Graph& graph, Node* node) {
  const bool instance = node->is("InstanceNormalization"), layer = node->is("LayerNormalization", kTiercelDomain);
  if (!instance && !layer) return false;
  const Node *to = made_by(node->inputs[0], "Reshape"), *back = match::only_reader(node->outputs[0], "Reshape");
  if (!to || !back) return false;
  Value *x = to->inputs[0], *y = back->outputs[0];
  const Value* inner = node->inputs[0];
  if (match::rank(x) < 2 || match::rank(inner) < 3 || !match::same_shape(x, y) || !supported(x)) return false;
  const Dim channels = x->type.shape[1], groups = inner->type.shape[1];
  if (x->type.shape[0] != inner->type.shape[0] || is_symbol(channels) || is_symbol(groups) || groups <= 0 || channels % groups) return false;
  if (layer) {
    const int rank = match::rank(inner), axis = normalize_axis(node->attr_int("axis", -1), rank);
    const int64_t axes = node->attr_int("num_axes", 0);
    if (axis != 2 || (axes && axes != rank - 2) || node->input(1) || node->input(2)) return false;
  }
  Value *scale = nullptr, *bias = nullptr, *last = y;
  const Affine a = affine_after(y, {1, 2}, true);
  if (instance && !(has_ones(node->input(1), 1) && has_ones(node->input(2), 0))) {
    for (int i : {1, 2})
      if (!node->input(i) || !node->inputs[i]->is_constant() || node->inputs[i]->type.dtype != DType::kFloat || x->type.dtype != DType::kFloat)
        return false;
    scale = per_channel(graph, node->input(1), channels, 1);
    bias = per_channel(graph, node->input(2), channels, 0);
  } else {
    scale = placed(graph, a.scale, x->type.shape, {1, 2});
    bias = placed(graph, a.bias, x->type.shape, {1, 2});
    last = a.last;
  }
  replace(graph, last, "GroupNormalization", 1, {x, scale, bias},
          {{"num_groups", static_cast<int64_t>(groups)}, {"epsilon", node->attr_float("epsilon", 1e-5f)}});
  return true;
}

}  // namespace

void fuse_norm(Graph& graph) {
  const auto each = [&](bool (*f)(Graph&, Node*)) {
    for (auto it = graph.nodes().begin(); it != graph.nodes().end();) {
      Node* node = (it++)->get();
      if (!node->outputs.empty() && node->outputs[0]) f(graph, node);
    }
  };
  each(fuse_layer_norm);
  each(fuse_l2_norm);
  graph.erase_dead();
  each(fuse_group_norm);
}

}  // namespace tiercel

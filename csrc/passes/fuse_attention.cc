#include "passes/fuse_attention.h"

#include <cmath>

#include "ops/registry.h"
#include "passes/match.h"

namespace tiercel {
namespace {

using match::made_by;

bool has_perm(const Node* transpose, std::initializer_list<int64_t> perm) {
  return transpose && transpose->attr_ints("perm") == std::vector<int64_t>(perm);
}

// Walks through multiplications and divisions by a number.
Value* peel_scale(Value* v, double& scale) {
  for (;;) {
    if (Node* mul = made_by(v, "Mul")) {
      if (const auto m = match::with_scalar(mul); m && match::rank(m->first) == match::rank(v)) {
        scale *= m->second;
        v = m->first;
        continue;
      }
    }
    if (Node* div = made_by(v, "Div")) {
      if (const auto d = match::scalar(div->inputs[1]); d && *d != 0 && match::rank(div->inputs[0]) == match::rank(v)) {
        scale /= *d;
        v = div->inputs[0];
        continue;
      }
    }
    return v;
  }
}

struct Operand {
  Value* value = nullptr;  // [B,H,S,D], or [B,S,H,D] when `inside`
  bool inside = false;
};

// The tensor before its heads were moved in front of the rows.
Operand before_split(Value* v) {
  if (Node* t = made_by(v, "Transpose"); has_perm(t, {0, 2, 1, 3})) return {t->inputs[0], true};
  return {v, false};
}

// K out of K^T: a Transpose of the last two axes, alone, together with the split of heads, or between two Reshapes that
// merge and part the leading axes.
Operand transposed(Value* v, double& scale) {
  v = peel_scale(v, scale);
  if (Node* t = made_by(v, "Transpose")) {
    if (has_perm(t, {0, 2, 3, 1})) return {peel_scale(t->inputs[0], scale), true};
    if (has_perm(t, {0, 1, 3, 2})) return before_split(peel_scale(t->inputs[0], scale));
    if (has_perm(t, {0, 2, 1}) && match::rank(v) == 3) return {peel_scale(t->inputs[0], scale), false};
  }
  if (Node* part = made_by(v, "Reshape")) {
    Node* t = made_by(part->inputs[0], "Transpose");
    Node* merge = t && has_perm(t, {0, 2, 1}) ? made_by(t->inputs[0], "Reshape") : nullptr;
    if (merge && merge->inputs[0]->type.static_shape() && v->type.static_shape() && match::rank(v) == 4) {
      const Shape &from = merge->inputs[0]->type.shape, &to = v->type.shape;
      if (from.rank() == 4 && from[0] == to[0] && from[1] == to[1] && from[2] == to[3] && from[3] == to[2] &&
          merge->output()->type.shape == Shape{from[0] * from[1], from[2], from[3]})
        return before_split(peel_scale(merge->inputs[0], scale));
    }
  }
  return {};
}

struct Scores {
  Value *q, *k_transposed, *mask = nullptr, *condition = nullptr;
  double masked_value = 0;  // with `condition`
  double scale = 1;
};

// softmax's input as scale * MatMul(q, kt) + mask.
std::optional<Scores> match_scores(Value* x) {
  Scores s;
  if (Node* where = match::only_made_by(x, "Where")) {
    const auto low = match::scalar(where->inputs[2]);
    if (!low || !(*low <= -1e30)) return std::nullopt;  // a milder value would leave the masked scores a say
    s.condition = where->inputs[0];
    s.masked_value = *low;
    x = where->inputs[1];
  } else if (Node* add = match::only_made_by(x, "Add")) {
    for (const int i : {0, 1}) {
      double scale = 1;
      if (!match::only_made_by(peel_scale(add->inputs[i], scale), "MatMul")) continue;
      s.mask = add->inputs[1 - i];
      x = add->inputs[i];
      break;
    }
    if (!s.mask) return std::nullopt;
  }
  x = peel_scale(x, s.scale);
  Node* product = match::only_made_by(x, "MatMul");
  if (!product) return std::nullopt;
  s.q = product->inputs[0];
  s.k_transposed = product->inputs[1];
  return s;
}

Dim extent(const Operand& o, int axis) {  // of [B,H,S,D]
  const Shape& s = o.value->type.shape;
  return o.inside && (axis == 1 || axis == 2) ? s[3 - axis] : s[axis];
}

// A mask must not enlarge the scores. Unknown extents are taken to fit: preparation checks them.
bool mask_fits(const Value* mask, const Operand& q, const Operand& k) {
  if (!match::is_f32(mask) || !mask->type.ranked || mask->type.shape.rank() > 4) return false;
  const Dim scores[4] = {extent(q, 0), extent(q, 1), extent(q, 2), extent(k, 2)};
  for (int i = mask->type.shape.rank() - 1, axis = 3; i >= 0; --i, --axis) {
    const Dim d = mask->type.shape[i];
    if (!is_symbol(d) && d != 1 && !is_symbol(scores[axis]) && d != scores[axis]) return false;
    if (is_symbol(d) && scores[axis] == 1) return false;
  }
  return true;
}

class Rewriter {
 public:
  explicit Rewriter(Graph& graph) : graph_(graph) {}

  void run(Node* softmax) {
    const int64_t axis = softmax->attr_int("axis", softmax->opset < 13 ? 1 : -1);
    Value* x = softmax->inputs[0];
    const int rank = match::rank(x);
    if (!match::is_f32(x) || (rank != 3 && rank != 4) || (axis != -1 && axis != rank - 1)) return;
    const auto scores = match_scores(x);
    if (!scores) return;
    Value* p = softmax->outputs[0];
    bool nan_to_zero = false;
    if (Node* where = skip_nan(p)) {
      p = where->outputs[0];
      nan_to_zero = true;
    }
    Node* product = match::only_reader(p, "MatMul");
    if (!product || product->inputs[0] != p || product->inputs[1] == p) return;
    double scale = scores->scale;
    Operand q{peel_scale(scores->q, scale)}, k = transposed(scores->k_transposed, scale), v{product->inputs[1]};
    if (!k.value || match::rank(q.value) != rank || match::rank(k.value) != rank || match::rank(v.value) != rank) return;
    if (!match::is_f32(q.value) || !match::is_f32(k.value) || !match::is_f32(v.value) || !std::isfinite(scale)) return;
    if (rank == 3 && (scores->mask || scores->condition)) return;
    before_ = product;
    if (rank == 3) {
      if (q.value->type.shape[0] != k.value->type.shape[0] || k.value->type.shape[0] != v.value->type.shape[0]) return;
      for (Operand* o : {&q, &k, &v}) o->value = with_head_axis(o->value);
    } else {
      q = before_split(q.value);
      q.value = peel_scale(q.value, scale);
      v = before_split(v.value);
      if (!same_heads(q, k) || !same_heads(k, v) || extent(k, 2) != extent(v, 2)) return;
    }
    if (scores->mask && !mask_fits(scores->mask, q, k)) return;
    Value* mask = scores->mask;
    if (scores->condition) {
      if (!scores->condition->type.ranked || scores->condition->type.shape.rank() > 4) return;
      mask = mask_of(scores->condition, scores->masked_value);
      if (!mask_fits(mask, q, k)) return;
    }
    emit(product, q, k, v, mask, scale, nan_to_zero, rank);
  }

 private:
  // Where(IsNaN(p), 0, p), the only reader of p beside the IsNaN.
  static Node* skip_nan(const Value* p) {
    if (p->uses.size() != 2 || p->graph_output_uses) return nullptr;
    for (const Use& u : p->uses) {
      if (!u.node->is("Where") || u.index != 2 || !match::is_scalar(u.node->inputs[1], 0, 0)) continue;
      const Node* nan = match::only_made_by(u.node->inputs[0], "IsNaN");
      if (nan && nan->inputs[0] == p) return u.node;
    }
    return nullptr;
  }

  static bool same_heads(const Operand& a, const Operand& b) { return extent(a, 0) == extent(b, 0) && extent(a, 1) == extent(b, 1); }

  // [B,S,D] as [B,1,S,D]
  Value* with_head_axis(Value* v) {
    Shape s = v->type.shape;
    s.insert(1, 1);
    Value* axes = graph_.add_constant("", Tensor::of<int64_t>({1}, {1}));
    axes->name = "tiercel_axes_" + std::to_string(axes->id);
    return graph_.emit("Unsqueeze", "", 13, {v, axes}, Type::tensor(DType::kFloat, s), before_);
  }

  Value* mask_of(Value* condition, double low) {
    auto number = [&](float x) {
      Value* c = graph_.add_constant("", Tensor::of<float>({}, {x}));
      c->name = "tiercel_mask_" + std::to_string(c->id);
      return c;
    };
    return graph_.emit("Where", "", 16, {condition, number(0), number(static_cast<float>(low))},
                       Type::tensor(DType::kFloat, condition->type.shape), before_);
  }

  void emit(Node* product, const Operand& q, const Operand& k, const Operand& v, Value* mask, double scale, bool nan_to_zero, int rank) {
    Value* y = product->outputs[0];
    Node* merge = rank == 4 ? match::only_reader(y, "Transpose") : nullptr;
    if (!has_perm(merge, {0, 2, 1, 3})) merge = nullptr;
    if (merge) y = merge->outputs[0];
    Type type = y->type;
    if (rank == 3) type.shape.insert(1, 1);
    std::vector<Value*> inputs{q.value, k.value, v.value};
    if (mask) inputs.push_back(mask);
    Value* out = graph_.emit("Attention", kTiercelDomain, 1, inputs, type, before_);
    Node* n = out->producer;
    n->name = product->name;
    n->set("scale", static_cast<float>(scale));
    auto layout = [&](const char* name, bool inside) { n->set(name, std::string(inside ? "BSHD" : "BHSD")); };
    layout("q_layout", q.inside);
    layout("k_layout", k.inside);
    layout("v_layout", v.inside);
    layout("y_layout", merge != nullptr);
    if (nan_to_zero) n->set("nan_to_zero", int64_t{1});
    if (rank == 3) {
      Value* axes = graph_.add_constant("", Tensor::of<int64_t>({1}, {1}));
      axes->name = "tiercel_axes_" + std::to_string(axes->id);
      out = graph_.emit("Squeeze", "", 13, {out, axes}, y->type, before_);
    }
    graph_.replace_uses(y, out);
  }

  Graph& graph_;
  Node* before_ = nullptr;
};

}  // namespace

void fuse_attention(Graph& graph) {
  std::vector<Node*> found;
  for (const auto& n : graph.nodes()) if (n->is("Softmax")) found.push_back(n.get());
  Rewriter rewriter(graph);
  for (Node* n : found) rewriter.run(n);
  graph.erase_dead();
}

}  // namespace tiercel

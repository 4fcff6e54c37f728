#include "passes/attention_operands.h"

namespace tiercel::attention_match {

using match::made_by;

const char* name_of(Order order) { return order == Order::kHeads ? "BHSD" : order == Order::kRows ? "BSHD" : "SBHD"; }

Order order_of(const Node* attention, const char* attribute) {
  const std::string name = attention->attr_string(attribute, "BHSD");
  return name == "SBHD" ? Order::kRowsOutside : name == "BSHD" ? Order::kRows : Order::kHeads;
}

int Operand::axis(int logical) const {
  constexpr int kAxes[3][4] = {{0, 1, 2, 3}, {0, 2, 1, 3}, {1, 2, 0, 3}};
  return kAxes[static_cast<int>(order)][logical];
}

bool has_perm(const Node* transpose, std::initializer_list<int64_t> perm) {
  return transpose && transpose->is("Transpose") && transpose->attr_ints("perm") == std::vector<int64_t>(perm);
}

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

namespace {

// x [B,G,T,D], where `grown` is x with a new axis behind the heads, [B,G,r,T,D]. In order kRows heads and rows stand the other way
// round.
Value* before_growth(const Value* grown, Order order) {
  const Node* grow = grown->producer;
  const bool tile = grow && grow->is("Tile") && grow->opset >= 6;
  if (!grow || !(tile || grow->is("Expand")) || order == Order::kRowsOutside) return nullptr;
  const Node* open = grow->inputs[0]->producer;
  if (!open || !(open->is("Unsqueeze") || open->is("Reshape"))) return nullptr;
  Value* x = open->inputs[0];
  if (match::rank(x) != 4 || match::rank(open->output()) != 5 || match::rank(grown) != 5) return nullptr;
  const Shape &from = x->type.shape, &one = open->output()->type.shape, &many = grown->type.shape;
  const int at = order == Order::kRows ? 3 : 2;
  for (int i = 0; i < 5; ++i) {
    const int k = i < at ? i : i - 1;
    if (i == at ? one[i] != 1 || is_symbol(many[i]) : one[i] != from[k] || many[i] != from[k]) return nullptr;
  }
  return x;
}

// x [B,G,T,D], where v [B,G r,T,D] repeats each of its heads r times: grown, and merged.
Value* before_repeat(const Value* v, Order order) {
  const Node* merge = made_by(v, "Reshape");
  if (!merge || match::rank(v) != 4 || match::rank(merge->inputs[0]) != 5) return nullptr;
  Value* x = before_growth(merge->inputs[0], order);
  if (!x) return nullptr;
  const Shape &from = x->type.shape, &many = merge->inputs[0]->type.shape, &to = v->type.shape;
  const int heads = order == Order::kRows ? 2 : 1;
  for (int i = 0; i < 4; ++i)
    if (i == heads ? is_symbol(from[i]) || to[i] != from[i] * many[heads + 1] : to[i] != from[i]) return nullptr;
  return x;
}

// A Reshape [BH,S,D] -> [B,H,S,D] with H known.
bool parts_heads(const Node* part) {
  if (!part || match::rank(part->inputs[0]) != 3 || match::rank(part->output()) != 4) return false;
  const Shape &from = part->inputs[0]->type.shape, &to = part->output()->type.shape;
  return to[1] > 0 && !is_symbol(to[1]) && to[2] == from[1] && to[3] == from[2];
}

// One step towards the tensor that a projection wrote.
bool unwrap_once(Operand& o) {
  if (o.order != Order::kHeads) return false;
  Node* n = o.value->producer;
  if (has_perm(n, {0, 2, 1, 3})) return o = {n->inputs[0], Order::kRows}, true;
  if (has_perm(n, {1, 2, 0, 3})) return o = {n->inputs[0], Order::kRowsOutside}, true;
  if (has_perm(n, {1, 0, 2})) return o = {n->inputs[0], Order::kRowsOutside, o.parts}, true;
  if (o.parts) {
    Value* four = before_merge(o.value);
    if (!four || four->type.shape[1] != o.parts) return false;
    return o = {four, Order::kHeads}, true;
  }
  if (Node* part = made_by(o.value, "Reshape"); parts_heads(part)) {
    Operand three{part->inputs[0], Order::kHeads, o.value->type.shape[1]};
    if (!unwrap_once(three)) return false;
    return o = three, true;
  }
  return false;
}

}  // namespace

Operand unwrap(Operand o, bool repeats, double& scale) {
  for (;;) {
    o.value = peel_scale(o.value, scale);
    if (repeats && o.rank() == 4)
      if (Value* x = before_repeat(o.value, o.order)) {
        o.value = x;
        repeats = false;
        continue;
      }
    if (!unwrap_once(o)) return o;
  }
}

Operand untransposed(Value* v, double& scale) {
  v = peel_scale(v, scale);
  if (Node* t = made_by(v, "Transpose")) {
    if (has_perm(t, {0, 2, 3, 1})) return {t->inputs[0], Order::kRows};
    if (has_perm(t, {1, 2, 3, 0})) return {t->inputs[0], Order::kRowsOutside};
    if (has_perm(t, {1, 2, 0})) return {t->inputs[0], Order::kRowsOutside};
    if (has_perm(t, {0, 1, 3, 2}) || has_perm(t, {0, 2, 1})) return {t->inputs[0], Order::kHeads};
  }
  Node* part = made_by(v, "Reshape");
  if (!part || match::rank(v) != 4 || match::rank(part->inputs[0]) != 3) return {};
  const Shape &to = v->type.shape, &three = part->inputs[0]->type.shape;
  if (is_symbol(to[1]) || to[1] <= 0 || to[2] != three[1] || to[3] != three[2]) return {};
  Node* t = part->inputs[0]->producer;
  if (has_perm(t, {1, 2, 0})) return {t->inputs[0], Order::kRowsOutside, to[1]};
  if (!has_perm(t, {0, 2, 1})) return {};
  Value* merged = t->inputs[0];
  if (const Node* merge = made_by(merged, "Reshape"); merge && match::rank(merge->inputs[0]) == 5) {
    Value* x = before_growth(merge->inputs[0], Order::kHeads);
    const Shape& many = merge->inputs[0]->type.shape;
    if (x && !is_symbol(many[1]) && many[1] * many[2] == to[1] && many[3] == to[3] && many[4] == to[2]) return {x, Order::kHeads};
  }
  return {merged, Order::kHeads, to[1]};
}

Value* before_merge(const Value* v) {
  const Node* merge = made_by(v, "Reshape");
  if (!merge || match::rank(merge->inputs[0]) != 4 || match::rank(v) != 3) return nullptr;
  const Shape &from = merge->inputs[0]->type.shape, &to = v->type.shape;
  return !is_symbol(from[1]) && from[1] > 0 && from[2] == to[1] && from[3] == to[2] ? merge->inputs[0] : nullptr;
}

}  // namespace tiercel::attention_match

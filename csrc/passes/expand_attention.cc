#include <cmath>

#include "passes/emitter.h"
#include "passes/expand.h"
#include "passes/match.h"

namespace tiercel {
namespace {

class Expansion : Emitter {
 public:
  using Emitter::Emitter;

  bool run() {
    for (int i = 0; i < 3; ++i)
      if (!node->input(i) || match::rank(node->inputs[i]) != match::rank(node->inputs[0])) return false;
    const int rank = match::rank(node->inputs[0]);
    if ((rank != 3 && rank != 4)) return false;
    const Shape &qs = node->inputs[0]->type.shape, &ks = node->inputs[1]->type.shape, &vs = node->inputs[2]->type.shape;
    const Dim h = rank == 4 ? qs[1] : node->attr_int("q_num_heads", 0), g = rank == 4 ? ks[1] : node->attr_int("kv_num_heads", 0);
    if (h != g && (is_symbol(h) || is_symbol(g) || g <= 0 || h % g)) return false;
    if (rank == 3 && (h <= 0 || g <= 0)) return false;
    const auto depth = [&](const Shape& s, Dim heads) { return rank == 4 || is_symbol(s[2]) ? s[rank - 1] : s[2] / heads; };
    const Dim d = depth(qs, h), kd = depth(ks, g), vd = depth(vs, g);
    if (is_symbol(d) || (h != g && (is_symbol(kd) || is_symbol(vd))) || (rank == 3 && (is_symbol(kd) || is_symbol(vd)))) return false;
    if (d <= 0 || kd <= 0 || vd <= 0) return false;
    if (node->input(3) && match::rank(node->inputs[3]) < 1) return false;

    Value *q = heads(node->inputs[0], h, d), *k = heads(node->inputs[1], g, kd), *v = heads(node->inputs[2], g, vd);
    Value* const past = node->input(4);
    if (past) k = op("Concat", {past, k}, dtype, {{"axis", int64_t{2}}});
    if (node->input(5)) v = op("Concat", {node->inputs[5], v}, dtype, {{"axis", int64_t{2}}});
    Value *present_k = k, *present_v = v;
    if (h != g) {
      k = repeated(k, h, h / g, kd);
      v = repeated(v, h, h / g, vd);
    }
    const DType t = dtype;
    if (t == DType::kFloat16 || t == DType::kBFloat16) {  // computed in float, rounded once
      dtype = DType::kFloat;
      for (Value** x : {&q, &k, &v}) *x = cast(*x, dtype);
    }
    const float given = node->attr_float("scale", 0);
    const double scale = given != 0 ? static_cast<double>(given) : 1 / std::sqrt(static_cast<double>(d));
    const int64_t mode = node->attr_int("qk_matmul_output_mode", 0);
    Value* s = op("Mul", {op("MatMul", {q, transpose(k, {0, 1, 3, 2})}), number(scale)});
    Value* seen = s;
    if (const float cap = node->attr_float("softcap", 0); cap > 0) {
      s = op("Mul", {op("Tanh", {op("Div", {s, number(cap)})}), number(cap)});
      if (mode == 1) seen = s;
    }
    Value* bias = nullptr;
    const auto masked = [&](Value* by) { bias = bias ? op("Add", {bias, by}) : by; };
    if (Value* mask = node->input(3)) masked(additive(padded(mask, k, ks[rank - 2])));
    const int64_t left = node->attr_int("left_window_size", -1), right = node->attr_int("right_window_size", -1);
    if (node->attr_int("is_causal", 0)) masked(seen_from(q, k, past, -1, 0));
    if (left >= 0 || right >= 0) masked(seen_from(q, k, past, left, right));
    if (Value* lengths = node->input(6))
      masked(additive(op("Less", {range(ints({0}, true), extent(k, 2)), op("Unsqueeze", {lengths, ints({1, 2, 3})}, DType::kInt64)}, DType::kBool)));
    if (bias) s = op("Add", {s, bias});
    if (mode == 2) seen = s;
    Value* p = op("Softmax", {s}, dtype, {{"axis", int64_t{-1}}});
    if (bias) {  // rows that see nothing
      Value* most = op("ReduceMax", {bias, ints({-1})}, dtype, {{"keepdims", int64_t{1}}});
      p = op("Where", {op("Equal", {most, number(-INFINITY)}, DType::kBool), number(0), p});
    }
    if (mode == 3) seen = p;
    Value* y = op("MatMul", {p, v});
    if (rank == 3) y = op("Reshape", {transpose(y, {0, 2, 1, 3}), ints({0, 0, h * vd})});
    if (t != dtype) y = cast(y, t);
    if (t != dtype && node->output(3)) seen = cast(seen, t);
    replace(0, y);
    // Outputs may be what they are made of: those have a node of their own.
    replace(1, past ? present_k : op("Identity", {present_k}, t));
    replace(2, node->input(5) ? present_v : op("Identity", {present_v}, t));
    replace(3, seen);
    return true;
  }

 private:
  // [B,S,H D] as [B,H,S,D]
  Value* heads(Value* v, Dim n, Dim depth) {
    return match::rank(v) == 4 ? v : transpose(op("Reshape", {v, ints({0, 0, n, depth})}), {0, 2, 1, 3});
  }
  Value* repeated(Value* v, Dim n, Dim times, Dim depth) {
    Value* grown = op("Tile", {op("Unsqueeze", {v, ints({2})}), ints({1, 1, times, 1, 1})});
    return op("Reshape", {grown, ints({0, n, -1, depth})});
  }
  Value* additive(Value* mask) {
    if (mask->type.dtype == DType::kBool) return op("Where", {mask, number(0), number(-INFINITY)});
    return mask->type.dtype == dtype ? mask : cast(mask, dtype);
  }
  // A mask of fewer keys than there are hides the rest, also where it has one alone.
  Value* padded(Value* mask, Value* k, Dim now) {
    const int rank = match::rank(mask);
    const Value* past = node->input(4);
    const Dim keys = mask->type.shape.back(), before = !past ? 0 : match::rank(past) == 4 ? past->type.shape[2] : graph.symbols().fresh();
    const Dim all = graph.symbols().plus(now, before);
    if (keys == all) return mask;
    std::vector<int64_t> pads(static_cast<size_t>(2 * rank), 0);
    Value* amounts = nullptr;
    if (is_symbol(keys) || is_symbol(all)) {
      Value* missing = op("Max", {op("Sub", {extent(k, 2), extent(mask, rank - 1)}, DType::kInt64), ints({0}, true)}, DType::kInt64);
      pads.pop_back();
      amounts = op("Concat", {ints(pads), op("Unsqueeze", {missing, ints({0})}, DType::kInt64)}, DType::kInt64, {{"axis", int64_t{0}}});
    } else {
      if (keys > all) return mask;
      pads.back() = all - keys;
      amounts = ints(pads);
    }
    return op("Pad", {additive(mask), amounts, number(-INFINITY)});
  }
  // Row i stands at p = i + the past, of all batches or of each, and sees keys p - left to p + right; -1: to the end.
  Value* seen_from(Value* q, Value* k, Value* past, int64_t left, int64_t right) {
    Value *zero = ints({0}, true), *keys = range(zero, extent(k, 2));
    Value* rows = op("Unsqueeze", {range(zero, extent(q, 2)), ints({1})}, DType::kInt64);
    if (past) rows = op("Add", {rows, extent(past, 2)}, DType::kInt64);
    else if (Value* lengths = node->input(6))
      rows = op("Add", {rows, op("Unsqueeze", {op("Sub", {lengths, extent(q, 2)}, DType::kInt64), ints({1, 2, 3})}, DType::kInt64)}, DType::kInt64);
    Value *after = nullptr, *before = nullptr;
    if (left >= 0) after = op("GreaterOrEqual", {keys, op("Sub", {rows, ints({left}, true)}, DType::kInt64)}, DType::kBool);
    if (right >= 0) before = op("LessOrEqual", {keys, right ? op("Add", {rows, ints({right}, true)}, DType::kInt64) : rows}, DType::kBool);
    return additive(!after ? before : !before ? after : op("And", {after, before}, DType::kBool));
  }
};

}  // namespace

void expand_attention(Graph& graph) {
  std::vector<Node*> found;
  for (const auto& n : graph.nodes()) if (n->is("Attention") && n->input(0)) found.push_back(n.get());
  for (Node* n : found) Expansion(graph, n).run();
  graph.erase_dead();
}

}  // namespace tiercel

// com.microsoft.GroupQueryAttention as standard operators. Its row (ops/microsoft_grouped.cc) has checked attributes and extents.
#include <cmath>
#include <limits>

#include "ops/registry.h"
#include "passes/emitter.h"
#include "passes/expand.h"
#include "passes/match.h"

namespace tiercel {
namespace {

class Expansion : Emitter {
 public:
  using Emitter::Emitter;

  bool run() {
    constexpr DType kInt = DType::kInt64;
    Value *q = node->inputs[0], *k = node->input(1), *v = node->input(2);
    for (Value* x : {q, k, v})
      if (match::rank(x) != 3 || is_symbol(x->type.shape[2])) return false;
    const Dim heads = node->attr_int("num_heads", 1), groups = node->attr_int("kv_num_heads", 1), depth = q->type.shape[2] / heads;
    Value *zero = ints({0}, true), *rows = extent(q, 1);
    Value* lengths = op("Add", {op("Reshape", {cast(node->inputs[5], kInt), ints({-1})}, kInt), ints({1})}, kInt);
    Value* before = op("Unsqueeze", {op("Max", {op("Sub", {lengths, rows}, kInt), ints({0})}, kInt), ints({1})}, kInt);  // keys of the cache, [B,1]
    Value* at = op("Add", {before, range(zero, rows)}, kInt);                                                             // [B,S]
    if (node->attr_int("do_rotary", 0)) {
      Value* ids = node->input(9) ? node->inputs[9] : at;
      q = rotated(q, heads, ids);
      k = rotated(k, groups, ids);
    }
    q = parted(q, heads, depth);
    k = parted(k, groups, depth);
    v = parted(v, groups, depth);
    if (Value* past = node->input(3)) {
      Value *old = extent(past, 2), *total = op("Squeeze", {op("Reshape", {cast(node->inputs[6], kInt), ints({1})}, kInt)}, kInt);
      Value* row = range(zero, op("Max", {old, total}, kInt));
      Value* fresh = op("Add", {op("Sub", {row, before}, kInt), old}, kInt);
      Value* from = op("Where", {op("Less", {row, before}, DType::kBool), row, fresh}, kInt);
      from = op("Min", {from, op("Sub", {op("Add", {old, rows}, kInt), ints({1}, true)}, kInt)}, kInt);
      from = op("Unsqueeze", {from, ints({1, 3})}, kInt);
      from = op("Expand", {from, ints({1, groups, 1, depth})}, kInt);
      const auto joined = [&](Value* cache, Value* x) {
        return op("GatherElements", {op("Concat", {cache, x}, dtype, {{"axis", int64_t{2}}}), from}, dtype, {{"axis", int64_t{2}}});
      };
      k = joined(past, k);
      v = joined(node->inputs[4], v);
    }
    if (node->output(1)) replace(1, op("Identity", {k}));
    if (node->output(2)) replace(2, op("Identity", {v}));
    Value* const length = extent(k, 2);  // not of what repeats it, which fuse_attention makes needless
    if (groups != heads) {
      k = repeated(k, heads, heads / groups, depth);
      v = repeated(v, heads, heads / groups, depth);
    }
    const DType t = dtype;
    if (t == DType::kFloat16 || t == DType::kBFloat16) {  // computed in float, rounded once
      dtype = DType::kFloat;
      for (Value** x : {&q, &k, &v}) *x = cast(*x, dtype);
    }
    const float given = node->attr_float("scale", 0), cap = node->attr_float("softcap", 0);
    const double scale = given != 0 ? static_cast<double>(given) : 1 / std::sqrt(static_cast<double>(depth));
    Value* s = op("Mul", {op("MatMul", {q, transpose(k, {0, 1, 3, 2})}), number(scale)});
    if (cap > 0) s = op("Mul", {op("Tanh", {op("Div", {s, number(cap)})}), number(cap)});
    if (Value* bias = node->input(10)) {  // of the total length; a cache may be longer
      Value* more = op("Unsqueeze", {op("Sub", {length, extent(bias, 3)}, kInt), ints({0})}, kInt);
      bias = op("Pad", {bias, op("Concat", {ints({0, 0, 0, 0, 0, 0, 0}), more}, kInt, {{"axis", int64_t{0}}})}, t);
      s = op("Add", {s, t == dtype ? bias : cast(bias, dtype)});
    }
    Value *keys = range(zero, length), *row = op("Unsqueeze", {at, ints({1, 3})}, kInt);
    Value* seen = op("LessOrEqual", {keys, row}, DType::kBool);
    if (const int64_t window = node->attr_int("local_window_size", -1); window > 0)
      seen = op("And", {seen, op("Greater", {keys, op("Sub", {row, ints({window}, true)}, kInt)}, DType::kBool)}, DType::kBool);
    s = op("Add", {s, op("Where", {seen, number(0), number(std::numeric_limits<float>::lowest())})});
    Value* y = op("MatMul", {op("Softmax", {s}, dtype, {{"axis", int64_t{-1}}}), v});
    y = op("Reshape", {transpose(y, {0, 2, 1, 3}), ints({0, 0, heads * depth})});
    replace(0, t == dtype ? y : cast(y, t));
    return true;
  }

 private:
  Value* parted(Value* v, Dim n, Dim depth) { return transpose(op("Reshape", {v, ints({0, 0, n, depth})}), {0, 2, 1, 3}); }
  Value* repeated(Value* v, Dim n, Dim times, Dim depth) {
    return op("Reshape", {op("Tile", {op("Unsqueeze", {v, ints({2})}), ints({1, 1, times, 1, 1})}), ints({0, n, -1, depth})});
  }
  Value* rotated(Value* x, Dim heads, Value* at) {
    Value* y = graph.emit("RotaryEmbedding", "", 23, {x, node->inputs[7], node->inputs[8], at}, Type::tensor(dtype), node);
    y->producer->name = node->name;
    y->producer->set("num_heads", heads);
    y->producer->set("interleaved", node->attr_int("rotary_interleaved", 0));
    const Type& cache = node->inputs[7]->type;  // as wide as half of what turns
    if (cache.ranked && cache.shape.rank() == 2 && !is_symbol(cache.shape[1])) y->producer->set("rotary_embedding_dim", 2 * cache.shape[1]);
    return y;
  }
};

}  // namespace

void expand_microsoft_grouped(Graph& graph) {
  std::vector<Node*> found;
  for (const auto& n : graph.nodes())
    if (n->is("GroupQueryAttention", kMicrosoftDomain) && n->input(0)) found.push_back(n.get());
  for (Node* n : found) Expansion(graph, n).run();
  graph.erase_dead();
}

}  // namespace tiercel

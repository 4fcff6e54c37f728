// com.microsoft's attention as products, masks and softmax. Rows of the operators (ops/microsoft_attention.cc) have checked attributes and
// extents as far as they are known.
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

  bool multi_head() {
    Value *q = node->inputs[0], *k = node->input(1), *v = node->input(2), *bias = node->input(3);
    const bool parted = match::rank(k) == 4;
    if (match::rank(q) != 3 || !k || !v || match::rank(k) < 3 || match::rank(v) != match::rank(k) || !mask_is_ranked(4)) return false;
    const Dim hidden[3] = {q->type.shape[2], k->type.shape.back(), v->type.shape.back()};
    for (Dim d : hidden) if (is_symbol(d)) return false;
    if (bias) {
      const auto parts = split(bias, {hidden[0], hidden[1], hidden[2]}, 0);
      q = op("Add", {q, parts[0]});
      k = op("Add", {k, parts[1]});
      v = op("Add", {v, parts[2]});
    }
    q = heads(q, hidden[0]);
    if (!parted) {
      k = heads(k, hidden[1]);
      v = heads(v, hidden[2]);
    }
    Value* const past = node->input(6);
    if (past) {
      k = op("Concat", {past, k}, dtype, {{"axis", int64_t{2}}});
      v = op("Concat", {node->inputs[7], v}, dtype, {{"axis", int64_t{2}}});
    }
    replace(0, attend(q, k, v, past ? extent(past, 2) : nullptr, hidden[0] / count, parted ? hidden[2] * count : hidden[2], 4, 5));
    if (node->output(1)) replace(1, op("Identity", {k}));
    if (node->output(2)) replace(2, op("Identity", {v}));
    return true;
  }

  bool attention() {
    Value *x = node->inputs[0], *w = node->inputs[1], *past = node->input(4);
    if (match::rank(x) != 3 || match::rank(w) != 2 || !mask_is_ranked(3)) return false;
    std::vector<int64_t> sizes = node->attr_ints("qkv_hidden_sizes");
    const Dim columns = w->type.shape[1];
    if (sizes.empty() && is_symbol(columns)) return false;
    if (sizes.empty()) sizes.assign(3, columns / 3);
    Value* y = op("MatMul", {x, w});
    if (node->input(2)) y = op("Add", {y, node->inputs[2]});
    const auto parts = split(y, sizes, 2);
    Value *q = heads(parts[0], sizes[0]), *k = heads(parts[1], sizes[1]), *v = heads(parts[2], sizes[2]);
    Value* before = nullptr;
    if (past) {
      k = op("Concat", {op("Gather", {past, ints({0}, true)}), k}, dtype, {{"axis", int64_t{2}}});
      v = op("Concat", {op("Gather", {past, ints({1}, true)}), v}, dtype, {{"axis", int64_t{2}}});
      before = extent(past, 3);
    }
    replace(0, attend(q, k, v, before, sizes[0] / count, sizes[2], 3, 5));
    if (node->output(1)) replace(1, op("Concat", {op("Unsqueeze", {k, ints({0})}), op("Unsqueeze", {v, ints({0})})}, dtype, {{"axis", int64_t{0}}}));
    return true;
  }

 private:
  bool mask_is_ranked(int i) const { return !node->input(i) || match::rank(node->input(i)) > 0; }
  std::vector<Value*> split(Value* v, std::vector<int64_t> sizes, int64_t axis) {
    std::vector<Value*> parts;
    for (size_t i = 0; i < sizes.size(); ++i) parts.push_back(graph.add_value("", Type::tensor(dtype)));
    Node* n = graph.add_node("Split", "", 18, {v, ints(std::move(sizes))}, parts, node);
    n->set("axis", axis);
    n->name = node->name;
    return parts;
  }
  // [B,S,H D] as [B,H,S,D]
  Value* heads(Value* v, Dim hidden) { return transpose(op("Reshape", {v, ints({0, 0, count, hidden / count})}), {0, 2, 1, 3}); }

  // softmax(scale Q K' + masks) V as [B,S,H D]. `before`: how many keys of a cache stand before the rows.
  Value* attend(Value* q, Value* k, Value* v, Value* before, Dim depth, Dim hidden, int mask, int bias) {
    const DType t = dtype;
    if (t == DType::kFloat16 || t == DType::kBFloat16) {  // computed in float, rounded once
      dtype = DType::kFloat;
      for (Value** x : {&q, &k, &v}) *x = cast(*x, dtype);
    }
    const float given = node->attr_float("scale", 0);
    const double scale = given != 0 ? static_cast<double>(given) : 1 / std::sqrt(static_cast<double>(depth));
    Value* s = op("Mul", {op("MatMul", {q, transpose(k, {0, 1, 3, 2})}), number(scale)});
    if (Value* b = node->input(bias)) s = op("Add", {s, t == dtype ? b : cast(b, dtype)});
    if (node->input(mask)) s = op("Add", {s, additive(padding(mask, q, k), node->attr_float("mask_filter_value", -10000))});
    if (node->attr_int("unidirectional", 0)) {
      Value *zero = ints({0}, true), *rows = op("Unsqueeze", {range(zero, extent(q, 2)), ints({1})}, DType::kInt64);
      if (before) rows = op("Add", {rows, before}, DType::kInt64);
      s = op("Add", {s, additive(op("LessOrEqual", {range(zero, extent(k, 2)), rows}, DType::kBool), std::numeric_limits<float>::lowest())});
    }
    Value* y = op("MatMul", {op("Softmax", {s}, dtype, {{"axis", int64_t{-1}}}), v});
    y = op("Reshape", {transpose(y, {0, 2, 1, 3}), ints({0, 0, hidden})});
    return t == dtype ? y : cast(y, t);
  }

  Value* additive(Value* seen, double hidden) { return op("Where", {seen, number(0), number(hidden)}); }

  // Which keys are seen, as [B,1,1,T] or [B,1,S,T]. Of one axis: where keys end, [B]; then where they begin, [2 B]; or the
  // ends and two sums of lengths, [3 B + 2].
  Value* padding(int input, Value* q, Value* k) {
    Value* const m = cast(node->inputs[input], DType::kInt64);
    const int rank = match::rank(node->inputs[input]);
    if (rank > 1) return op("Unsqueeze", {op("Greater", {m, ints({0}, true)}, DType::kBool), rank == 2 ? ints({1, 2}) : ints({1})}, DType::kBool);
    const Dim n = node->inputs[input]->type.shape[0], batch = node->inputs[0]->type.shape[0];
    const bool known = !is_symbol(n) && !is_symbol(batch), ends_only = n == batch || (known && n != 2 * batch) || input == 4;
    Value *keys = range(ints({0}, true), extent(k, 2)), *size = op("Unsqueeze", {extent(q, 0), ints({0})}, DType::kInt64);
    const auto column = [&](Value* from, Value* first, Value* end) {
      return op("Unsqueeze", {op("Slice", {from, first, end, ints({0})}, DType::kInt64), ints({1, 2, 3})}, DType::kInt64);
    };
    Value* ends = n == batch ? op("Unsqueeze", {m, ints({1, 2, 3})}, DType::kInt64) : column(m, ints({0}), size);
    Value* seen = op("Less", {keys, ends}, DType::kBool);
    if (ends_only) return seen;
    Value* twice = op("Mul", {size, ints({2})}, DType::kInt64);  // zeros stand where there are no beginnings
    Value* padded = op("Concat", {m, op("Mul", {m, ints({0})}, DType::kInt64)}, DType::kInt64, {{"axis", int64_t{0}}});
    return op("And", {seen, op("GreaterOrEqual", {keys, column(padded, size, twice)}, DType::kBool)}, DType::kBool);
  }

  const Dim count = node->attr_int("num_heads", 1);
};

}  // namespace

void expand_microsoft_attention(Graph& graph) {
  std::vector<Node*> found;
  for (const auto& n : graph.nodes())
    if (n->domain == kMicrosoftDomain && n->input(0)) found.push_back(n.get());
  for (Node* n : found) {
    if (n->op_type == "MultiHeadAttention") Expansion(graph, n).multi_head();
    else if (n->op_type == "Attention") Expansion(graph, n).attention();
  }
  graph.erase_dead();
}

}  // namespace tiercel

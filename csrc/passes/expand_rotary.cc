#include "passes/emitter.h"
#include "passes/expand.h"
#include "passes/match.h"

namespace tiercel {
namespace {

// x [B,H,S,D], or [B,S,H D]; pairs of elements (i, i + R/2), or (2i, 2i + 1) when interleaved, are turned by the angles of their row.
class Rotation : Emitter {
 public:
  using Emitter::Emitter;

  bool run() {
    Value* const x = node->inputs[0];
    const int rank = match::rank(x);
    const int64_t heads = node->attr_int("num_heads", 0);
    if ((rank != 3 && rank != 4) || !node->input(1) || !node->input(2)) return false;
    if (rank == 3 && heads <= 0) return false;
    const Dim last = x->type.shape.back();
    if (is_symbol(last) || (rank == 3 && last % heads)) return false;
    const int64_t depth = rank == 3 ? last / heads : last, given = node->attr_int("rotary_embedding_dim", 0), turned = given ? given : depth;
    if (turned <= 0 || turned > depth || turned % 2) return false;

    Value* v = rank == 3 ? op("Reshape", {x, ints({0, 0, heads, depth})}) : x;
    Value* rest = nullptr;
    if (turned < depth) {
      const auto parts = split(v, {turned, depth - turned}, 3);
      v = parts[0];
      rest = parts[1];
    }
    const bool interleaved = node->attr_int("interleaved", 0) != 0;
    Value *a = nullptr, *b = nullptr;
    if (interleaved) {
      const auto pairs = split(op("Reshape", {v, ints({0, 0, 0, turned / 2, 2})}), {1, 1}, 4);
      a = op("Squeeze", {pairs[0], ints({4})});
      b = op("Squeeze", {pairs[1], ints({4})});
    } else {
      const auto halves = split(v, {turned / 2, turned / 2}, 3);
      a = halves[0];
      b = halves[1];
    }
    Value *cos = angles(node->inputs[1], rank), *sin = angles(node->inputs[2], rank);
    Value* real = op("Sub", {op("Mul", {a, cos}), op("Mul", {b, sin})});
    Value* imaginary = op("Add", {op("Mul", {a, sin}), op("Mul", {b, cos})});
    Value* y = nullptr;
    if (interleaved) {
      const auto pair = [&](Value* p) { return op("Unsqueeze", {p, ints({4})}); };
      y = op("Reshape", {op("Concat", {pair(real), pair(imaginary)}, dtype, {{"axis", int64_t{4}}}), ints({0, 0, 0, turned})});
      if (rest) y = op("Concat", {y, rest}, dtype, {{"axis", int64_t{3}}});
    } else {
      std::vector<Value*> parts{real, imaginary};
      if (rest) parts.push_back(rest);
      y = op("Concat", parts, dtype, {{"axis", int64_t{3}}});
    }
    replace(0, rank == 3 ? op("Reshape", {y, ints({0, 0, last})}) : y);
    return true;
  }

 private:
  std::vector<Value*> split(Value* v, std::vector<int64_t> sizes, int64_t axis) {
    Value *first = graph.add_value("", Type::tensor(dtype)), *second = graph.add_value("", Type::tensor(dtype));
    Node* n = graph.add_node("Split", "", 18, {v, ints(sizes)}, {first, second}, node);
    n->set("axis", axis);
    n->name = node->name;
    return {first, second};
  }
  // [B,S,R/2] with an axis for the heads; picked by position from [positions, R/2].
  Value* angles(Value* cache, int rank) {
    if (Value* at = node->input(3)) cache = op("Gather", {cache, at});
    return op("Unsqueeze", {cache, ints({rank == 3 ? 2 : 1})});
  }
};

}  // namespace

void expand_rotary(Graph& graph) {
  std::vector<Node*> found;
  for (const auto& n : graph.nodes()) if (n->is("RotaryEmbedding") && n->input(0) && n->output(0)) found.push_back(n.get());
  for (Node* n : found) Rotation(graph, n).run();
  graph.erase_dead();
}

}  // namespace tiercel

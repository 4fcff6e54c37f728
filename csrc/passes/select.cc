// A part chosen along an axis of a transposed tensor is the same part of the tensor, transposed: "qkv.permute(2, 0, 3, 1, 4)" and then
// q, k and v out of it. What is left swaps heads and rows alone, which attention reads as they are.
#include "passes/match.h"
#include "passes/movement.h"

namespace tiercel {
namespace {

using Perm = std::vector<int64_t>;

// The permutation of what is left without axis `at` of the result.
Perm without(const Perm& perm, int at) {
  Perm left;
  for (size_t i = 0; i < perm.size(); ++i)
    if (static_cast<int>(i) != at) left.push_back(perm[i] - (perm[i] > perm[static_cast<size_t>(at)]));
  return left;
}

bool worth(const Perm& left) { return left == Perm{0, 2, 1, 3} || left == Perm{0, 1, 2, 3}; }

bool squeezes(const Node* n, int axis, int rank) {
  if (!n->is("Squeeze")) return false;
  std::vector<int64_t> axes = n->attr_ints("axes");
  if (const Value* v = n->input(1)) {
    if (!v->is_constant()) return false;
    axes = v->constant.ints();
  }
  return axes.size() == 1 && normalize_axis(axes[0], rank) == axis;
}

class Selector {
 public:
  Selector(Graph& graph, Node* transpose) : graph_(graph), t_(transpose), x_(transpose->inputs[0]), perm_(transpose->attr_ints("perm")) {}

  void run() {
    Value* y = t_->outputs[0];
    if (perm_.size() != 5 || match::rank(x_) != 5 || y->graph_output_uses || y->uses.empty()) return;
    if (y->uses.size() == 1 && y->uses[0].node->is("Split")) return split(y->uses[0].node);
    const std::vector<Use> uses = y->uses;
    for (const Use& u : uses) {
      const int axis = u.index == 0 ? chosen_axis(u.node) : -1;
      if (axis < 0 || !worth(without(perm_, axis))) return;
    }
    for (const Use& u : uses) {
      Node* n = u.node;
      const int axis = chosen_axis(n);
      const int64_t from = perm_[static_cast<size_t>(axis)];
      if (n->is("Gather")) {
        Value* part = graph_.emit("Gather", "", n->opset, {x_, n->inputs[1]}, type({from}), n);
        part->producer->set("axis", from);
        graph_.replace_uses(n->outputs[0], turned(part, axis, n));
        continue;
      }
      std::vector<Value*> in = n->inputs;
      in[0] = x_;
      in[3] = ints(from);
      Node* squeeze = n->outputs[0]->uses[0].node;
      Type t = x_->type;
      t.shape[static_cast<int>(from)] = 1;
      Value* part = graph_.emit("Slice", "", n->opset, in, t, n);
      part = graph_.emit("Squeeze", "", 13, {part, ints(from)}, type({from}), squeeze);
      graph_.replace_uses(squeeze->outputs[0], turned(part, axis, squeeze));
    }
  }

 private:
  int axis_of(const Node* n) const { return normalize_axis(n->attr_int("axis", 0), 5); }

  // The axis along which a Gather with one index, or a Slice and the Squeeze behind it, choose one element; -1 for all else.
  int chosen_axis(const Node* n) const {
    if (n->is("Gather")) return match::rank(n->inputs[1]) == 0 ? axis_of(n) : -1;
    if (!n->is("Slice") || n->opset < 10 || !n->input(3) || !n->inputs[3]->is_constant() || n->inputs[3]->constant.count() != 1) return -1;
    const int axis = normalize_axis(n->inputs[3]->constant.ints()[0], 5);
    const Value* v = n->outputs[0];
    return axis >= 0 && v->has_one_use() && squeezes(v->uses[0].node, axis, 5) ? axis : -1;
  }
  Value* ints(int64_t axis) {
    Value* axes = graph_.new_constant(Tensor::of<int64_t>({1}, {axis}), "axes");
    return axes;
  }

  // Of x without axes.
  Type type(std::initializer_list<int64_t> gone) const {
    Shape s = x_->type.shape;
    for (int64_t a : gone) s.erase(static_cast<int>(a));
    return Type::tensor(x_->type.dtype, s);
  }
  Value* turned(Value* part, int axis, Node* before) {
    const Perm left = without(perm_, axis);
    Shape s;
    for (int64_t i : left) s.push_back(part->type.shape[static_cast<int>(i)]);
    Value* v = graph_.emit("Transpose", "", 13, {part}, Type::tensor(part->type.dtype, s), before);
    v->producer->set("perm", left);
    return v;
  }

  // Each part has extent 1 along the axis, and loses it.
  void split(Node* n) {
    const int axis = axis_of(n);
    const int64_t from = perm_[static_cast<size_t>(axis)];
    if (!worth(without(perm_, axis))) return;
    for (const Value* v : n->outputs)
      if (!v || !v->has_one_use() || !squeezes(v->uses[0].node, axis, 5)) return;
    const std::vector<Value*> parts = n->outputs;
    std::vector<Value*> made;
    for (const Value* v : parts) {
      Type t = x_->type;
      t.shape[static_cast<int>(from)] = v->type.ranked ? v->type.shape[axis] : 1;
      made.push_back(graph_.add_value("", t));
    }
    std::vector<Value*> in = n->inputs;
    in[0] = x_;
    Node* moved = graph_.add_node("Split", "", n->opset, in, made, n);
    moved->attributes = n->attributes;
    moved->set("axis", from);
    Value* axes = ints(from);
    for (size_t i = 0; i < parts.size(); ++i) {
      Node* squeeze = parts[i]->uses[0].node;
      Value* part = graph_.emit("Squeeze", "", 13, {made[i], axes}, type({from}), squeeze);
      graph_.replace_uses(squeeze->outputs[0], turned(part, axis, squeeze));
    }
  }

  Graph& graph_;
  Node* t_;
  Value* x_;
  Perm perm_;
};

}  // namespace

void select_first(Graph& graph) {
  std::vector<Node*> found;
  for (const auto& n : graph.nodes()) if (n->is("Transpose") && n->input(0) && n->output(0)) found.push_back(n.get());
  for (Node* n : found) Selector(graph, n).run();
  graph.erase_dead();
}

}  // namespace tiercel

#include <algorithm>
#include <optional>

#include "ops/infer_graph.h"
#include "passes/movement.h"

namespace tiercel {
namespace {

bool reshapes(const Node* n) {
  return n && n->domain.empty() && (n->op_type == "Reshape" || n->op_type == "Flatten" || n->op_type == "Squeeze" || n->op_type == "Unsqueeze");
}

// The target with which one Reshape makes `to` out of `from` whatever the symbols stand for; nullopt when there is none.
std::optional<std::vector<int64_t>> target_of(const Shape& from, const Shape& to) {
  std::vector<int64_t> t;
  bool left = false;
  for (int i = 0; i < to.rank(); ++i) {
    if (to[i] == 0) return std::nullopt;  // 0 would copy
    if (!is_symbol(to[i])) t.push_back(to[i]);
    else if (i < from.rank() && from[i] == to[i]) t.push_back(0);
    else if (!std::exchange(left, true)) t.push_back(-1);
    else return std::nullopt;
  }
  return t;
}

class Simplifier {
 public:
  // Names that the file declares for extents are not trusted here: a wrong one would make a wrong target.
  explicit Simplifier(Graph& graph) : graph_(graph), infos_(infer_graph(graph, {}, false, false)) {}

  void run() {
    for (auto it = graph_.nodes().begin(); it != graph_.nodes().end();) {
      Node* node = (it++)->get();
      if (!node->domain.empty() || !node->input(0) || !node->output(0)) continue;
      if (reshapes(node)) reshape(node);
      else if (node->is("Concat")) concat(node);
      else if (node->is("Expand")) expand(node);
      if (changes_nothing(*node)) replace(node);
    }
  }

 private:
  const Type& type(const Value* v) const { return infos_[static_cast<size_t>(v->id)].type; }
  bool has_info(const Value* v) const { return v && v->id < static_cast<int>(infos_.size()) && type(v).is_tensor() && type(v).ranked; }

  void reshape(Node* node) {
    Value* from = node->inputs[0];
    while (reshapes(from->producer) && from->producer->input(0)) from = from->producer->inputs[0];
    const bool chained = from != node->inputs[0];
    const bool computed = node->is("Reshape") && node->opset >= 5 && node->input(1) && !node->inputs[1]->is_constant();
    if ((!chained && !computed) || !has_info(from) || !has_info(node->outputs[0])) return;
    if (type(from).layout != Layout::kPlain) return;
    const auto target = target_of(type(from).shape, type(node->outputs[0]).shape);
    if (!target) return;
    Value* shape = graph_.new_constant(Tensor::from_ints(DType::kInt64, {static_cast<Dim>(target->size())}, target->data()), "shape");
    graph_.resize_inputs(node, 1);
    graph_.set_input(node, 0, from);
    graph_.add_node_input(node, shape);
    node->op_type = "Reshape";
    node->attributes.clear();
    node->opset = std::max(node->opset, 13);
  }

  // Inputs without elements along the axis add nothing.
  void concat(Node* node) {
    if (!has_info(node->outputs[0])) return;
    const int axis = normalize_axis(node->attr_int("axis", 1), type(node->outputs[0]).shape.rank());
    if (axis < 0) return;
    for (int i = static_cast<int>(node->inputs.size()); i-- > 0 && node->inputs.size() > 1;) {
      if (!has_info(node->inputs[i]) || type(node->inputs[i]).shape[axis] != 0) continue;
      std::vector<Value*> rest = node->inputs;
      rest.erase(rest.begin() + i);
      for (size_t k = 0; k < rest.size(); ++k) graph_.set_input(node, static_cast<int>(k), rest[k]);
      graph_.resize_inputs(node, static_cast<int>(rest.size()));
    }
  }

  // An operator that broadcasts its two inputs needs no Expand where the other input has every extent by itself.
  void expand(Node* node) {
    Value *small = node->inputs[0], *large = node->outputs[0];
    if (!has_info(small) || !has_info(large) || type(small).layout != Layout::kPlain) return;
    static constexpr std::string_view kBroadcasting[] = {"Add", "Sub", "Mul", "Div", "And", "Or", "Xor", "Equal", "Less",
                                                         "Greater", "LessOrEqual", "GreaterOrEqual", "Pow"};
    const std::vector<Use> uses = large->uses;
    for (const Use& use : uses) {
      const Node* reader = use.node;
      if (!reader->domain.empty() || reader->opset < 7 || reader->inputs.size() != 2) continue;
      if (std::find(std::begin(kBroadcasting), std::end(kBroadcasting), reader->op_type) == std::end(kBroadcasting)) continue;
      const Value* other = reader->inputs[static_cast<size_t>(1 - use.index)];
      if (!has_info(other) || other == large) continue;
      const Shape &full = type(large).shape, &by = type(other).shape;
      bool covered = by.rank() >= full.rank();
      for (int i = 0; covered && i < full.rank(); ++i) {
        const int at = i - (full.rank() - type(small).shape.rank());
        const Dim d = by[i + by.rank() - full.rank()];
        covered = d == full[i] || (at >= 0 && type(small).shape[at] == full[i]);
      }
      if (covered) graph_.set_input(use.node, use.index, small);
    }
  }

  // An attribute of opset below `inputs_since`, or a constant input, all of whose elements are `value`.
  static bool all(const Node& node, const char* attribute, int input, int inputs_since, int64_t value) {
    std::vector<int64_t> v;
    if (node.opset < inputs_since) v = node.attr_ints(attribute);
    else {
      const Value* in = node.input(input);
      if (!in) return true;
      if (!in->is_constant()) return false;
      v = in->constant.ints();
    }
    return std::all_of(v.begin(), v.end(), [&](int64_t x) { return x == value; });
  }

  bool changes_nothing(const Node& node) const {
    const Value *in = node.inputs[0], *out = node.outputs[0];
    const std::string& op = node.op_type;
    if (op == "Concat") return node.inputs.size() == 1;
    if (op == "Pad" && node.opset >= 2) return all(node, "pads", 1, 11, 0) && (node.opset < 11 || node.input(1));
    if (!has_info(in) || !has_info(out) || !(type(in).shape == type(out).shape)) return false;
    if (op == "Split") return node.outputs.size() == 1;
    if (op == "Slice") return all(node, "steps", 4, 10, 1);
    return reshapes(&node) || op == "Expand" || (op == "Tile" && node.opset >= 6);
  }

  void replace(Node* node) {
    Value *in = node->inputs[0], *out = node->outputs[0];
    if (out->graph_output_uses && (!in->producer || in->graph_output_uses)) return;  // an output has a producer and name of its own
    graph_.replace_uses(out, in);
    graph_.erase(node);
  }

  Graph& graph_;
  const std::vector<ValueInfo> infos_;
};

}  // namespace

void simplify_shapes(Graph& graph) { Simplifier(graph).run(); }

}  // namespace tiercel

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "ops/movement.h"
#include "passes/movement.h"

namespace tiercel {
namespace {

using Perm = std::vector<int64_t>;

// The permutation of a Transpose; empty when it is none, or not known.
Perm perm_of(const Node* node) {
  if (!node || !node->is("Transpose") || !node->input(0)) return {};
  Perm p = node->attr_ints("perm");
  const Type& t = node->inputs[0]->type;
  if (p.empty() && t.ranked) for (int i = t.shape.rank() - 1; i >= 0; --i) p.push_back(i);
  return p;
}

Perm inverse(const Perm& p) {
  Perm r(p.size());
  for (size_t i = 0; i < p.size(); ++i) r[static_cast<size_t>(p[i])] = static_cast<int64_t>(i);
  return r;
}

bool is_identity(const Perm& p) {
  for (size_t i = 0; i < p.size(); ++i) if (p[i] != static_cast<int64_t>(i)) return false;
  return true;
}

Shape permuted(const Shape& s, const Perm& p) {
  Shape r;
  for (int64_t i : p) r.push_back(s[static_cast<int>(i)]);
  return r;
}

// A constant, given leading axes of extent 1 up to the permutation's rank, transposed.
Tensor permuted(const Tensor& t, const Perm& p) {
  Shape s = t.shape();
  while (s.rank() < static_cast<int>(p.size())) s.insert(0, 1);
  const Shape out = permuted(s, p);
  const Strides from = strides_of(s), to = strides_of(out);
  std::vector<StridedCopy::Axis> axes;
  for (size_t i = 0; i < p.size(); ++i) axes.push_back({out[static_cast<int>(i)], from[static_cast<size_t>(p[i])], to[i]});
  Tensor r(t.dtype(), out);
  Worker w = alone();
  StridedCopy(Element(t.dtype()), axes).run(t.data(), r.data(), w);
  return r;
}

constexpr std::string_view kPointwise[] = {
    "Abs", "Add", "And", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "Greater",
    "GreaterOrEqual", "HardSigmoid", "HardSwish", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Mean", "Min", "Mish", "Mod",
    "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign",
    "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu", "Where", "Xor"};

bool is_pointwise(const Node& n) {
  return n.domain.empty() && n.opset >= 7 && std::find(std::begin(kPointwise), std::end(kPointwise), n.op_type) != std::end(kPointwise);
}
bool has_axis(const Node& n) { return n.is("Concat") || ((n.is("Softmax") || n.is("LogSoftmax")) && n.opset >= 13); }

// What lies between Transposes by `undone` above and Transposes by `undoes`, its inverse, below.
class Region {
 public:
  Region(Graph& graph, const Node* end) : graph_(graph), undoes_(perm_of(end)), undone_(inverse(undoes_)) {}

  // Grows upwards from v; false when the transposition cannot be taken away from it.
  bool collect(Value* v) {
    if (seen_.count(v)) return true;
    if (nodes_.size() > 64) return false;
    Node* p = v->producer;
    if (is_leaf(v)) {
      ++leaves_;
    } else if (!v->is_constant()) {
      const bool whole = v->type.is_tensor() && v->type.ranked && v->type.shape.rank() == rank() && v->type.layout == Layout::kPlain;
      if (!whole || !p || p->outputs.size() != 1 || !(is_pointwise(*p) || has_axis(*p))) return false;
      for (size_t i = 0; i < p->inputs.size(); ++i) {
        Value* in = p->inputs[i];
        if (!in) continue;
        if (p->is("Clip") && i > 0) continue;  // its bounds are scalars
        if (!keeps(in, *p) && !collect(in)) return false;
      }
      nodes_.push_back(p);
      inside_.insert(p);
    } else if (v->type.shape.rank() > rank() || bits_of(v->constant.dtype()) < 8) {
      return false;
    }
    seen_.insert(v);
    return true;
  }

  // Nothing else reads what would no longer be made, and Transposes really go.
  bool closed() const {
    if (!leaves_ || nodes_.empty()) return false;
    for (const Node* n : nodes_) {
      const Value* v = n->outputs[0];
      if (v->graph_output_uses) return false;
      for (const Use& u : v->uses)
        if (!inside_.count(u.node) && perm_of(u.node) != undoes_) return false;
    }
    return true;
  }

  void rewrite() {
    for (Node* n : nodes_) {  // inputs stand before their readers
      std::vector<Value*> in;
      for (size_t i = 0; i < n->inputs.size(); ++i) {
        Value* v = n->inputs[i];
        in.push_back(!v || (n->is("Clip") && i > 0) || keeps(v, *n) ? v : without(v));
      }
      Value* old = n->outputs[0];
      Type type = old->type;
      type.shape = permuted(type.shape, undoes_);
      Value* made = graph_.emit(n->op_type, n->domain, n->opset, in, type, n);
      made->producer->attributes = n->attributes;
      made->producer->name = n->name;
      if (has_axis(*n)) {
        const int axis = normalize_axis(n->attr_int("axis", n->is("Concat") ? 1 : -1), rank());
        made->producer->set("axis", undone_[static_cast<size_t>(axis)]);
      }
      made_[old] = made;
      const std::vector<Use> uses = old->uses;
      for (const Use& u : uses)
        if (!inside_.count(u.node)) graph_.replace_uses(u.node->outputs[0], made);
    }
  }

 private:
  int rank() const { return static_cast<int>(undoes_.size()); }
  bool is_leaf(const Value* v) const { return perm_of(v->producer) == undone_; }
  // A value of one element broadcasts the same way in any order of the axes.
  bool keeps(const Value* v, const Node& reader) const {
    return is_pointwise(reader) && v->type.static_shape() && v->type.shape.count() == 1 && v->type.shape.rank() <= rank() && !is_leaf(v) &&
           !(v->producer && inside_.count(v->producer));
  }
  Value* without(Value* v) {
    if (const auto it = made_.find(v); it != made_.end()) return it->second;
    if (is_leaf(v)) return v->producer->inputs[0];
    const std::string key = "permuted " + std::string(reinterpret_cast<const char*>(undoes_.data()), undoes_.size() * sizeof(undoes_[0]));
    return made_[v] = graph_.new_constant(graph_.derived(key, {v}, [&] { return permuted(v->constant, undoes_); }), "permuted");
  }

  Graph& graph_;
  Perm undoes_, undone_;
  std::vector<Node*> nodes_;
  std::unordered_set<const Node*> inside_;
  std::unordered_set<const Value*> seen_;
  std::unordered_map<Value*, Value*> made_;
  int leaves_ = 0;
};

// A Transpose right below another; false when there is none above.
bool merge(Graph& graph, Node* node, const Perm& perm) {
  const Node* above = node->inputs[0]->producer;
  const Perm first = perm_of(above);
  if (first.size() != perm.size() || first.empty()) return false;
  Perm both;
  for (int64_t i : perm) both.push_back(first[static_cast<size_t>(i)]);
  Value *in = above->inputs[0], *out = node->outputs[0];
  if (!is_identity(both)) {
    graph.set_input(node, 0, in);
    node->set("perm", both);
  } else if (!out->graph_output_uses || (in->producer && !in->graph_output_uses)) {
    graph.replace_uses(out, in);
  }
  return true;
}

}  // namespace

void cancel_transposes(Graph& graph) {
  std::vector<Node*> transposes;
  for (const auto& n : graph.nodes()) if (!perm_of(n.get()).empty() && n->output(0)) transposes.push_back(n.get());
  for (Node* node : transposes) {
    const Perm perm = perm_of(node);
    if (merge(graph, node, perm)) continue;
    if (node->outputs[0]->uses.empty() && !node->outputs[0]->graph_output_uses) continue;  // gone with another
    Region region(graph, node);
    if (region.collect(node->inputs[0]) && region.closed()) region.rewrite();
  }
}

}  // namespace tiercel

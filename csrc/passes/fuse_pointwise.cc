#include "passes/fuse_pointwise.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "ops/pointwise_chain.h"
#include "ops/registry.h"
#include "passes/match.h"

namespace tiercel {
namespace {

constexpr size_t kMostSteps = 24, kMostInputs = 12;  // beyond: the tiles of inputs and results would leave L1


class Grouping {
 public:
  explicit Grouping(Graph& graph) : graph_(graph) {
    for (const auto& n : graph.nodes()) {
      const Value* out = n->output(0);
      if (!out || !match::is_f32(out) || !out->type.ranked) continue;
      const auto step = pointwise_step(*n);
      if (!step) continue;
      bool floats = true;
      for (int i = 0; i < step->operands(); ++i) floats &= match::is_f32(n->inputs[i]) && n->inputs[i]->type.ranked;
      if (floats) steps_.emplace(n.get(), *step);
    }
  }

  void run() {
    // From the last node up, so that a group starts at its end.
    std::vector<Node*> order;
    for (const auto& n : graph_.nodes()) order.push_back(n.get());
    for (int i = 0; i < static_cast<int>(order.size()); ++i) place_[order[i]] = i;
    for (auto n = order.rbegin(); n != order.rend(); ++n)
      if (steps_.count(*n) && !taken_.count(*n)) fuse_into(*n);
  }

 private:
  bool inside(const Node* n) const { return group_.count(const_cast<Node*>(n)) > 0; }

  // Can the producer of v join: do only members read v, and has it the result's shape?
  Node* joins(const Value* v, const Value* result) const {
    Node* p = v->producer;
    if (!p || inside(p) || taken_.count(p) || !steps_.count(p) || v->graph_output_uses || !match::same_shape(v, result)) return nullptr;
    for (const Use& u : v->uses) if (!inside(u.node)) return nullptr;
    return p;
  }

  // Values the group reads from outside.
  std::vector<Value*> outer_inputs() const {
    std::vector<Value*> in;
    for (Node* n : sorted())
      for (int i = 0; i < steps_.at(n).operands(); ++i) {
        Value* v = n->inputs[i];
        if (!(v->producer && inside(v->producer)) && std::find(in.begin(), in.end(), v) == in.end()) in.push_back(v);
      }
    return in;
  }
  std::vector<Node*> sorted() const {
    std::vector<Node*> nodes(group_.begin(), group_.end());
    std::sort(nodes.begin(), nodes.end(), [&](Node* a, Node* b) { return place_.at(a) < place_.at(b); });
    return nodes;
  }

  void fuse_into(Node* root) {
    group_ = {root};
    const Value* result = root->outputs[0];
    for (bool grew = true; grew && group_.size() < kMostSteps;) {
      grew = false;
      for (Node* n : sorted()) {
        for (int i = 0; i < steps_.at(n).operands() && group_.size() < kMostSteps; ++i)
          if (Node* p = joins(n->inputs[i], result)) {
            group_.insert(p);
            if (outer_inputs().size() > kMostInputs) group_.erase(p);
            else grew = true;
          }
      }
    }
    if (group_.size() < 2) return;
    const std::vector<Node*> nodes = sorted();
    const std::vector<Value*> inputs = outer_inputs();
    std::unordered_map<const Value*, int> registers;
    for (size_t i = 0; i < inputs.size(); ++i) registers[inputs[i]] = static_cast<int>(i);
    std::vector<PointwiseStep> steps;
    for (Node* n : nodes) {
      PointwiseStep s = steps_.at(n);
      s.a = registers.at(n->inputs[0]);
      s.b = s.operands() == 2 ? registers.at(n->inputs[1]) : -1;
      registers[n->outputs[0]] = static_cast<int>(inputs.size() + steps.size());
      steps.push_back(s);
      taken_.insert(n);
    }
    Value* old = root->outputs[0];
    Value* v = graph_.emit("Pointwise", kTiercelDomain, 1, inputs, old->type, root);
    v->producer->name = root->name;
    set_pointwise_steps(*v->producer, steps);
    const bool output = old->graph_output_uses > 0;
    graph_.replace_uses(old, v);
    if (output) std::swap(v->name, old->name);
  }

  Graph& graph_;
  std::unordered_map<Node*, PointwiseStep> steps_;
  std::unordered_map<Node*, int> place_;
  std::unordered_set<Node*> group_, taken_;
};

}  // namespace

void fuse_pointwise(Graph& graph) { Grouping(graph).run(); }

}  // namespace tiercel

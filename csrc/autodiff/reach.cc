#include "autodiff/reach.h"

#include <algorithm>
#include <cstdint>
#include <map>

#include "ops/control_flow.h"
#include "ops/grad.h"

namespace tiercel {
namespace {

// A set of inputs, of a node or of a body.
class Set {
 public:
  Set() = default;
  explicit Set(size_t n) : words_((n + 63) / 64) {}
  void add(size_t i) { words_[i / 64] |= uint64_t{1} << i % 64; }
  bool has(size_t i) const { return words_[i / 64] >> i % 64 & 1; }
  void join(const Set& o) {
    for (size_t w = 0; w < words_.size(); ++w) words_[w] |= o.words_[w];
  }

 private:
  std::vector<uint64_t> words_;
};

bool has_steps(const Node& n) { return n.is("Loop") || n.is("Scan"); }
bool has_bodies(const Node& n) { return n.is("If") || has_steps(n); }
bool ends_here(const Node& n) {
  const GradRow* row = find_grad(n.op_type, n.domain);
  return row && !row->grad;
}
bool varies(const Value* v) { return v->type.dtype == DType::kUndefined || differentiable(v->type); }
// Running statistics in training are told of, not learnt through, as in PyTorch: no gradient comes back from a later use of them.
bool is_statistic(const Node& n, size_t output) { return output > 0 && n.is("BatchNormalization") && n.has("unbiased"); }

// The body's outputs that are the states of the next step, as (output, input) pairs.
std::vector<std::pair<size_t, size_t>> carried(const Node& node, const Graph& body) {
  std::vector<std::pair<size_t, size_t>> pairs;
  const size_t own = body.inputs().size() - static_cast<size_t>(body.captured);
  if (node.is("Loop"))
    for (size_t i = 2; i < own && i - 1 < body.outputs().size(); ++i) pairs.emplace_back(i - 1, i);
  if (node.is("Scan"))
    for (size_t i = 0; i < static_cast<size_t>(ScanForm(node).states); ++i) pairs.emplace_back(i, i);
  return pairs;
}

// What reaches what in a body, over all its steps: sets of its inputs.
struct BodyReach {
  std::vector<Set> inputs;   // those that an input of some step varies with, itself among them
  std::vector<Set> outputs;  // those that an output of the last step varies with
};

// Each body is walked once, whatever it is nested in: reaching is a union over the inputs, so sets of them do for every question.
class Reach {
 public:
  // Sets of the graph's inputs, by value.
  std::vector<Set> values(const Graph& g) {
    const size_t n = g.inputs().size();
    std::vector<Set> at(static_cast<size_t>(g.num_values()), Set(n));
    for (size_t i = 0; i < n; ++i) at[static_cast<size_t>(g.inputs()[i]->id)].add(i);
    for (const auto& node : g.nodes()) {
      if (ends_here(*node)) continue;
      if (!has_bodies(*node)) {
        Set all(n);
        for (const Value* v : node->inputs) if (v) all.join(at[static_cast<size_t>(v->id)]);
        for (size_t o = 0; o < node->outputs.size(); ++o)
          if (const Value* v = node->outputs[o]; v && varies(v) && !is_statistic(*node, o)) at[static_cast<size_t>(v->id)] = all;
        continue;
      }
      const std::vector<Set> through = outputs(*node);
      for (size_t o = 0; o < node->outputs.size(); ++o) {
        const Value* const out = node->outputs[o];
        if (!out || !varies(out)) continue;
        for (size_t i = 0; i < node->inputs.size(); ++i)
          if (node->inputs[i] && through[o].has(i)) at[static_cast<size_t>(out->id)].join(at[static_cast<size_t>(node->inputs[i]->id)]);
      }
    }
    return at;
  }

  // Of a node with bodies, by output: sets of the node's inputs.
  std::vector<Set> outputs(const Node& node) {
    std::vector<Set> result(node.outputs.size(), Set(node.inputs.size()));
    const size_t skip = node.is("Loop") ? 1 : 0;  // the condition
    for (const auto& [key, body] : node.subgraphs()) {
      const BodyReach& reach = of(node, *body);
      const std::vector<int> operands = body_operands(node, *body);
      const auto join = [&](Set& to, const Set& from) {
        for (size_t i = 0; i < operands.size(); ++i)
          if (operands[i] >= 0 && operands[i] < static_cast<int>(node.inputs.size()) && from.has(i)) to.add(static_cast<size_t>(operands[i]));
      };
      for (size_t o = 0; o < result.size() && o + skip < reach.outputs.size(); ++o) join(result[o], reach.outputs[o + skip]);
      for (const auto& [o, i] : carried(node, *body))  // no step may be made: the states are what they were
        if (o - skip < result.size()) join(result[o - skip], reach.inputs[i]);
    }
    return result;
  }

  const BodyReach& of(const Node& node, const Graph& body) {
    const auto found = bodies_.find(&body);
    if (found != bodies_.end()) return found->second;
    const size_t n = body.inputs().size();
    const std::vector<Set> at = values(body);
    const auto states = carried(node, body);
    BodyReach r;
    r.inputs.assign(n, Set(n));
    for (size_t i = 0; i < n; ++i) r.inputs[i].add(i);
    for (const auto& [o, i] : states) r.inputs[i].join(at[static_cast<size_t>(body.outputs()[o]->id)]);
    for (const auto& [o, k] : states)  // Warshall's closure: ways through state k
      for (size_t i = 0; i < n; ++i)
        if (r.inputs[i].has(k)) r.inputs[i].join(Set(r.inputs[k]));
    for (const Value* v : body.outputs()) {
      Set all(n);
      for (size_t i = 0; i < n; ++i)
        if (at[static_cast<size_t>(v->id)].has(i)) all.join(r.inputs[i]);
      r.outputs.push_back(std::move(all));
    }
    return bodies_.emplace(&body, std::move(r)).first->second;
  }

 private:
  std::map<const Graph*, BodyReach> bodies_;
};

bool meets(const Set& set, const std::vector<bool>& inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) if (inputs[i] && set.has(i)) return true;
  return false;
}

}  // namespace

bool differentiable(const Type& t) {
  return t.kind != Kind::kMap &&
         (t.dtype == DType::kFloat || t.dtype == DType::kDouble || t.dtype == DType::kFloat16 || t.dtype == DType::kBFloat16);
}

std::vector<int> body_operands(const Node& node, const Graph& body) {
  const int own = static_cast<int>(body.inputs().size()) - body.captured;
  const bool batched = node.is("Scan") && node.opset < 9;
  std::vector<int> from;
  for (int i = 0; i < own; ++i) from.push_back(node.is("If") || (node.is("Loop") && i < 2) ? -1 : i + batched);
  for (int i = 0; i < body.captured; ++i) from.push_back(node.captures_begin(&body) + i);
  return from;
}

std::vector<bool> reached_in_body(const Node& node, const Graph& body, const std::vector<bool>& inputs) {
  std::vector<bool> first(body.inputs().size(), false), at;
  const std::vector<int> operands = body_operands(node, body);
  for (size_t i = 0; i < first.size(); ++i) first[i] = operands[i] >= 0 && operands[i] < static_cast<int>(inputs.size()) && inputs[static_cast<size_t>(operands[i])];
  Reach reach;
  for (const Set& s : reach.of(node, body).inputs) at.push_back(meets(s, first));
  return at;
}

std::vector<bool> reached(const Node& node, const std::vector<bool>& inputs) {
  std::vector<bool> outputs(node.outputs.size(), false);
  if (std::find(inputs.begin(), inputs.end(), true) == inputs.end() || ends_here(node)) return outputs;
  if (!has_bodies(node)) {
    for (size_t o = 0; o < outputs.size(); ++o) outputs[o] = !is_statistic(node, o);
    return outputs;
  }
  Reach reach;
  const std::vector<Set> sets = reach.outputs(node);
  for (size_t o = 0; o < outputs.size(); ++o) outputs[o] = meets(sets[o], inputs);
  return outputs;
}

std::vector<bool> reached(const Graph& graph, const std::vector<bool>& inputs, std::vector<bool>* values) {
  std::vector<bool> at(static_cast<size_t>(graph.num_values()), false);
  for (size_t i = 0; i < inputs.size() && i < graph.inputs().size(); ++i) at[static_cast<size_t>(graph.inputs()[i]->id)] = inputs[i];
  Reach reach;
  for (const auto& n : graph.nodes()) {
    if (ends_here(*n)) continue;
    std::vector<bool> in;
    for (const Value* v : n->inputs) in.push_back(v && at[static_cast<size_t>(v->id)]);
    if (std::find(in.begin(), in.end(), true) == in.end()) continue;
    std::vector<Set> sets;
    if (has_bodies(*n)) sets = reach.outputs(*n);
    for (size_t i = 0; i < n->outputs.size(); ++i)
      if (const Value* v = n->outputs[i]; v && varies(v) && !is_statistic(*n, i) && (sets.empty() || meets(sets[i], in))) at[static_cast<size_t>(v->id)] = true;
  }
  std::vector<bool> outputs;
  for (const Value* v : graph.outputs()) outputs.push_back(at[static_cast<size_t>(v->id)]);
  if (values) *values = std::move(at);
  return outputs;
}

}  // namespace tiercel

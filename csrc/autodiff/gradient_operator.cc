#include "autodiff/gradient_operator.h"

#include <algorithm>
#include <unordered_map>

#include "autodiff/gradients.h"
#include "ops/registry.h"
#include "passes/basic.h"
#include "passes/passes.h"

namespace tiercel {
namespace {

bool is_gradient(const Node& n) { return n.is("Gradient", kTrainingDomain); }

bool any_gradient(const Graph& g) {
  return std::any_of(g.nodes().begin(), g.nodes().end(), [](const auto& n) {
    const auto bodies = n->subgraphs();
    return is_gradient(*n) || std::any_of(bodies.begin(), bodies.end(), [](const auto& b) { return any_gradient(*b.second); });
  });
}

// `y` as a function of others values than the graph's own: copies of the nodes between `from` and it, which are given `to`.
Value* evaluated_at(GraphWriter& w, Value* y, const std::vector<Value*>& from, const std::vector<Value*>& to) {
  std::unordered_map<const Value*, Value*> copies;
  for (size_t i = 0; i < from.size(); ++i) copies[from[i]] = to[i];
  const auto copy = [&](Value* v) {
    const auto it = copies.find(v);
    return it == copies.end() ? v : it->second;
  };
  std::vector<Node*> nodes;
  for (const auto& n : w.graph().nodes()) {
    if (n.get() == w.before) break;
    nodes.push_back(n.get());
  }
  for (Node* n : nodes) {
    if (std::none_of(n->inputs.begin(), n->inputs.end(), [&](const Value* v) { return copies.count(v); })) continue;
    std::vector<Value*> in, out;
    for (Value* v : n->inputs) in.push_back(copy(v));
    for (const Value* v : n->outputs) out.push_back(v ? w.graph().add_value("") : nullptr);
    for (size_t i = 0; i < out.size(); ++i)
      if (out[i]) out[i]->type = n->outputs[i]->type;
    w.infer(w.graph().add_copy(*n, std::move(in), out, w.before));
    for (size_t i = 0; i < out.size(); ++i)
      if (n->outputs[i] && !copies.count(n->outputs[i])) copies[n->outputs[i]] = out[i];
  }
  return copy(y);
}

void expand(Graph& graph, Node& node) {
  const auto xs = node.attr_strings("xs"), zs = node.attr_strings("zs");
  const size_t n = xs.size() + zs.size();
  if (xs.empty()) fail(Code::kInvalidGraph, node.label(), ": attribute 'xs' should name at least one value");
  if (node.inputs.size() != 2 * n + 1)
    fail(Code::kInvalidGraph, node.label(), ": ", n, " values stand in 'xs' and 'zs', so there should be ", n, " inputs, not ",
         static_cast<int64_t>(node.inputs.size()) - static_cast<int64_t>(n) - 1);
  if (node.outputs.size() > xs.size())
    fail(Code::kInvalidGraph, node.label(), ": ", node.outputs.size(), " outputs for the ", xs.size(), " values in 'xs'");
  std::vector<Value*> given(node.inputs.begin(), node.inputs.begin() + static_cast<std::ptrdiff_t>(n));
  std::vector<Value*> named(node.inputs.begin() + static_cast<std::ptrdiff_t>(n), node.inputs.end() - 1);
  Value* y = node.inputs.back();
  for (size_t i = 0; i < n; ++i)
    if (!given[i]) fail(Code::kInvalidGraph, node.label(), ": input ", i, ", the value of \"", named[i]->name, "\", is required");
  const size_t own = graph.inputs().size() - static_cast<size_t>(graph.captured);
  if (std::find(graph.inputs().begin() + static_cast<std::ptrdiff_t>(own), graph.inputs().end(), y) != graph.inputs().end() &&
      std::find(named.begin(), named.end(), y) == named.end())
    fail(Code::kNotImplemented, node.label(), ": \"", y->name, "\", its y, should be computed in the same graph as the node, not in one around it");
  GraphWriter w(graph);
  w.before = &node;
  w.name = node.name;
  if (given != named) {
    for (Value*& v : given) v = w.op("Identity", {v});  // a value of its own: one may be given for two
    y = evaluated_at(w, y, named, given);
  }
  std::vector<Value*> wrt(given.begin(), given.begin() + static_cast<std::ptrdiff_t>(xs.size()));
  for (size_t i = 0; i < wrt.size(); ++i)
    for (size_t k = 0; k < i; ++k)
      if (wrt[i] == wrt[k]) fail(Code::kInvalidGraph, node.label(), ": \"", xs[i], "\" stands twice in 'xs'");
  const GradientSeed seed{y, nullptr};
  GradientOptions options;
  options.fixed = given;
  std::vector<Value*> results;
  try {
    results = gradients(w, {&seed, 1}, wrt, options);
  } catch (const Error& e) {
    fail(e.code(), node.label(), ": the derivative of \"", y->name, "\": ", e.what());
  }
  for (size_t i = 0; i < node.outputs.size(); ++i) {
    if (!node.outputs[i]) continue;
    w.name = node.name;
    Value* v = w.op("Identity", {results[i] ? results[i] : w.zeros_like(wrt[i])});
    graph.replace_uses(node.outputs[i], v);
    if (v->name.empty()) std::swap(v->name, node.outputs[i]->name);
  }
  graph.erase(&node);
}

void infer(InferContext& ctx) {
  for (int i = 0; i < ctx.num_outputs(); ++i)
    if (ctx.has_input(i)) ctx.set_output(i, ctx.type(i));
}

const OpRegistration rows({{"Gradient", kTrainingDomain, 1, infer, nullptr}});

}  // namespace

void expand_gradients(Graph& graph) {
  if (!any_gradient(graph)) return;
  capture_constants(graph);
  make_differentiable(graph);
  for_each_graph(graph, [](Graph& g) {
    std::vector<Node*> nodes;
    for (const auto& n : g.nodes()) if (is_gradient(*n)) nodes.push_back(n.get());
    for (Node* n : nodes) expand(g, *n);
  });
}

}  // namespace tiercel

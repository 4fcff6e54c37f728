// Passes about bodies of control flow.
#include <unordered_map>

#include "passes/basic.h"

namespace tiercel {
namespace {

void remove_input_at(Graph& graph, Node* node, int index) {
  const int n = static_cast<int>(node->inputs.size());
  for (int i = index; i + 1 < n; ++i) graph.set_input(node, i, node->inputs[i + 1]);
  graph.resize_inputs(node, n - 1);
}

// Moves a copy of the body's nodes before `node`; gives the outer value for each of the body's outputs.
std::vector<Value*> splice(Graph& graph, Node* node, const Graph& body) {
  std::unordered_map<const Value*, Value*> outer;
  const int at = node->captures_begin(&body);
  for (size_t i = 0; i < body.inputs().size(); ++i) outer[body.inputs()[i]] = node->inputs[at + static_cast<int>(i)];
  auto copy = [&](const Value* v) -> Value* {
    if (!v) return nullptr;
    if (const auto found = outer.find(v); found != outer.end()) return found->second;
    Value* c = graph.add_value("", v->type);
    c->name = (v->name.empty() ? "inlined" : v->name) + "_inlined_" + std::to_string(c->id);
    c->constant = v->constant;
    return outer[v] = c;
  };
  for (const auto& inner : body.nodes()) {
    std::vector<Value*> in, out;
    for (const Value* v : inner->inputs) in.push_back(copy(v));
    for (const Value* v : inner->outputs) out.push_back(copy(v));
    Node* n = graph.add_node(inner->op_type, inner->domain, inner->opset, in, out, node);
    n->name = inner->name;
    n->attributes = inner->attributes;
    n->own_inputs = inner->own_inputs;
  }
  std::vector<Value*> results;
  for (const Value* v : body.outputs()) results.push_back(copy(v));
  return results;
}

}  // namespace

void sink_constants(Graph& graph) {
  for (const auto& node : graph.nodes())
    for (auto& [key, body] : node->subgraphs()) {
      const int at = node->captures_begin(body), first = static_cast<int>(body->inputs().size()) - body->captured;
      for (int i = body->captured - 1; i >= 0; --i) {
        const Value* outer = node->inputs[at + i];
        Value* inner = body->inputs()[first + i];
        const bool unused = inner->uses.empty() && !inner->graph_output_uses;
        if (!unused && !(outer && outer->is_constant())) continue;
        if (!unused) {
          Value* c = body->add_constant("", outer->constant);
          body->replace_uses(inner, c);
          if (c->name.empty()) std::swap(c->name, inner->name);
        }
        body->remove_input(first + i);
        --body->captured;
        remove_input_at(graph, node.get(), at + i);
      }
    }
}

void inline_if(Graph& graph) {
  for (auto it = graph.nodes().begin(); it != graph.nodes().end();) {
    Node* node = (it++)->get();
    const Value* condition = node->input(0);
    if (!node->is("If") || !condition || !condition->is_constant()) continue;
    if (condition->constant.dtype() != DType::kBool || condition->constant.count() != 1) continue;
    const Graph* body = node->attr_graph(*condition->constant.as<uint8_t>() ? "then_branch" : "else_branch");
    if (!body || body->outputs().size() != node->outputs.size()) continue;
    const std::vector<Value*> results = splice(graph, node, *body);
    for (size_t i = 0; i < results.size(); ++i) {
      Value *v = node->outputs[i], *to = results[i];
      if (!v) continue;
      if (v->graph_output_uses && (!to->producer || to->graph_output_uses))
        to = graph.emit("Identity", "", 1, {to}, v->type, node);
      graph.replace_uses(v, to);
    }
    graph.erase(node);
  }
}

}  // namespace tiercel

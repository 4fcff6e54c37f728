// Passes about bodies of control flow.
#include <map>
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

namespace {

using ByMemory = std::unordered_map<const void*, Value*>;  // values of a graph that stand for constants

const ByMemory::value_type* find_same(const ByMemory& outer, const Value* v) {
  if (!v || !v->is_constant() || !is_float(v->constant.dtype()) || v->constant.count() == 0) return nullptr;
  const auto it = outer.find(memory_of(v->constant));
  return it != outer.end() && it->second->type.dtype == v->type.dtype && it->second->type.shape == v->type.shape ? &*it : nullptr;
}

// Those of `outer` that a body, or a body in it, has copies of.
void find_copies(const Graph& body, const ByMemory& outer, std::map<int, const void*>& found) {
  for (int id = 0; id < body.num_values(); ++id)
    if (const auto* same = find_same(outer, body.value(id))) found[same->second->id] = same->first;
  for (const auto& n : body.nodes())
    for (const auto& [key, inner] : n->subgraphs()) find_copies(*inner, outer, found);
}

void capture_from(Graph& graph, const ByMemory& outer) {
  for (const auto& node : graph.nodes())
    for (const auto& [key, body] : node->subgraphs()) {
      std::map<int, const void*> found;  // by id: the order does not depend on addresses
      find_copies(*body, outer, found);
      if (found.empty()) continue;
      if (node->own_inputs < 0) node->own_inputs = static_cast<int>(node->inputs.size());
      ByMemory inner;
      for (const auto& [id, memory] : found) {
        Value* from = graph.value(id);
        Value* in = body->add_input("", from->type);
        graph.insert_input(node.get(), node->captures_begin(body) + body->captured++, from);
        inner[memory] = in;
        for (int k = 0; k < body->num_values(); ++k) {
          Value* v = body->value(k);
          if (!find_same({{memory, from}}, v)) continue;
          if (in->name.empty()) std::swap(in->name, v->name);
          body->replace_uses(v, in);
        }
      }
      capture_from(*body, inner);
    }
}

}  // namespace

void capture_constants(Graph& graph) {
  ByMemory own;
  for (int id = 0; id < graph.num_values(); ++id)
    if (Value* v = graph.value(id); v && v->is_constant() && v->constant.count() > 0) own.try_emplace(memory_of(v->constant), v);
  capture_from(graph, own);
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

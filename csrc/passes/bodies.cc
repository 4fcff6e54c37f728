// Passes about bodies of control flow.
#include <algorithm>
#include <map>
#include <optional>
#include <unordered_map>

#include "ops/registry.h"
#include "passes/basic.h"
#include "passes/match.h"

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

namespace {

// What a body's value is outside, when the body takes it as it is.
Value* captured(const Node* node, const Graph* body, const Value* v) {
  const auto found = std::find(body->inputs().begin(), body->inputs().end(), v);
  return found == body->inputs().end() ? nullptr : node->inputs[node->captures_begin(body) + static_cast<int>(found - body->inputs().begin())];
}

std::optional<int64_t> only_axis(const Node* squeeze) {
  if (squeeze->has("axes")) {
    const std::vector<int64_t> axes = squeeze->attr_ints("axes");
    return axes.size() == 1 ? std::optional(axes[0]) : std::nullopt;
  }
  const Value* v = squeeze->input(1);
  if (!v || !v->is_constant() || v->constant.count() != 1) return std::nullopt;
  return v->constant.ints()[0];
}

// Is `condition` "axis `axis` of x has extent 1"?
bool asks_for_one(const Value* condition, const Value* x, int64_t axis) {
  const Node* equal = match::made_by(condition, "Equal");
  if (!equal) return false;
  const bool first = match::is_scalar(equal->inputs[0], 1);
  if (!first && !match::is_scalar(equal->inputs[1], 1)) return false;
  const Node* gather = match::made_by(equal->inputs[first ? 1 : 0], "Gather");
  const Node* shape = gather ? match::made_by(gather->inputs[0], "Shape") : nullptr;
  const auto index = gather ? match::scalar(gather->inputs[1]) : std::nullopt;
  if (!shape || !index || shape->inputs[0] != x || shape->has("start") || shape->has("end")) return false;
  const int rank = match::rank(x);
  const auto from_front = [&](int64_t a) { return a < 0 && rank >= 0 ? a + rank : a; };
  return from_front(static_cast<int64_t>(*index)) == from_front(axis);
}

}  // namespace

void squeeze_if(Graph& graph) {
  for (auto it = graph.nodes().begin(); it != graph.nodes().end();) {
    Node* const node = (it++)->get();
    if (!node->is("If") || node->outputs.size() != 1 || !node->outputs[0]) continue;
    const Graph *yes = node->attr_graph("then_branch"), *no = node->attr_graph("else_branch");
    if (!yes || !no || yes->outputs().size() != 1 || no->outputs().size() != 1) continue;
    const Node* squeeze = match::made_by(yes->outputs()[0], "Squeeze");
    const Node* same = match::made_by(no->outputs()[0], "Identity");
    Value* const x = squeeze ? captured(node, yes, squeeze->inputs[0]) : nullptr;
    if (!x || captured(node, no, same ? same->inputs[0] : no->outputs()[0]) != x) continue;
    const auto axis = only_axis(squeeze);
    if (!axis || !asks_for_one(node->inputs[0], x, *axis)) continue;
    Value* const v = node->outputs[0];
    Value* const y = graph.emit("SqueezeOnes", kTiercelDomain, 1, {x}, v->type, node);
    y->producer->name = node->name;
    y->producer->set("axis", *axis);
    if (v->graph_output_uses) std::swap(v->name, y->name);
    graph.replace_uses(v, y);
    graph.erase(node);
  }
}

}  // namespace tiercel

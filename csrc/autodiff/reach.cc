#include "autodiff/reach.h"

#include <algorithm>

#include "ops/control_flow.h"
#include "ops/grad.h"

namespace tiercel {
namespace {

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

// Inputs of the body that are reached at some step (`at`), and its outputs.
std::vector<bool> reached_at_last(const Node& node, const Graph& body, const std::vector<bool>& inputs, std::vector<bool>& at) {
  at.clear();
  for (const int i : body_operands(node, body)) at.push_back(i >= 0 && i < static_cast<int>(inputs.size()) && inputs[static_cast<size_t>(i)]);
  const auto states = carried(node, body);
  for (;;) {
    std::vector<bool> out = reached(body, at);
    bool more = false;
    for (const auto& [o, i] : states)
      if (out[o] && !at[i]) at[i] = more = true;
    if (!more) return out;
  }
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
  std::vector<bool> at;
  reached_at_last(node, body, inputs, at);
  return at;
}

std::vector<bool> reached(const Node& node, const std::vector<bool>& inputs) {
  std::vector<bool> outputs(node.outputs.size(), false);
  if (std::find(inputs.begin(), inputs.end(), true) == inputs.end()) return outputs;
  const GradRow* row = find_grad(node.op_type, node.domain);
  if (row && !row->grad) return outputs;
  if (!node.is("If") && !node.is("Loop") && !node.is("Scan")) {
    outputs.assign(outputs.size(), true);
    return outputs;
  }
  const size_t skip = node.is("Loop") ? 1 : 0;  // the condition
  for (const auto& [key, body] : node.subgraphs()) {
    std::vector<bool> at;
    const std::vector<bool> out = reached_at_last(node, *body, inputs, at);
    for (size_t i = 0; i < outputs.size() && i + skip < out.size(); ++i) outputs[i] = outputs[i] || out[i + skip];
    for (const auto& [o, i] : carried(node, *body))  // no step may be made: the states are what they were
      if (at[i] && o - skip < outputs.size()) outputs[o - skip] = true;
  }
  return outputs;
}

std::vector<bool> reached(const Graph& graph, const std::vector<bool>& inputs, std::vector<bool>* values) {
  std::vector<bool> at(static_cast<size_t>(graph.num_values()), false);
  for (size_t i = 0; i < inputs.size() && i < graph.inputs().size(); ++i) at[static_cast<size_t>(graph.inputs()[i]->id)] = inputs[i];
  for (const auto& n : graph.nodes()) {
    std::vector<bool> in;
    for (const Value* v : n->inputs) in.push_back(v && at[static_cast<size_t>(v->id)]);
    const std::vector<bool> out = reached(*n, in);
    for (size_t i = 0; i < out.size(); ++i)
      if (const Value* v = n->outputs[i]; v && out[i]) at[static_cast<size_t>(v->id)] = v->type.dtype == DType::kUndefined || differentiable(v->type);
  }
  std::vector<bool> outputs;
  for (const Value* v : graph.outputs()) outputs.push_back(at[static_cast<size_t>(v->id)]);
  if (values) *values = std::move(at);
  return outputs;
}

}  // namespace tiercel

#include "training/training_mode.h"

#include <algorithm>

#include "ops/registry.h"
#include "training/batch_statistics.h"

namespace tiercel {
namespace {

bool unused(const Node& n, int i) { return !n.output(i) || (n.output(i)->uses.empty() && !n.output(i)->graph_output_uses); }

void train_dropout(Graph& graph, Node& n, Value* step, int64_t seed) {
  if (n.outputs.size() > 1 && n.outputs[1] && !n.outputs[1]->uses.empty()) return;
  Value* ratio = n.input(1);
  if (n.opset < 12) ratio = nullptr;
  if (!ratio) {
    const DType t = n.inputs[0]->type.dtype;
    const double r = n.opset < 12 ? static_cast<double>(n.attr_float("ratio", 0.5f)) : 0.5;
    ratio = graph.new_constant(t == DType::kDouble ? Tensor::of<double>({}, {r}) : Tensor::of<float>({}, {static_cast<float>(r)}), "ratio");
  }
  Value* y = graph.emit("Dropout", kTiercelDomain, 1, {n.inputs[0], ratio, step}, n.outputs[0]->type, &n);
  y->producer->name = n.name;
  y->producer->set("seed", seed);
  graph.replace_uses(n.outputs[0], y);
}

bool has_dropout(const Graph& g) {
  return std::any_of(g.nodes().begin(), g.nodes().end(), [](const auto& n) {
    const auto bodies = n->subgraphs();
    return n->is("Dropout") || std::any_of(bodies.begin(), bodies.end(), [](const auto& b) { return has_dropout(*b.second); });
  });
}

Value* int_constant(Graph& g, int64_t i) {
  return g.new_constant(Tensor::of<int64_t>({}, {i}), "number");
}

// A further scan input of a Scan: the numbers of its steps.
Value* add_numbers(Graph& graph, Node& n, Graph& body) {
  const int64_t scans = n.attr_int("num_scan_inputs", 0);
  const int own = n.num_own_inputs(), first = own - static_cast<int>(scans);
  const Type number = Type::tensor(DType::kInt64, Shape{}), list = Type::tensor(DType::kInt64, Shape{graph.symbols().fresh()});
  const std::vector<int64_t> axes = n.attr_ints("scan_input_axes");
  Value* shape = graph.emit("Shape", "", 13, {n.inputs[static_cast<size_t>(first)]}, list, &n);
  Value* steps = graph.emit("Gather", "", 13, {shape, int_constant(graph, axes.empty() ? 0 : axes[0])}, number, &n);
  Value* numbers = graph.emit("Range", "", 11, {int_constant(graph, 0), steps, int_constant(graph, 1)}, list, &n);
  graph.insert_input(&n, own, numbers);
  if (n.own_inputs >= 0) ++n.own_inputs;
  n.set("num_scan_inputs", scans + 1);
  for (const char* key : {"scan_input_axes", "scan_input_directions"})
    if (std::vector<int64_t> longer = n.attr_ints(key); !longer.empty()) {
      longer.push_back(0);
      n.set(key, std::move(longer));
    }
  std::vector<Value*> in = body.inputs();
  Value* inner = body.add_input("", number);
  in.insert(in.end() - body.captured, inner);
  body.order_inputs(std::move(in));
  return inner;
}

// Dropout of a graph and of its bodies, where each step of a Loop or Scan draws anew.
void train_dropouts(Graph& graph, Value* step, int64_t& seed) {
  constexpr int64_t kSteps = 1 << 24;
  std::vector<Node*> nodes;
  for (const auto& n : graph.nodes()) nodes.push_back(n.get());
  for (Node* n : nodes) {
    if (n->is("Dropout")) train_dropout(graph, *n, step, seed++);
    for (const auto& [key, body] : n->subgraphs()) {
      if (!has_dropout(*body)) continue;
      if (n->own_inputs < 0) n->own_inputs = static_cast<int>(n->inputs.size());
      Value* number = n->is("Loop") ? body->inputs()[0] : n->is("Scan") && n->opset >= 9 ? add_numbers(graph, *n, *body) : nullptr;
      Value* inner = body->add_input("", step->type);
      graph.insert_input(n, n->captures_begin(body) + body->captured++, step);
      if (number) {
        Node* first = body->nodes().front().get();
        inner = body->emit("Mul", "", 14, {inner, int_constant(*body, kSteps)}, step->type, first);
        inner = body->emit("Add", "", 14, {inner, number}, step->type, first);
      }
      train_dropouts(*body, inner, seed);
    }
  }
}

}  // namespace

void to_inference_mode(Graph& graph) {
  for (const auto& n : graph.nodes()) {
    for (const auto& [key, body] : n->subgraphs()) to_inference_mode(*body);
    const bool norm = n->is("BatchNormalization");
    if (!norm && !n->is("Dropout")) continue;
    bool alone = true;
    for (int i = 1; i < static_cast<int>(n->outputs.size()); ++i) alone &= unused(*n, i);
    if (!alone) continue;
    if (norm && n->opset < 7) n->set("is_test", int64_t{1});
    if (norm) n->unset("training_mode");
    if (!norm && n->inputs.size() > 2 && n->inputs[2] && n->inputs[2]->is_constant()) graph.resize_inputs(n.get(), 2);
    for (size_t i = 1; i < n->outputs.size(); ++i)
      if (n->outputs[i]) n->outputs[i]->producer = nullptr;
    n->outputs.resize(std::min<size_t>(n->outputs.size(), 1));
  }
}

Statistics to_training_mode(Graph& graph, Value* step, int64_t seed, std::vector<std::string>& notes) {
  Statistics after = train_norms(graph, notes);
  train_dropouts(graph, step, seed);
  return after;
}

}  // namespace tiercel

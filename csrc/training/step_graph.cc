#include "training/step_graph.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "autodiff/gradients.h"
#include "base/float_formats.h"
#include "ops/infer_graph.h"
#include "ops/registry.h"
#include "passes/basic.h"
#include "passes/expand.h"
#include "passes/fuse_activations.h"
#include "training/masters.h"
#include "training/row_gradient.h"
#include "training/training_mode.h"
#include "training/update_graph.h"

namespace tiercel {
namespace {

Value* value_named(const Graph& g, const std::string& name) {
  for (int id = 0; id < g.num_values(); ++id)
    if (Value* v = g.value(id); v && v->name == name) return v;
  return nullptr;
}

bool is_float_weight(const Value* v) {
  return v->is_constant() && is_float_type(v->constant.dtype()) && !v->name.empty();
}

// A mask: it holds infinities, which an optimiser would make NaN.
bool is_mask(const Value* v) {
  for (const Use& use : v->uses)
    for (const char* op : {"MatMul", "Gemm", "Conv", "ConvTranspose", "LSTM", "GRU", "RNN"})  // large, and no masks
      if (use.node->is(op)) return false;
  const Tensor& t = v->constant;
  const int64_t size = bytes_of(t.dtype(), 1), block = std::min<int64_t>(t.count(), 1 << 16);
  Tensor part(t.dtype(), Shape{block});
  const auto has = [&]<class T>(const T* x, int64_t n) {
    return std::any_of(x, x + n, [](T f) {
      if constexpr (std::is_floating_point_v<T>) return std::isinf(f);
      else return std::isinf(to_float(f));
    });
  };
  for (int64_t i = 0; i < t.count(); i += block) {
    const int64_t n = std::min(block, t.count() - i);
    t.read(i * size, n * size, part.data());
    if (t.dtype() == DType::kFloat ? has(part.as<float>(), n) : t.dtype() == DType::kDouble ? has(part.as<double>(), n)
        : t.dtype() == DType::kFloat16 ? has(part.as<Half>(), n) : has(part.as<BFloat16>(), n)) return true;
  }
  return false;
}

// InstanceNormalization between two Reshapes, which exporters write for GroupNormalization: its scale and bias are ones and zeros, the weights follow.
bool is_within_group_norm(const Node& n) {
  const auto is_reshape = [](const Node* other) { return other && other->is("Reshape"); };
  const Value* const x = n.input(0);
  const Value* const y = n.output();
  return n.is("InstanceNormalization") && x && is_reshape(x->producer) && y && y->has_one_use() && is_reshape(y->uses[0].node);
}

// Of a weight without a gradient: the first operator on a way to the loss that rounds, so that its slope is zero everywhere. Null: none.
const Node* rounded_by(const Value* weight, const Value* loss) {
  std::set<const Node*> before;  // the loss
  std::vector<const Node*> next{loss->producer};
  while (!next.empty()) {
    const Node* const n = next.back();
    next.pop_back();
    if (!n || !before.insert(n).second) continue;
    for (const Value* v : n->inputs)
      if (v) next.push_back(v->producer);
  }
  std::set<const Value*> seen;
  std::vector<const Value*> ways{weight};
  while (!ways.empty()) {
    const Value* const v = ways.back();
    ways.pop_back();
    if (!is_float_type(v->type.dtype) || !seen.insert(v).second) continue;
    for (const Use& use : v->uses) {
      if (!before.count(use.node)) continue;
      for (const char* op : {"Floor", "Ceil", "Round", "Sign"})
        if (use.node->is(op)) return use.node;
      for (const Value* y : use.node->outputs)
        if (y) ways.push_back(y);
    }
  }
  return nullptr;
}

// Operands that are settings of a node, not weights.
bool is_setting(const Use& use) {
  const Node& n = *use.node;
  const int i = use.index;
  for (const auto& [key, body] : n.subgraphs()) {
    const int k = i - n.captures_begin(body);
    if (k < 0 || k >= body->captured) continue;
    const Value* v = body->inputs()[body->inputs().size() - static_cast<size_t>(body->captured) + static_cast<size_t>(k)];
    return std::any_of(v->uses.begin(), v->uses.end(), is_setting);
  }
  const auto from = [&](const char* op, int first) { return n.op_type == op && i >= first; };
  return from("BatchNormalization", 3) || from("Resize", 1) || from("Upsample", 1) || from("Clip", 1) || from("Dropout", 1) || from("Pad", 1) ||
         from("QuantizeLinear", 1) || from("DequantizeLinear", 1) || from("Range", 0) || from("OneHot", 1) || from("NonMaxSuppression", 0) ||
         (i >= 1 && is_within_group_norm(n));
}

// Constants become inputs of the same names; narrow weights inputs of the type that they are trained in, which their readers see rounded.
class Inputs {
 public:
  explicit Inputs(Graph& g) : graph_(g) {}
  Value* weight(const std::string& name) {
    Value* const v = make(name);
    if (master_type(v->type.dtype) == v->type.dtype) return v;
    Type wide = v->type;
    wide.dtype = master_type(wide.dtype);
    Value* const narrow = graph_.emit("Cast", "", 13, {v}, v->type, graph_.nodes().front().get());
    narrow->producer->name = name + " as it is saved";
    narrow->producer->set("to", static_cast<int64_t>(v->type.dtype));
    graph_.replace_uses(v, narrow);
    graph_.set_input(narrow->producer, 0, v);
    v->type = wide;
    return v;
  }
  Value* make(const std::string& name) {
    Value* v = value_named(graph_, name);
    if (!v || !v->is_constant()) fail(Code::kInvalidArgument, "the model has no weight \"", name, "\"");
    v->name = "";
    Value* input = graph_.add_input(name, v->type);
    graph_.replace_uses(v, input);
    return input;
  }

 private:
  Graph& graph_;
};

Type target_type(Graph& g, const Type& prediction, const LossSpec& loss) {
  if (loss.name == "ctc") {
    const auto time_first = loss.options.find("time_first");
    const bool second = time_first != loss.options.end() && time_first->second != 0;
    const bool known = prediction.ranked && prediction.shape.rank() == 3;
    return Type::tensor(DType::kInt64, Shape{known ? prediction.shape[second ? 1 : 0] : g.symbols().fresh(), g.symbols().fresh()});
  }
  Type t = prediction;
  t.dtype = loss.labels ? DType::kInt64 : master_type(prediction.dtype);
  if (!loss.labels) return t;
  if (t.ranked && t.shape.rank() > 1) t.shape.erase(1);
  return t;
}

}  // namespace

namespace {

struct Weights {
  std::vector<std::string> names, scalars, computed;
};

Weights weights_in(const Model& model) {
  const std::shared_ptr<Graph> copy = model.graph->clone();
  capture_constants(*copy);
  const Graph& g = *copy;
  Weights found;
  for (int id = 0; id < g.num_values(); ++id) {
    const Value* v = g.value(id);
    if (!v || !is_float_weight(v) || v->uses.empty()) continue;
    if (std::any_of(v->uses.begin(), v->uses.end(), is_setting) || is_mask(v)) continue;
    const bool scalar = v->constant.shape().rank() == 0;
    if (!v->computed || !scalar) (v->computed ? found.computed : scalar ? found.scalars : found.names).push_back(v->name);
  }
  return found;
}

}  // namespace

std::vector<std::string> trainable_weights(const Model& model) {
  Weights w = weights_in(model);
  // Tables and masks that a module wrote into its forward are no weights, and most scalars no more so, unless nothing else is.
  return !w.names.empty() ? w.names : !w.scalars.empty() ? w.scalars : w.computed;
}

std::vector<std::string> scalar_weights(const Model& model) { return weights_in(model).scalars; }

namespace {

// Do its results have any size?
bool is_affine(const Node* n) {
  if (n && n->is("Add"))
    return std::any_of(n->inputs.begin(), n->inputs.end(), [](const Value* v) { return v && v->producer && v->producer->is("MatMul"); });
  return n && (n->is("Gemm") || n->is("MatMul") || n->is("Conv"));
}

// A copy of the model's graph, typed, in which what has no gradient but stands for others that have is written as those.
std::shared_ptr<Graph> differentiable_graph(const Model& model) {
  std::shared_ptr<Graph> g = model.graph->clone();
  capture_constants(*g);
  make_differentiable(*g);
  return g;
}

Value* output_of(Graph& g, const std::string& name) {
  if (g.outputs().empty()) fail(Code::kInvalidArgument, "the model has no output");
  if (name.empty()) return g.outputs()[0];
  for (Value* v : g.outputs()) if (v->name == name) return v;
  fail(Code::kInvalidArgument, "the model has no output \"", name, "\"");
}

// What cross_entropy and ctc take: of a model that ends in a softmax over the classes, its operand.
Value* scores_of(GraphWriter& w, const TrainingOptions& o, Value* prediction) {
  const Node* n = prediction->producer;
  const bool ctc = o.loss.name == "ctc";
  if ((o.loss.name != "cross_entropy" && !ctc) || !n || !n->is("Softmax") || !w.ranked(prediction)) return prediction;
  const int rank = w.shape(prediction).rank();
  int64_t axis = n->attr_int("axis", n->opset < 13 ? 1 : -1);
  if (axis < 0) axis += rank;
  const int64_t classes = ctc ? rank - 1 : 1;
  return axis == classes && (n->opset >= 13 || axis == rank - 1) ? n->inputs[0] : prediction;
}

Value* add_loss(GraphWriter& w, const TrainingOptions& o, Value* prediction, Value* target) {
  prediction = scores_of(w, o, prediction);
  w.name = "loss";
  if (const DType wide = master_type(w.dtype(prediction)); wide != w.dtype(prediction)) prediction = w.op("Cast", {prediction}, {{"to", static_cast<int64_t>(wide)}});
  Value* loss = build_loss(w, o.loss, prediction, target);
  if (w.ranked(loss) && w.shape(loss).rank() != 0)
    fail(Code::kInvalidArgument, "a training step needs one loss, but this one is ", w.type(loss).str(), ": take the reduction mean or sum");
  loss->name = "loss";
  return loss;
}

}  // namespace

StepGraph build_step(const Model& model, const TrainingOptions& o) {
  check_optimizer(o);
  StepGraph r;
  r.nan_targets = o.loss.options.count("ignore_nan") && o.loss.options.at("ignore_nan") != 0;
  r.step = differentiable_graph(model);
  Graph& g = *r.step;
  r.num_inputs = static_cast<int>(g.inputs().size());
  Value* prediction = output_of(g, o.output);
  if (o.loss.name == "binary_cross_entropy" && is_affine(prediction->producer))
    r.notes.push_back(cat("binary_cross_entropy takes probabilities, but the output \"", prediction->name, "\" comes from ", prediction->producer->label(),
                          ": a Sigmoid belongs behind it, or the loss is binary_cross_entropy_with_logits"));
  Value* const target = g.add_input("target", target_type(g, prediction->type, o.loss));
  r.states = o.trainable.empty() ? trainable_weights(model) : o.trainable;
  if (r.states.empty()) fail(Code::kInvalidArgument, "the model has no weights to train: no float initializers that are no settings");
  r.num_weights = static_cast<int>(r.states.size());
  for (const auto& [name, own] : o.groups)
    if (std::find(r.states.begin(), r.states.end(), name) == r.states.end())
      fail(Code::kInvalidArgument, "a group names \"", name, "\", which is not trained");
  std::vector<Value*> weights;
  Inputs inputs(g);
  for (const std::string& name : r.states) weights.push_back(inputs.weight(name));
  for (const std::string& name : statistics_of(g)) {
    r.states.push_back(name);
    inputs.weight(name);
  }

  r.evaluate = g.clone();
  {
    GraphWriter w(*r.evaluate);
    Value* const loss = add_loss(w, o, output_of(*r.evaluate, o.output), r.evaluate->inputs()[static_cast<size_t>(r.num_inputs)]);
    r.evaluate->add_output(loss);
  }

  fuse_activations(g);  // a gradient of the whole keeps the argument alone
  g.erase_dead();
  infer_graph(g);
  prediction = output_of(g, o.output);
  Value* const step = g.add_input("tiercel_step", Type::tensor(DType::kInt64, Shape{}));
  for (size_t i = static_cast<size_t>(r.num_weights); i < r.states.size(); ++i) {
    Value* const master = value_named(g, r.states[i]);
    std::vector<Value*> rounded;
    for (const Use& use : master->uses)
      if (use.node->is("Cast") && master_type(use.node->output()->type.dtype) == master->type.dtype) rounded.push_back(use.node->output());
    for (Value* v : rounded) read_masters(g, v, master);
  }
  const Statistics after = to_training_mode(g, step, o.seed, r.notes);
  GraphWriter w(g);
  Value* const loss = add_loss(w, o, prediction, target);
  g.clear_outputs();
  g.add_output(loss);
  const Node* const forward_end = g.nodes().back().get();
  UpdateWriter updates(w, o, weights, step, loss, r.updates, r.checks);
  const GradientSeed seed{loss, nullptr};
  const std::vector<WeightGradient> grads = with_rows(w, weights, gradients(w, {&seed, 1}, weights));
  bool any = false;
  for (size_t i = 0; i < grads.size(); ++i) {
    any |= static_cast<bool>(grads[i]);
    if (grads[i]) continue;
    const Node* const n = rounded_by(weights[i], loss);
    const std::string why = n ? cat("as the slope of ", n->label(), " on its way to the loss is zero everywhere") : std::string();
    if (n && o.trainable.empty()) r.notes.push_back(cat("the weight \"", r.states[i], "\" stays as it is, ", why));
    if (o.trainable.empty()) continue;
    if (n) fail(Code::kInvalidArgument, "the weight \"", r.states[i], "\" has no gradient, ", why);
    fail(Code::kInvalidArgument, "the loss does not depend on the weight \"", r.states[i], "\"");
  }
  if (!any) fail(Code::kInvalidArgument, "the loss depends on none of the model's weights");
  for (size_t i = 0; i < grads.size(); ++i)
    if (grads[i]) r.graded.push_back(i), g.add_output(grads[i].value);
  r.whole = g.clone();
  g.clear_outputs();
  g.add_output(loss);
  for (const auto& [before, now] : after) {
    const auto at = std::find(g.inputs().begin(), g.inputs().end(), before);
    if (at == g.inputs().end()) continue;
    r.updates.push_back({static_cast<int>(at - g.inputs().begin()), false});
    g.add_output(now);
  }
  updates.add(grads);
  if (o.accumulate) build_apply(r, o, weights, grads);
  recompute(g, forward_end, o.recompute);
  return r;
}

Model gradient_model(const Model& model, const std::vector<std::string>& outputs, const std::vector<std::string>& wrt) {
  Model m = model;
  m.graph = differentiable_graph(model);
  Graph& g = *m.graph;
  GraphWriter w(g);
  std::vector<GradientSeed> seeds;
  for (Value* v : g.outputs())
    if (outputs.empty() || std::find(outputs.begin(), outputs.end(), v->name) != outputs.end()) seeds.push_back({v, nullptr});
  for (const std::string& name : outputs) output_of(g, name);
  std::vector<Value*> values;
  for (const std::string& name : wrt) {
    values.push_back(value_named(g, name));
    if (!values.back()) fail(Code::kInvalidArgument, "the model has no value \"", name, "\"");
  }
  const std::vector<Value*> grads = gradients(w, seeds, values);
  for (size_t i = 0; i < grads.size(); ++i) {
    Value* v = grads[i] ? grads[i] : w.zeros_like(values[i]);
    v = w.op("Identity", {v});  // a value of its own: one may be the gradient of two
    v->name = "gradient of " + wrt[i];
    g.add_output(v);
  }
  return m;
}

}  // namespace tiercel

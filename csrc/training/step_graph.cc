#include "training/step_graph.h"

#include <algorithm>
#include <sstream>

#include "autodiff/gradients.h"
#include "ops/infer_graph.h"
#include "ops/registry.h"
#include "passes/basic.h"
#include "passes/expand.h"
#include "passes/fuse_activations.h"
#include "training/masters.h"
#include "training/row_gradient.h"
#include "training/training_mode.h"

namespace tiercel {
namespace {

struct OptimizerRow {
  const char* name;
  const char* op;
  bool m, v;
  const char* options;
};
constexpr OptimizerRow kOptimizers[] = {
    {"sgd", "Sgd", false, false, "weight_decay"},
    {"momentum", "Momentum", true, false, "momentum nesterov weight_decay"},
    {"rmsprop", "RMSprop", true, true, "momentum beta2 epsilon weight_decay"},
    {"adagrad", "Adagrad", false, true, "epsilon weight_decay lr_decay"},
    {"adam", "Adam", true, true, "beta1 beta2 epsilon weight_decay lazy"},
    {"adamw", "AdamW", true, true, "beta1 beta2 epsilon weight_decay lazy"},
    {"lion", "Lion", true, false, "beta1 beta2 weight_decay"},
};

const OptimizerRow& optimizer_row(const OptimizerSpec& spec) {
  std::string names;
  for (const OptimizerRow& row : kOptimizers) {
    names += cat(names.empty() ? "" : ", ", row.name);
    if (spec.name != row.name) continue;
    for (const auto& [key, value] : spec.options) {
      std::istringstream known(row.options);
      bool found = false;
      for (std::string word; known >> word;) found |= word == key;
      if (!found) fail(Code::kInvalidArgument, "optimizer ", row.name, " has no option \"", key, "\"; it has: ", row.options);
    }
    return row;
  }
  fail(Code::kInvalidArgument, "there is no optimizer \"", spec.name, "\"; there are: ", names);
}

Value* value_named(const Graph& g, const std::string& name) {
  for (int id = 0; id < g.num_values(); ++id)
    if (Value* v = g.value(id); v && v->name == name) return v;
  return nullptr;
}

bool is_float_weight(const Value* v) {
  return v->is_constant() && is_float_type(v->constant.dtype()) && !v->name.empty();
}

// InstanceNormalization between two Reshapes, which exporters write for GroupNormalization: its scale and bias are ones and zeros, the weights follow.
bool is_within_group_norm(const Node& n) {
  const auto is_reshape = [](const Node* other) { return other && other->is("Reshape"); };
  const Value* const x = n.input(0);
  const Value* const y = n.output();
  return n.is("InstanceNormalization") && x && is_reshape(x->producer) && y && y->has_one_use() && is_reshape(y->uses[0].node);
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
    if (std::any_of(v->uses.begin(), v->uses.end(), is_setting)) continue;
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

// A scalar in the types of the parameters that read it.
class Scalars {
 public:
  Scalars(GraphWriter& w, Value* v) : w_(w), v_(v) {}
  Value* as(DType t) {
    if (!v_ || w_.dtype(v_) == t) return v_;
    Value*& made = made_[t];
    if (!made) made = w_.op("Cast", {v_}, {{"to", static_cast<int64_t>(t)}});
    return made;
  }

 private:
  GraphWriter& w_;
  Value* v_;
  std::map<DType, Value*> made_;
};

int input_index(const Graph& g, const Value* v) { return static_cast<int>(std::find(g.inputs().begin(), g.inputs().end(), v) - g.inputs().begin()); }

// The scalars that updates read, in the types of the parameters; made before the gradients, so that an update need not wait for them.
struct Scalings {
  GraphWriter& w;
  Value* const lr;
  Scalars guard;                    // of a null value: none
  std::map<double, Scalars> rates;  // by factor of the learning rate
  Scalings(GraphWriter& writer, Value* loss) : w(writer), lr(w.input("tiercel_lr", Type::tensor(DType::kDouble, Shape{}))), guard(w, loss) {}
  Value* rate(DType t, double factor) {
    if (!rates.count(factor)) rates.try_emplace(factor, w, w.scale(lr, factor));
    return rates.at(factor).as(t);
  }
};

bool is_lazy(const OptimizerSpec& spec) {
  const auto it = spec.options.find("lazy");
  return it != spec.options.end() && it->second != 0;
}

WeightOptions options_of(const TrainingOptions& o, const Value* weight) {
  const auto it = o.groups.find(weight->name);
  return it == o.groups.end() ? WeightOptions{} : it->second;
}

AttributeList optimizer_attributes(const TrainingOptions& o, const WeightOptions& own) {
  std::map<std::string, double> options = o.optimizer.options;
  if (own.weight_decay) options["weight_decay"] = *own.weight_decay;
  AttributeList attributes;
  for (const auto& [key, value] : options) {  // the names that the rows hold outlive the list
    for (const char* known : {"momentum", "beta1", "beta2", "epsilon", "weight_decay", "lr_decay"})
      if (key == known) attributes.emplace_back(known, static_cast<float>(value));
    if (key == "nesterov") attributes.emplace_back("nesterov", int64_t{value != 0});
  }
  return attributes;
}

// Weights of one type and of equal settings, which one node updates.
struct Bucket {
  DType dtype;
  WeightOptions own;
  std::vector<size_t> members;
  int64_t bytes = 0;
};
// A bucket is full when its gradients take this much. A large weight is updated as soon as its gradient is there, so that not all
// gradients live at once; many small ones cost one node.
constexpr int64_t kBucketBytes = 1 << 20;

// In the order in which gradients come to be; gradients of rows are not among them.
std::vector<Bucket> buckets_of(const Graph& g, const TrainingOptions& o, const std::vector<Value*>& weights, const std::vector<WeightGradient>& grads,
                               int64_t most) {
  std::map<const Node*, size_t> places;
  for (const auto& n : g.nodes()) places.emplace(n.get(), places.size());
  std::vector<std::pair<size_t, size_t>> order;
  for (size_t i = 0; i < weights.size(); ++i)
    if (const Value* const v = grads[i].value; v && !grads[i].rows) order.emplace_back(v->producer ? places.at(v->producer) : 0, i);
  std::sort(order.begin(), order.end());
  std::vector<Bucket> buckets;
  for (const auto& [place, i] : order) {
    const WeightOptions own = options_of(o, weights[i]);
    const Type& t = weights[i]->type;
    auto open = std::find_if(buckets.begin(), buckets.end(), [&](const Bucket& b) {
      return b.dtype == t.dtype && b.own.lr == own.lr && b.own.weight_decay == own.weight_decay && b.bytes < most;
    });
    if (open == buckets.end()) open = buckets.insert(open, {t.dtype, own, {}, 0});
    open->members.push_back(i);
    open->bytes += bytes_of(t.dtype, t.shape.count());
  }
  return buckets;
}

// An update of a list of weights: its outputs are those of the graph, in place of `replaced`, which are inputs of it.
void add_update(GraphWriter& w, std::vector<StepGraph::Update>& updates, const char* op, std::vector<Value*> scalars, const std::vector<Value*>& parameters,
                const std::vector<Value*>& grads, const std::vector<Value*>& moments, AttributeList attributes) {
  std::vector<Value*> in = std::move(scalars);
  in.resize(4, nullptr);
  for (const auto* list : {&parameters, &grads, &moments}) in.insert(in.end(), list->begin(), list->end());
  for (const auto* list : {&parameters, &moments})
    for (const Value* v : *list) updates.push_back({input_index(w.graph(), v), true});
  w.name = cat("update ", parameters[0]->name, parameters.size() > 1 ? cat(" and ", parameters.size() - 1, " more") : std::string());
  for (Value* out : w.ops(op, std::move(in), static_cast<int>(parameters.size() + moments.size()), std::move(attributes), kTiercelDomain))
    w.graph().add_output(out);
}

// The same of one weight whose gradient is of rows.
void add_row_update(GraphWriter& w, std::vector<StepGraph::Update>& updates, const char* op, std::vector<Value*> scalars, Value* parameter,
                    const WeightGradient& grad, const std::vector<Value*>& moments, AttributeList attributes) {
  add_update(w, updates, cat(op, "Rows").c_str(), std::move(scalars), {parameter}, {grad.rows, grad.value}, moments, std::move(attributes));
}

std::vector<Value*> moments_of(GraphWriter& w, const OptimizerRow& row, const std::vector<Value*>& parameters) {
  std::vector<Value*> moments;
  for (const bool first : {true, false})
    if (first ? row.m : row.v)
      for (const Value* p : parameters) moments.push_back(w.input(cat(first ? "tiercel_m " : "tiercel_v ", p->name), w.type(p)));
  return moments;
}

// Appends the optimiser: its moments become inputs, what it makes outputs. Nothing changes where the guard (if any) is not finite. `scale`
// (a double, may be null) multiplies the gradients.
void add_optimizer(GraphWriter& w, std::vector<StepGraph::Update>& updates, const TrainingOptions& o, const std::vector<Value*>& weights,
                   std::vector<WeightGradient> grads, Scalings& scalings, Value* step, Value* scale) {
  const OptimizerRow& row = optimizer_row(o.optimizer);
  w.name = "clip_gradients";
  if (o.clip_value > 0) {
    Scalars factor(w, scale);
    for (WeightGradient& grad : grads) {
      Value*& g = grad.value;
      if (!g) continue;
      if (scale) g = w.mul(g, factor.as(w.dtype(g)));
      g = w.op("Clip", {g, w.scalar_like(-o.clip_value, g), w.scalar_like(o.clip_value, g)});
    }
    scale = nullptr;
  }
  if (o.clip_norm > 0) {
    std::vector<Value*> in{scale};
    for (const WeightGradient& g : grads) if (g) in.push_back(g.value);
    scale = w.op("ClipScale", std::move(in), {{"max_norm", static_cast<float>(o.clip_norm)}}, kTiercelDomain);
  }
  Scalars factor(w, scale);
  for (const Value* p : weights) {  // casts stand before all updates
    factor.as(w.dtype(p));
    scalings.guard.as(w.dtype(p));
    scalings.rate(w.dtype(p), options_of(o, p).lr);
  }
  for (const Bucket& b : buckets_of(w.graph(), o, weights, grads, o.clip_norm > 0 || o.accumulate ? INT64_MAX : kBucketBytes)) {
    std::vector<Value*> parameters, gradients;
    for (const size_t i : b.members) {
      parameters.push_back(weights[i]);
      gradients.push_back(grads[i].value);
    }
    add_update(w, updates, row.op, {scalings.rate(b.dtype, b.own.lr), step, scalings.guard.as(b.dtype), factor.as(b.dtype)}, parameters, gradients,
               moments_of(w, row, parameters), optimizer_attributes(o, b.own));
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!grads[i].rows) continue;
    const WeightOptions own = options_of(o, weights[i]);
    const DType t = w.dtype(weights[i]);
    AttributeList attributes = optimizer_attributes(o, own);
    if (is_lazy(o.optimizer)) attributes.emplace_back("lazy", int64_t{1});
    add_row_update(w, updates, row.op, {scalings.rate(t, own.lr), step, scalings.guard.as(t), factor.as(t)}, weights[i], grads[i],
                   moments_of(w, row, {weights[i]}), std::move(attributes));
  }
}

// Appends sums of gradients: an Sgd whose rate is minus the share of the batch.
void add_sums(GraphWriter& w, StepGraph& r, const std::vector<Value*>& weights, const std::vector<WeightGradient>& grads, Scalings& scalings, Value* step) {
  const auto sum_of = [&](size_t i) { return w.input("tiercel_g " + weights[i]->name, w.type(weights[i])); };
  const auto scalars = [&](DType t) { return std::vector<Value*>{scalings.rate(t, 1), step, scalings.guard.as(t)}; };
  for (const Bucket& b : buckets_of(w.graph(), {}, weights, grads, kBucketBytes)) {
    std::vector<Value*> sums, gradients;
    for (const size_t i : b.members) {
      sums.push_back(sum_of(i));
      gradients.push_back(grads[i].value);
    }
    add_update(w, r.updates, "Sgd", scalars(b.dtype), sums, gradients, {}, {});
  }
  for (size_t i = 0; i < weights.size(); ++i)
    if (grads[i].rows) add_row_update(w, r.updates, "Sgd", scalars(w.dtype(weights[i])), sum_of(i), grads[i], {}, {});
}

void build_apply(StepGraph& r, const TrainingOptions& o, const std::vector<Value*>& weights, const std::vector<WeightGradient>& grads) {
  r.apply = std::make_shared<Graph>();
  r.apply->opsets = r.step->opsets;
  GraphWriter w(*r.apply);
  Value* const step = w.input("tiercel_step", Type::tensor(DType::kInt64, Shape{}));
  Value* const scale = w.input("tiercel_scale", Type::tensor(DType::kDouble, Shape{}));
  std::vector<Value*> parameters;
  std::vector<WeightGradient> sums;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (!grads[i]) continue;
    parameters.push_back(w.input(weights[i]->name, weights[i]->type));
    sums.push_back({w.input("tiercel_g " + weights[i]->name, weights[i]->type), nullptr});
  }
  Scalings scalings(w, nullptr);
  add_optimizer(w, r.apply_updates, o, parameters, sums, scalings, step, scale);
}

}  // namespace

StepGraph build_step(const Model& model, const TrainingOptions& o) {
  optimizer_row(o.optimizer);  // or an error
  if (is_lazy(o.optimizer) && o.accumulate)
    fail(Code::kInvalidArgument, "lazy updates are of the rows that one batch has: they do not go with accumulate, which adds up whole gradients");
  StepGraph r;
  r.step = differentiable_graph(model);
  Graph& g = *r.step;
  r.num_inputs = static_cast<int>(g.inputs().size());
  Value* prediction = output_of(g, o.output);
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
    inputs.make(name);
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
  const Statistics after = to_training_mode(g, step, o.seed, r.notes);
  GraphWriter w(g);
  Value* const loss = add_loss(w, o, prediction, target);
  g.clear_outputs();
  g.add_output(loss);
  r.forward = g.clone();
  const Node* const forward_end = g.nodes().back().get();
  Scalings scalings(w, loss);
  for (const Value* p : weights) {
    scalings.guard.as(w.dtype(p));
    scalings.rate(w.dtype(p), o.accumulate ? 1 : options_of(o, p).lr);
  }
  const GradientSeed seed{loss, nullptr};
  const std::vector<WeightGradient> grads = with_rows(w, weights, gradients(w, {&seed, 1}, weights));
  bool any = false;
  for (size_t i = 0; i < grads.size(); ++i) {
    any |= static_cast<bool>(grads[i]);
    if (!grads[i] && !o.trainable.empty()) fail(Code::kInvalidArgument, "the loss does not depend on the weight \"", r.states[i], "\"");
  }
  if (!any) fail(Code::kInvalidArgument, "the loss depends on none of the model's weights");
  for (const auto& [before, now] : after) {
    const auto at = std::find(g.inputs().begin(), g.inputs().end(), before);
    if (at == g.inputs().end()) continue;
    r.updates.push_back({static_cast<int>(at - g.inputs().begin()), false});
    g.add_output(now);
  }
  if (o.accumulate) {
    add_sums(w, r, weights, grads, scalings, step);
    build_apply(r, o, weights, grads);
  } else {
    add_optimizer(w, r.updates, o, weights, grads, scalings, step, nullptr);
  }
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

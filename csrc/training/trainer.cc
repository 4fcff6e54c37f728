#include "training/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

namespace tiercel {
namespace {

Tensor copy_of(const Tensor& t) {
  Tensor c(t.dtype(), t.shape());
  if (t.bytes()) std::memcpy(c.data(), t.data(), static_cast<size_t>(t.bytes()));
  return c;
}

double scalar_of(const RuntimeValue& v) {
  const Tensor& t = v.tensor();
  return t.doubles().at(0);
}

Model with_graph(const Model& like, std::shared_ptr<Graph> graph) {
  Model m = like;
  m.graph = std::move(graph);
  return m;
}

bool all_finite(const Tensor& t) {
  if (t.dtype() == DType::kFloat) return std::all_of(t.as<float>(), t.as<float>() + t.count(), [](float x) { return std::isfinite(x); });
  if (t.dtype() == DType::kDouble) return std::all_of(t.as<double>(), t.as<double>() + t.count(), [](double x) { return std::isfinite(x); });
  return true;
}

}  // namespace

TrainingSession::TrainingSession(Model model, const TrainingOptions& options, const SessionOptions& session)
    : model_(std::move(model)), graph_(build_step(model_, options)), options_(session) {
  const Graph& g = *model_.graph;
  std::map<std::string, const Value*> constants;
  for (int id = 0; id < g.num_values(); ++id)
    if (const Value* v = g.value(id); v && v->is_constant()) constants[v->name] = v;
  for (const std::string& name : graph_.states) {
    names_.push_back(name);
    states_.push_back(copy_of(constants.at(name)->constant));
  }
  const std::vector<Value*>& in = graph_.step->inputs();
  for (size_t i = static_cast<size_t>(graph_.num_inputs) + 1 + states_.size() + 2; i < in.size(); ++i) {
    names_.push_back(in[i]->name);
    Tensor zeros(in[i]->type.dtype, in[i]->type.shape);
    if (zeros.bytes()) std::memset(zeros.data(), 0, static_cast<size_t>(zeros.bytes()));
    states_.push_back(zeros);
  }
  step_ = std::make_unique<Session>(with_graph(model_, graph_.step), options_);
  in_.resize(step_->inputs().size());
  out_.resize(step_->outputs().size());
}

double TrainingSession::step(std::span<const RuntimeValue> batch, double lr) {
  const size_t given = static_cast<size_t>(graph_.num_inputs) + 1, states = graph_.states.size();
  if (batch.size() != given) fail(Code::kInvalidArgument, "a step takes ", given, " arrays, the model's inputs and the target; got ", batch.size());
  const auto state_of = [&](size_t input) { return states_[input < given + states ? input - given : input - given - 2]; };
  for (size_t i = 0; i < in_.size(); ++i) in_[i] = i < given ? batch[i] : i < given + states || i >= given + states + 2 ? RuntimeValue(state_of(i)) : in_[i];
  in_[given + states] = Tensor::of<int64_t>({}, {steps_ + 1});
  in_[given + states + 1] = Tensor::of<double>({}, {lr});
  out_.assign(out_.size(), {});
  for (size_t i = 0; i < graph_.updates.size(); ++i)
    if (graph_.updates[i].in_place) out_[i + 1] = in_[static_cast<size_t>(graph_.updates[i].input)];
  step_->run(in_, out_);
  const double loss = scalar_of(out_[0]);
  if (!std::isfinite(loss)) report_not_finite(batch);
  for (size_t i = 0; i < graph_.updates.size(); ++i) {
    if (graph_.updates[i].in_place) continue;
    const Tensor to = state_of(static_cast<size_t>(graph_.updates[i].input));
    std::memcpy(to.data(), out_[i + 1].tensor().data(), static_cast<size_t>(to.bytes()));
  }
  ++steps_;
  return loss;
}

Session& TrainingSession::evaluation() {
  if (!evaluation_) evaluation_ = std::make_unique<Session>(with_graph(model_, graph_.evaluate), options_);
  return *evaluation_;
}

double TrainingSession::evaluate(std::span<const RuntimeValue> batch, std::vector<RuntimeValue>* outputs) {
  const size_t given = static_cast<size_t>(graph_.num_inputs) + 1;
  if (batch.size() != given) fail(Code::kInvalidArgument, "evaluation takes ", given, " arrays, the model's inputs and the target; got ", batch.size());
  Session& s = evaluation();
  std::vector<RuntimeValue> in(batch.begin(), batch.end()), out(s.outputs().size());
  for (size_t i = 0; i < graph_.states.size(); ++i) in.emplace_back(states_[i]);
  s.run(in, out);
  const double loss = scalar_of(out.back());
  out.pop_back();
  if (outputs) *outputs = std::move(out);
  return loss;
}

// Every float of the forward pass becomes an output, unoptimised, and the first that is not finite is named.
void TrainingSession::report_not_finite(std::span<const RuntimeValue> batch) {
  const std::shared_ptr<Graph> g = graph_.forward->clone();
  std::vector<std::string> labels{""};
  for (const auto& n : g->nodes())
    for (Value* v : n->outputs)
      if (v && v->type.is_tensor() && (v->type.dtype == DType::kFloat || v->type.dtype == DType::kDouble) && !v->graph_output_uses) {
        labels.push_back(n->label() + ", result \"" + v->name + "\"");
        g->add_output(v);
      }
  SessionOptions plain = options_;
  plain.optimization_level = 0;
  Session s(with_graph(model_, g), plain);
  std::vector<RuntimeValue> in(batch.begin(), batch.end()), out(s.outputs().size());
  for (size_t i = 0; i < graph_.states.size(); ++i) in.emplace_back(states_[i]);
  in.emplace_back(Tensor::of<int64_t>({}, {steps_ + 1}));
  std::string where = "the loss itself";
  for (size_t i = 0; i < batch.size(); ++i)
    if (!all_finite(batch[i].tensor()))
      fail(Code::kRuntimeException, "step ", steps_ + 1, ": the loss is not finite, as input \"", step_->inputs()[i].name, "\" is not; the weights are unchanged");
  for (size_t i = 0; i < graph_.states.size(); ++i)
    if (!all_finite(states_[i]))
      fail(Code::kRuntimeException, "step ", steps_ + 1, ": the loss is not finite, as the weight \"", names_[i],
           "\" is not: an earlier step made it so (a smaller learning rate or clip_norm may help)");
  s.run(in, out);
  for (size_t i = 1; i < out.size(); ++i)
    if (!all_finite(out[i].tensor())) { where = labels[i]; break; }
  fail(Code::kRuntimeException, "step ", steps_ + 1, ": the loss is not finite; the first result that is not: ", where, ". The weights are unchanged");
}

std::vector<std::pair<std::string, Tensor>> TrainingSession::state() const {
  std::vector<std::pair<std::string, Tensor>> all;
  for (size_t i = 0; i < states_.size(); ++i) all.emplace_back(names_[i], states_[i]);
  return all;
}

Model TrainingSession::model() const {
  Model m = with_graph(model_, model_.graph->clone());
  std::map<std::string, Tensor> now;
  for (size_t i = 0; i < graph_.states.size(); ++i) now[names_[i]] = states_[i];
  for (int id = 0; id < m.graph->num_values(); ++id)
    if (Value* v = m.graph->value(id); v && v->is_constant())
      if (const auto it = now.find(v->name); it != now.end()) v->constant = copy_of(it->second);
  return m;
}

RuntimeValue loss_value(const LossSpec& spec, const Tensor& prediction, const Tensor& target) {
  Model m;
  m.graph = std::make_shared<Graph>();
  m.graph->opsets[""] = 21;
  GraphWriter w(*m.graph);
  Value* p = w.input("prediction", Type::tensor(prediction.dtype(), prediction.shape()));
  Value* t = w.input("target", Type::tensor(target.dtype(), target.shape()));
  m.graph->add_output(build_loss(w, spec, p, t));
  Session s(std::move(m));
  const std::vector<RuntimeValue> in{prediction, target};
  std::vector<RuntimeValue> out(1);
  s.run(in, out);
  return out[0];
}

}  // namespace tiercel

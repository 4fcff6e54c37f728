#include "training/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "autodiff/gradients.h"
#include "ops/gradient_check.h"
#include "ops/registry.h"
#include "passes/basic.h"
#include "passes/passes.h"
#include "training/masters.h"

namespace tiercel {
namespace {

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
  if (t.dtype() == DType::kDouble) return std::all_of(t.as<double>(), t.as<double>() + t.count(), [](double x) { return std::isfinite(x); });
  if (!is_float_type(t.dtype())) return true;
  Tensor wide = t;
  if (t.dtype() != DType::kFloat) copy_widened(t, wide = Tensor(DType::kFloat, t.shape()));
  return std::all_of(wide.as<float>(), wide.as<float>() + t.count(), [](float x) { return std::isfinite(x); });
}

// The small constants of a model that was read from bytes get memory of their own: those bytes then go as soon as no large one needs them.
Model own_small_constants(Model m) {
  constexpr int64_t kSmall = 1 << 20;
  m = with_graph(m, m.graph->clone());
  m.again = nullptr;
  capture_constants(*m.graph);  // so model() need replace no copies in bodies
  const auto own = [](Tensor& t) {
    if (!t.defined() || t.dtype() == DType::kString || t.bytes() > kSmall) return;
    Tensor copy(t.dtype(), t.shape());
    if (t.bytes()) t.read(0, t.bytes(), copy.data());
    t = copy;
  };
  for_each_graph(*m.graph, [&](Graph& g) {
    for (int id = 0; id < g.num_values(); ++id)
      if (Value* v = g.value(id); v && v->is_constant()) own(v->constant);
    for (const auto& n : g.nodes())
      for (auto& [key, a] : n->attributes)
        if (auto* t = std::get_if<Tensor>(&a)) own(*t);
  });
  return m;
}

}  // namespace

TrainingSession::TrainingSession(Model model, const TrainingOptions& options, const SessionOptions& session, std::optional<Adapters> adapters)
    : model_(own_small_constants(std::move(model))), graph_(build_step(model_, options)), adapters_(std::move(adapters)), options_(session) {
  std::map<std::string, Value*> constants;
  for (int id = 0; id < model_.graph->num_values(); ++id)
    if (Value* v = model_.graph->value(id); v && v->is_constant()) constants[v->name] = v;
  std::vector<std::pair<std::string, Type>> states;
  for (const std::string& name : graph_.states) {
    const Tensor& t = constants.at(name)->constant;
    states.emplace_back(name, Type::tensor(master_type(t.dtype()), t.shape()));
  }
  add_states(states);
  for (const auto& g : {graph_.step, graph_.evaluate, graph_.whole}) g->erase_dead();  // what became inputs is held by the states alone
  for (size_t i = 0; i < states_.size(); ++i) {
    Tensor& from = constants.at(names_[i])->constant;
    copy_widened(from, states_[i]);
    from = Tensor(from.dtype(), from.shape(), nullptr, nullptr);
  }
  states.clear();
  for (const auto& graph : {graph_.step, graph_.apply})
    for (const Value* v : graph ? graph->inputs() : std::vector<Value*>())
      if ((v->name.starts_with("tiercel_m ") || v->name.starts_with("tiercel_v ") || v->name.starts_with("tiercel_g ")) &&
          std::none_of(states.begin(), states.end(), [&](const auto& s) { return s.first == v->name; }))
        states.emplace_back(v->name, v->type);
  add_states(states);
  for (int id = 0; id < model_.graph->num_values(); ++id)
    if (const Value* v = model_.graph->value(id); v && v->is_constant())
      if (const auto it = index_.find(v->name); it != index_.end() && states_[it->second].dtype() != v->constant.dtype()) stored_[v->name] = v->constant.dtype();
  step_ = make_run(graph_.step);
  if (graph_.apply) apply_ = make_run(graph_.apply);
}

// One block of zeros for all of them, each on a cache line of its own.
void TrainingSession::add_states(std::span<const std::pair<std::string, Type>> states) {
  int64_t bytes = 0;
  for (const auto& [name, type] : states) bytes += round_up(bytes_of(type.dtype, type.shape.count()), kAlignment);
  if (!bytes) bytes = kAlignment;
  const Buffer block = allocate(static_cast<size_t>(bytes));
  std::memset(block.get(), 0, static_cast<size_t>(bytes));
  char* at = static_cast<char*>(block.get());
  for (const auto& [name, type] : states) {
    index_[name] = states_.size();
    names_.push_back(name);
    states_.emplace_back(type.dtype, type.shape, at, block);
    at += round_up(states_.back().bytes(), kAlignment);
  }
}

TrainingSession::Run TrainingSession::make_run(const std::shared_ptr<Graph>& graph) {
  Run r{std::make_unique<Session>(with_graph(model_, graph), options_), {}};
  for (const IoInfo& info : r.session->inputs()) {
    const auto state = index_.find(info.name);
    r.sources.push_back(info.name == "tiercel_lr" ? kRate : info.name == "tiercel_step" ? kStep : info.name == "tiercel_scale" ? kScale
                        : state != index_.end() ? static_cast<int>(state->second) : kGiven);
  }
  if (graph == graph_.step) std::fill_n(r.sources.begin(), graph_.num_inputs + 1, static_cast<int>(kGiven));
  return r;
}

void TrainingSession::run(Run& r, const Updates& updates, size_t first_update, double lr, int64_t step, double scale) {
  in_.resize(r.sources.size());
  for (size_t i = 0; i < r.sources.size(); ++i) {
    const int source = r.sources[i];
    if (source == kRate) in_[i] = Tensor::of<double>({}, {lr});
    else if (source == kStep) in_[i] = Tensor::of<int64_t>({}, {step});
    else if (source == kScale) in_[i] = Tensor::of<double>({}, {scale});
    else if (source >= 0) in_[i] = RuntimeValue(states_[static_cast<size_t>(source)]);
  }
  out_.assign(r.session->outputs().size(), {});
  for (size_t i = 0; i < updates.size(); ++i)
    if (updates[i].in_place) out_[i + first_update] = in_[static_cast<size_t>(updates[i].input)];
  r.session->run(in_, out_);
}

// Extents that the model says are one: a target of another batch would broadcast.
void TrainingSession::check_target(std::span<const RuntimeValue> batch) const {
  const std::vector<IoInfo>& info = step_.session->inputs();
  const IoInfo& target = info[batch.size() - 1];
  const RuntimeValue& given = batch.back();
  if (!target.type.ranked || !given.is_tensor() || given.tensor().shape().rank() != target.type.shape.rank()) return;
  for (int d = 0; d < target.type.shape.rank(); ++d) {
    if (target.type.shape[d] >= 0) continue;
    for (size_t i = 0; i + 1 < batch.size(); ++i) {
      const Type& type = info[i].type;
      if (!type.ranked || !batch[i].is_tensor() || batch[i].tensor().shape().rank() != type.shape.rank()) continue;
      for (int k = 0; k < type.shape.rank(); ++k)
        if (const Dim here = given.tensor().shape()[d], there = batch[i].tensor().shape()[k]; type.shape[k] == target.type.shape[d] && here != there)
          fail(Code::kInvalidArgument, "extent ", d, " of the target should be that of axis ", k, " of input \"", info[i].name, "\", ", there, ", got ", here);
    }
  }
}

double TrainingSession::run_batch(std::span<const RuntimeValue> batch, double lr) {
  const size_t given = static_cast<size_t>(graph_.num_inputs) + 1;
  if (batch.size() != given) fail(Code::kInvalidArgument, "a step takes ", given, " arrays, the model's inputs and the target; got ", batch.size());
  check_target(batch);
  torn_ = 0;
  in_.assign(batch.begin(), batch.end());
  const Touch touched{*this};
  run(step_, graph_.updates, 1, lr, batches_ + 1, 1);
  const double loss = scalar_of(out_[0]);
  const int64_t bad = out_.back().tensor().ints()[0];
  if (bad >= 0) report_not_finite(batch, bad);
  for (size_t i = 0; i < graph_.updates.size(); ++i) {
    if (graph_.updates[i].in_place) continue;
    const Tensor to = in_[static_cast<size_t>(graph_.updates[i].input)].tensor();
    std::memcpy(to.data(), out_[i + 1].tensor().data(), static_cast<size_t>(to.bytes()));
  }
  ++batches_;
  in_.clear();  // the batch is the caller's again
  out_.clear();
  return loss;
}

double TrainingSession::step(std::span<const RuntimeValue> batch, double lr) {
  const std::lock_guard lock(mutex_);
  if (apply_.session) fail(Code::kInvalidArgument, "this session adds up gradients: accumulate and apply");
  const double loss = run_batch(batch, lr);
  ++steps_;
  return loss;
}

double TrainingSession::accumulate(std::span<const RuntimeValue> batch, double share) {
  const std::lock_guard lock(mutex_);
  if (!apply_.session) fail(Code::kInvalidArgument, "this session does not add up gradients");
  return run_batch(batch, -share);
}

void TrainingSession::apply(double lr, double scale) {
  const std::lock_guard lock(mutex_);
  if (!apply_.session) fail(Code::kInvalidArgument, "this session does not add up gradients");
  in_.clear();
  const Touch touched{*this};
  run(apply_, graph_.apply_updates, 0, lr, steps_ + 1, scale);
  if (const int64_t bad = out_.back().tensor().ints()[0]; bad >= 0)
    fail(Code::kRuntimeException, "step ", steps_ + 1, ": the sum of the gradients of the weight \"", graph_.apply_checks.names.at(static_cast<size_t>(bad)),
         "\" over the batches is not finite, though each of them is: it overflowed. The weights are unchanged");
  for (size_t i = 0; i < states_.size(); ++i)
    if (names_[i].starts_with("tiercel_g ") && states_[i].bytes()) std::memset(states_[i].data(), 0, static_cast<size_t>(states_[i].bytes()));
  ++steps_;
}

Session& TrainingSession::evaluation() {
  if (!evaluation_) evaluation_ = std::make_unique<Session>(with_graph(model_, graph_.evaluate), options_);
  return *evaluation_;
}

double TrainingSession::evaluate(std::span<const RuntimeValue> batch, std::vector<RuntimeValue>* outputs) {
  const std::lock_guard lock(mutex_);
  const size_t given = static_cast<size_t>(graph_.num_inputs) + 1;
  if (batch.size() != given) fail(Code::kInvalidArgument, "evaluation takes ", given, " arrays, the model's inputs and the target; got ", batch.size());
  check_target(batch);
  Session& s = evaluation();
  std::vector<RuntimeValue> in(batch.begin(), batch.end()), out(s.outputs().size());
  for (size_t i = 0; i < graph_.states.size(); ++i) in.emplace_back(states_[i]);
  s.run(in, out);
  const double loss = scalar_of(out.back());
  out.pop_back();
  if (outputs) *outputs = std::move(out);
  return loss;
}

namespace {

// A check of its own for each float of the graph (a narrow one is widened for it), just behind it: what a run of all nodes as they are costs, whatever is
// wrong. Every output is one then.
std::vector<Value*> probe(Graph& g) {
  std::vector<Node*> nodes;
  for (const auto& n : g.nodes()) nodes.push_back(n.get());
  g.clear_outputs();
  std::vector<Value*> probed;
  for (Node* n : nodes) {
    const auto next = std::next(n->self);
    Node* const before = next == g.nodes().end() ? nullptr : next->get();
    for (Value* v : n->outputs) {
      if (!v || !v->type.is_tensor() || !is_float_type(v->type.dtype)) continue;
      probed.push_back(v);
      if (Type wide = v->type; (wide.dtype = master_type(wide.dtype)) != v->type.dtype) {
        v = g.emit("Cast", "", 13, {v}, wide, before);
        v->producer->set("to", static_cast<int64_t>(wide.dtype));
      }
      g.add_output(g.emit("GradientCheck", kTiercelDomain, 1, {nullptr, nullptr, v}, Type::tensor(DType::kInt64, Shape{}), before));
    }
  }
  return probed;
}

std::string place_of(const Value* v) {
  const std::string node = v->producer->label();
  return v->name.empty() || v->name == v->producer->name ? node : cat(node, ", result \"", v->name, "\"");
}

}  // namespace

// The step again, every node as it stands, without updates: which results are not finite? Of a loss the first is named; of a gradient the one that its way
// back over such results of the backward pass leads to.
std::string TrainingSession::find_not_finite(std::span<const RuntimeValue> batch, int weight) {
  const std::shared_ptr<Graph> g = graph_.whole->clone();
  Value* const loss = g->outputs()[0];
  Value* at = weight < 0 ? loss : g->outputs()[static_cast<size_t>(weight) + 1];
  std::vector<Value*> probed = probe(*g);
  SessionOptions plain = options_;
  plain.optimization_level = 0;
  plain.disabled_passes.push_back("place_updates");  // probes stand right
  const std::string loss_place = loss->producer->label();
  std::vector<std::string> places;
  std::map<const Value*, size_t> numbers;
  std::vector<std::vector<size_t>> operands;  // of each of them, those that are results themselves
  std::vector<bool> backward;                 // does it belong to the backward pass?
  bool after_loss = false;
  const Node* last = nullptr;
  for (Value* v : probed) {
    after_loss |= last == loss->producer && v->producer != last;
    last = v->producer;
    backward.push_back(after_loss);
    numbers.emplace(v, places.size());
    places.push_back(place_of(v));
    auto& own = operands.emplace_back();
    for (const Value* in : v->producer->inputs)
      if (const auto it = numbers.find(in); in && it != numbers.end()) own.push_back(it->second);
  }
  const auto start = numbers.find(at);
  size_t k = start == numbers.end() ? places.size() : start->second;
  Session s(with_graph(model_, g), plain);
  std::vector<RuntimeValue> in(batch.begin(), batch.end()), out(s.outputs().size());
  for (size_t i = 0; i < graph_.states.size(); ++i) in.emplace_back(states_[i]);
  in.emplace_back(Tensor::of<int64_t>({}, {batches_ + 1}));
  if (in.size() < s.inputs().size()) in.emplace_back(Tensor::of<double>({}, {0}));
  s.run(in, out);
  const auto bad = [&](size_t i) { return out[i].tensor().ints()[0] >= 0; };
  if (weight < 0) {
    for (size_t i = 0; i < places.size() && !backward[i]; ++i) if (bad(i)) return places[i];
    return loss_place;
  }
  if (k == places.size() || !bad(k)) return "";
  const auto operand = [&](bool back) {
    const auto it = std::find_if(operands[k].begin(), operands[k].end(), [&](size_t i) { return backward[i] == back && bad(i); });
    return it == operands[k].end() ? places.size() : *it;
  };
  for (size_t before; (before = operand(true)) != places.size();) k = before;
  const size_t forward = operand(false);
  return forward == places.size() ? places[k] : cat(places[k], " (it reads what is not finite in the forward pass: ", places[forward], ")");
}

void TrainingSession::report_not_finite(std::span<const RuntimeValue> batch, int64_t bad) {
  const bool loss = bad == kLossNotFinite;
  const std::string name = loss ? "" : graph_.checks.names.at(static_cast<size_t>(bad));
  const std::string what = cat("step ", steps_ + 1, ": ", loss ? "the loss" : cat("the gradient of the weight \"", name, "\""), " is not finite");
  // What lists before that of the gradient belong to has been updated.
  const auto list = std::upper_bound(graph_.checks.begins.begin(), graph_.checks.begins.end(), bad) - 1;
  torn_ = loss ? 0 : *list;
  const std::string unchanged = !torn_ ? "the weights are unchanged"
      : cat(torn_, " of ", graph_.checks.names.size(), graph_.apply ? " sums of gradients" : " weights", " had been updated before, with finite gradients; no other has changed (atomic=True: a step is whole or not at all)");
  for (size_t i = 0; i < batch.size(); ++i)
    if (!(graph_.nan_targets && i + 1 == batch.size()) && !all_finite(batch[i].tensor()))
      fail(Code::kRuntimeException, what, ", as input \"", step_.session->inputs()[i].name, "\" is not; ", unchanged);
  for (size_t i = 0; i < graph_.states.size(); ++i)
    if (!all_finite(states_[i]))
      fail(Code::kRuntimeException, what, ", as the weight \"", names_[i], "\" is not: an earlier step made it so (a smaller learning rate or clip_norm may help)");
  int weight = -1;
  for (size_t i = 0; i < graph_.graded.size(); ++i) if (!loss && graph_.states[graph_.graded[i]] == name) weight = static_cast<int>(i);
  std::string where;
  try {
    where = find_not_finite(batch, weight);
  } catch (const std::exception&) {  // no memory for it, say: what is wrong is known without
  }
  fail(Code::kRuntimeException, what, where.empty() ? "" : cat("; the first result", loss ? "" : " of the backward pass", " that is not: ", where), ". ",
       static_cast<char>(std::toupper(unchanged[0])), unchanged.substr(1));
}

std::vector<std::pair<std::string, Tensor>> TrainingSession::state() const {
  std::vector<std::pair<std::string, Tensor>> all;
  for (size_t i = 0; i < states_.size(); ++i) all.emplace_back(names_[i], states_[i]);
  return all;
}

void TrainingSession::set_state(const std::map<std::string, Tensor>& state) {
  for (const auto& [name, t] : state) {
    const auto it = index_.find(name);
    if (it == index_.end()) fail(Code::kInvalidArgument, "the training has no state \"", name, "\"");
    const Tensor& own = states_[it->second];
    if (own.dtype() != t.dtype() || !(own.shape() == t.shape()))
      fail(Code::kInvalidArgument, "state \"", name, "\" should be ", Type::tensor(own.dtype(), own.shape()).str(), ", got ", Type::tensor(t.dtype(), t.shape()).str());
  }
  const std::lock_guard lock(mutex_);
  for (const auto& [name, t] : state)
    if (t.bytes()) std::memmove(states_[index_.at(name)].data(), t.data(), static_cast<size_t>(t.bytes()));
  touch();
}

uint64_t TrainingSession::take(Tensors& states, Tensors& weights, bool* changed) const {
  std::vector<std::string> news;
  uint64_t version;
  {
    const std::lock_guard lock(mutex_);
    version = version_;
    for (size_t i = 0; i < graph_.states.size(); ++i) {
      Tensor& t = states[names_[i]];
      if (t.defined() && (!t.bytes() || std::memcmp(t.data(), states_[i].data(), static_cast<size_t>(t.bytes())) == 0)) continue;
      t = narrowed(states_[i], states_[i].dtype());
      news.push_back(names_[i]);
    }
  }
  if (changed) *changed = !news.empty();
  const auto as_stored = [&](const std::string& name, const Tensor& t) {
    const auto it = stored_.find(name);
    return it == stored_.end() ? t : narrowed(t, it->second);
  };
  for (const std::string& name : news) {
    std::string weight = name;
    for (const char* factor : {".lora_a", ".lora_b"})
      if (adapters_ && name.ends_with(factor) && adapters_->forms.count(name.substr(0, name.size() - 7))) weight.resize(name.size() - 7);
    if (!adapters_ || !adapters_->forms.count(weight)) weights[weight] = as_stored(weight, states[name]);
    else weights.erase(weight);  // made anew
  }
  if (!adapters_) return version;
  std::vector<std::string> missing;
  for (const auto& [name, form] : adapters_->forms)
    if (!weights.count(name)) missing.push_back(name);
  if (missing.empty()) return version;
  const std::map<std::string, Tensor> base = weights_of(adapters_->base, missing);
  for (const std::string& name : missing) {
    const auto own = states.find(name);  // trained beside its adapter
    weights[name] = as_stored(name, merge_adapter(own == states.end() ? base.at(name) : own->second, adapters_->forms.at(name),
                                                  states.at(name + ".lora_a"), states.at(name + ".lora_b"), adapters_->scale));
  }
  return version;
}

TrainingSession::Tensors TrainingSession::frozen() const {
  Tensors all;
  const Graph& g = *(adapters_ ? adapters_->base : model_).graph;
  for (int id = 0; id < g.num_values(); ++id)
    if (const Value* v = g.value(id); v && v->is_constant() && !index_.count(v->name) && !(adapters_ && adapters_->forms.count(v->name)))
      all[v->name] = v->constant;
  return all;
}

Model TrainingSession::model() const {
  if (adapters_) {
    Tensors states, weights;
    take(states, weights);
    return with_weights(adapters_->base, weights);
  }
  const std::lock_guard lock(mutex_);
  Model m = with_graph(model_, model_.graph->clone());
  for (int id = 0; id < m.graph->num_values(); ++id)
    if (Value* v = m.graph->value(id); v && v->is_constant())
      if (const auto it = index_.find(v->name); it != index_.end()) v->constant = narrowed(states_[it->second], v->constant.dtype());
  return m;
}

Model TrainingSession::written() const {
  Model m = model();
  const std::lock_guard lock(mutex_);
  const auto wide = [](const Tensor& t) {
    Tensor w(DType::kFloat, t.shape());
    copy_widened(t, w);
    return w;
  };
  for (int id = 0; id < m.graph->num_values(); ++id) {
    const Value* const v = m.graph->value(id);
    if (!v || !v->is_constant() || !is_float_type(v->constant.dtype()) || master_type(v->constant.dtype()) == v->constant.dtype()) continue;
    const auto own = index_.find(v->name);
    const bool adapted = adapters_ && adapters_->forms.count(v->name);
    if (own == index_.end() && !adapted) continue;
    const Tensor stored = wide(v->constant), master = own == index_.end() ? wide(weights_of(adapters_->base, {v->name}).at(v->name)) : states_[own->second];
    for (int64_t i = 0; i < stored.count(); ++i) {
      const float x = master.as<float>()[i];
      if (!std::isinf(stored.as<float>()[i]) || !std::isfinite(x)) continue;
      fail(Code::kInvalidArgument, "the weight \"", v->name, "\" has grown beyond what ", dtype_name(v->constant.dtype()), ", its type in the model, can hold (",
           v->constant.dtype() == DType::kFloat16 ? "65504" : "3.39e38", "): element ", i, adapted ? "" : cat(" is ", x),
           ". Nothing was written; a checkpoint keeps it as a float. A smaller learning rate, a weight decay or a model of float32 helps");
    }
  }
  return m;
}

Model TrainingSession::frame() const {
  Model m = with_graph(model_, model_.graph->clone());
  for (int id = 0; id < m.graph->num_values(); ++id)
    if (Value* v = m.graph->value(id); v && v->is_constant() && index_.count(v->name)) v->constant = Tensor(v->constant.dtype(), Shape{0});
  return m;
}

namespace {

RuntimeValue run_loss(const LossSpec& spec, const Tensor& prediction, const Tensor& target, bool gradient) {
  Model m;
  m.graph = std::make_shared<Graph>();
  m.graph->opsets[""] = 21;
  GraphWriter w(*m.graph);
  Value* const p = w.input("prediction", Type::tensor(prediction.dtype(), prediction.shape()));
  Value* const t = w.input("target", Type::tensor(target.dtype(), target.shape()));
  Value* y = build_loss(w, spec, p, t);
  if (gradient) {
    const GradientSeed seed{y, nullptr};
    y = gradients(w, {&seed, 1}, {&p, 1})[0];
    if (!y) y = w.expand_like(w.scalar_like(0, p), p);
  }
  m.graph->add_output(y);
  Session s(std::move(m));
  const std::vector<RuntimeValue> in{prediction, target};
  std::vector<RuntimeValue> out(1);
  s.run(in, out);
  return out[0];
}

}  // namespace

RuntimeValue loss_value(const LossSpec& spec, const Tensor& prediction, const Tensor& target) { return run_loss(spec, prediction, target, false); }
RuntimeValue loss_gradient(const LossSpec& spec, const Tensor& prediction, const Tensor& target) { return run_loss(spec, prediction, target, true); }

}  // namespace tiercel

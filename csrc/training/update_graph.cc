#include "training/update_graph.h"

#include <algorithm>
#include <sstream>

#include "ops/registry.h"

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

bool is_lazy(const OptimizerSpec& spec) {
  const auto it = spec.options.find("lazy");
  return it != spec.options.end() && it->second != 0;
}

AttributeList optimizer_attributes(const TrainingOptions& o, const WeightOptions& own, bool rows) {
  std::map<std::string, double> options = o.optimizer.options;
  if (own.weight_decay) options["weight_decay"] = *own.weight_decay;
  AttributeList attributes;
  for (const auto& [key, value] : options) {  // the names that the rows hold outlive the list
    for (const char* known : {"momentum", "beta1", "beta2", "epsilon", "weight_decay", "lr_decay"})
      if (key == known) attributes.emplace_back(known, static_cast<float>(value));
    if (key == "nesterov") attributes.emplace_back("nesterov", int64_t{value != 0});
  }
  if (rows && is_lazy(o.optimizer)) attributes.emplace_back("lazy", int64_t{1});
  return attributes;
}

int input_index(const Graph& g, const Value* v) { return static_cast<int>(std::find(g.inputs().begin(), g.inputs().end(), v) - g.inputs().begin()); }

std::string and_more(size_t n) { return n > 1 ? cat(" and ", n - 1, " more") : std::string(); }

// A bucket is full when its gradients take this much. A large weight is updated as soon as its gradient is there, so that not all
// gradients live at once; many small ones cost one node.
constexpr int64_t kBucketBytes = 1 << 20;

}  // namespace

void check_optimizer(const TrainingOptions& o) {
  optimizer_row(o.optimizer);
  if (is_lazy(o.optimizer) && o.accumulate)
    fail(Code::kInvalidArgument, "lazy updates are of the rows that one batch has: they do not go with accumulate, which adds up whole gradients");
}

Value* Scalars::as(DType t) {
  if (!v_ || w_.dtype(v_) == t) return v_;
  Value*& made = made_[t];
  if (!made) made = w_.op("Cast", {v_}, {{"to", static_cast<int64_t>(t)}});
  return made;
}

UpdateWriter::UpdateWriter(GraphWriter& w, const TrainingOptions& o, const std::vector<Value*>& weights, Value* step, Value* loss,
                           std::vector<StepGraph::Update>& updates, StepGraph::Checks& checks)
    : w_(w), o_(o), weights_(weights), step_(step), loss_(loss), lr_(w.input("tiercel_lr", Type::tensor(DType::kDouble, Shape{}))), sums_(o.accumulate && loss),
      updates_(updates), checks_(checks) {
  for (const Value* p : weights) rate(w.dtype(p), options_of(p).lr);
}

WeightOptions UpdateWriter::options_of(const Value* weight) const {
  const auto it = o_.groups.find(weight->name);
  return sums_ || it == o_.groups.end() ? WeightOptions{} : it->second;
}

Value* UpdateWriter::rate(DType t, double factor) {
  if (!rates_.count(factor)) rates_.try_emplace(factor, w_, w_.scale(lr_, factor));
  return rates_.at(factor).as(t);
}

// Of rows whose number only a run knows: what they may take at most.
int64_t UpdateWriter::gradient_bytes(size_t i) const {
  const Type& t = w_.type(grads_[i].value);
  const Type& known = t.static_shape() ? t : w_.type(weights_[i]);
  return bytes_of(known.dtype, known.shape.count());
}

// Are all gradients one list of checks anyway?
bool UpdateWriter::are_small() const {
  int64_t bytes = 0;
  for (size_t i = 0; i < grads_.size(); ++i) if (grads_[i]) bytes += gradient_bytes(i);
  return bytes <= kBucketBytes;
}

// In the order in which gradients come to be. `alike`: of one type and of equal settings, and rows alone.
std::vector<UpdateWriter::Bucket> UpdateWriter::buckets(int64_t most, bool alike) const {
  std::map<const Node*, size_t> places;
  for (const auto& n : w_.graph().nodes()) places.emplace(n.get(), places.size());
  std::vector<std::pair<size_t, size_t>> order;
  for (size_t i = 0; i < weights_.size(); ++i)
    if (const Value* const v = grads_[i].value) order.emplace_back(v->producer ? places.at(v->producer) : 0, i);
  std::sort(order.begin(), order.end());
  std::vector<Bucket> all;
  for (const auto& [place, i] : order) {
    const WeightOptions own = options_of(weights_[i]);
    const DType t = w_.dtype(weights_[i]);
    const bool rows = alike && grads_[i].rows;
    auto open = rows ? all.end() : std::find_if(all.begin(), all.end(), [&](const Bucket& b) {
      return b.bytes < most && (!alike || (!b.rows && b.dtype == t && b.own.lr == own.lr && b.own.weight_decay == own.weight_decay));
    });
    if (open == all.end()) open = all.insert(open, {t, own, {}, rows, 0, 0});
    open->members.push_back(i);
    open->bytes += gradient_bytes(i);
    open->last = place;
  }
  // One that is long open (biases, of settings of their own) comes late: checks wait for those before them.
  std::stable_sort(all.begin(), all.end(), [](const Bucket& a, const Bucket& b) { return a.last < b.last; });
  return all;
}

// Checks come one after another: each says whether the gradients so far are finite, and the loss.
Value* UpdateWriter::check(const Bucket& b) {
  std::vector<Value*> in{checked_ ? nullptr : loss_, checked_};
  const int64_t base = static_cast<int64_t>(checks_.names.size());
  checks_.begins.push_back(base);
  for (const size_t i : b.members) {
    in.push_back(grads_[i].value);
    checks_.names.push_back(weights_[i]->name);
  }
  w_.name = cat("check the gradient of ", checks_.names[static_cast<size_t>(base)], and_more(b.members.size()));
  return checked_ = w_.op("GradientCheck", std::move(in), {{"base", base}}, kTiercelDomain);
}

// All of them, before any update.
void UpdateWriter::check_all() {
  for (const Bucket& b : buckets(kBucketBytes, false)) check(b);
  checks_.begins = {0};
}

// The same, unless it was done, by the node that computes the norm; gives the scale.
Value* UpdateWriter::check_norm(Value* scale) {
  std::vector<Value*> in{scale, checked_ ? nullptr : loss_, checked_};
  for (size_t i = 0; i < grads_.size(); ++i) {
    if (!grads_[i]) continue;
    in.push_back(grads_[i].value);
    if (!checked_) checks_.names.push_back(weights_[i]->name);
  }
  const std::vector<Value*> out = w_.ops("ClipScale", std::move(in), checked_ ? 1 : 2, {{"max_norm", static_cast<float>(o_.clip_norm)}}, kTiercelDomain);
  if (!checked_) checked_ = out[1], checks_.begins = {0};
  return out[0];
}

void UpdateWriter::clip_values(Value* scale) {
  Scalars factor(w_, scale);
  for (WeightGradient& grad : grads_) {
    Value*& g = grad.value;
    if (!g) continue;
    if (scale) g = w_.mul(g, factor.as(w_.dtype(g)));
    g = w_.op("Clip", {g, w_.scalar_like(-o_.clip_value, g), w_.scalar_like(o_.clip_value, g)});
  }
}

// Its outputs are those of the graph, in place of inputs of it.
void UpdateWriter::update(const Bucket& b, const char* op, std::vector<Value*> scalars, const std::vector<Value*>& parameters, const std::vector<Value*>& moments,
                          AttributeList attributes) {
  std::vector<Value*> in = std::move(scalars);
  in.resize(4, nullptr);
  in.insert(in.end(), parameters.begin(), parameters.end());
  for (const size_t i : b.members) {
    if (b.rows) in.push_back(grads_[i].rows);
    in.push_back(grads_[i].value);
  }
  in.insert(in.end(), moments.begin(), moments.end());
  for (const auto* list : {&parameters, &moments})
    for (const Value* v : *list) updates_.push_back({input_index(w_.graph(), v), true});
  w_.name = cat("update ", parameters[0]->name, and_more(parameters.size()));
  for (Value* out : w_.ops(b.rows ? cat(op, "Rows").c_str() : op, std::move(in), static_cast<int>(parameters.size() + moments.size()), std::move(attributes), kTiercelDomain))
    w_.graph().add_output(out);
}

void UpdateWriter::add(std::vector<WeightGradient> grads, Value* scale) {
  grads_ = std::move(grads);
  if (sums_) add_sums();
  else add_optimizer(scale);
  w_.graph().add_output(checked_);
}

void UpdateWriter::add_sums() {
  const bool atomic = o_.atomic || are_small();
  if (atomic) check_all();
  for (const Bucket& b : buckets(kBucketBytes, true)) {
    Value* const guard = atomic ? checked_ : check(b);
    std::vector<Value*> sums;
    for (const size_t i : b.members) sums.push_back(w_.input("tiercel_g " + weights_[i]->name, w_.type(weights_[i])));
    update(b, "Sgd", {rate(b.dtype, 1), step_, guard}, sums, {}, {});
  }
}

void UpdateWriter::add_optimizer(Value* scale) {
  const OptimizerRow& row = optimizer_row(o_.optimizer);
  const bool atomic = o_.atomic || !loss_ || o_.clip_norm > 0 || o_.clip_value > 0 || are_small();
  if (atomic && (o_.clip_value > 0 || o_.clip_norm <= 0)) check_all();
  w_.name = "clip_gradients";
  if (o_.clip_value > 0) {
    clip_values(scale);
    scale = nullptr;
  }
  if (o_.clip_norm > 0) scale = check_norm(scale);
  Scalars factor(w_, scale);
  for (const Value* p : weights_) factor.as(w_.dtype(p));  // casts stand before all updates
  for (const Bucket& b : buckets(atomic ? INT64_MAX : kBucketBytes, true)) {
    Value* const guard = atomic ? checked_ : check(b);
    std::vector<Value*> parameters, moments;
    for (const size_t i : b.members) parameters.push_back(weights_[i]);
    for (const bool first : {true, false})
      if (first ? row.m : row.v)
        for (const Value* p : parameters) moments.push_back(w_.input(cat(first ? "tiercel_m " : "tiercel_v ", p->name), w_.type(p)));
    update(b, row.op, {rate(b.dtype, b.own.lr), step_, guard, factor.as(b.dtype)}, parameters, moments, optimizer_attributes(o_, b.own, b.rows));
  }
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
  UpdateWriter(w, o, parameters, step, nullptr, r.apply_updates, r.apply_checks).add(sums, scale);
}

}  // namespace tiercel

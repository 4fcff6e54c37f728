#include "training/live.h"

#include "graph/constant_memo.h"
#include "onnx/onnx.h"
#include "passes/passes.h"

namespace tiercel {

// The graph is that of the file which the training would write, read again: so runs give what they give of that file, to the bit.
LiveTraining::LiveTraining(std::shared_ptr<const TrainingSession> training) : training_(std::move(training)) {
  {
    const auto bytes = std::make_shared<std::string>(onnx::serialize(training_->model()));
    base_ = onnx::parse(bytes->data(), bytes->size(), Buffer(bytes, bytes->data()));
  }
  training_->take(states_, weights_);
  const auto frozen = training_->frozen();
  // The bytes go when every constant has memory of its own, or the training's.
  std::map<std::pair<const void*, int64_t>, Tensor> own;
  std::map<std::pair<const void*, int64_t>, std::string> names;
  const auto key = [](const Tensor& t) { return std::pair(memory_of(t), t.bytes()); };
  Graph& graph = *base_.graph;
  for (int id = 0; id < graph.num_values(); ++id) {
    const Value* const v = graph.value(id);
    if (!v || !v->is_constant() || v->constant.dtype() == DType::kString || !v->constant.bytes()) continue;
    if (weights_.count(v->name)) names[key(v->constant)] = v->name;
    else if (const auto it = frozen.find(v->name); it != frozen.end() && it->second.dtype() == v->constant.dtype() && it->second.shape() == v->constant.shape())
      own[key(v->constant)] = it->second;
  }
  const auto replace = [&](Tensor& t) {
    if (!t.defined() || t.dtype() == DType::kString || !t.bytes()) return;
    Tensor& mine = own[key(t)];
    if (!mine.defined()) {
      mine = Tensor(t.dtype(), t.shape());
      t.read(0, t.bytes(), mine.data());
    }
    t = mine.reshaped(t.shape());
  };
  for_each_graph(graph, [&](Graph& g) {
    for (int id = 0; id < g.num_values(); ++id) {
      Value* const v = g.value(id);
      if (!v || !v->is_constant()) continue;
      const auto name = v->constant.dtype() == DType::kString || !v->constant.bytes() ? names.end() : names.find(key(v->constant));
      if (name == names.end()) {
        replace(v->constant);
        continue;
      }
      places_[name->second].push_back(&v->constant);
    }
    for (const auto& n : g.nodes())
      for (auto& [k, a] : n->attributes)
        if (auto* t = std::get_if<Tensor>(&a)) replace(*t);
  });
  for (auto& [name, tensors] : places_)
    for (Tensor* t : tensors) *t = Tensor(t->dtype(), t->shape(), nullptr, nullptr);
}

void LiveTraining::follow(std::shared_ptr<const TrainingSession> training) {
  const std::lock_guard lock(mutex_);
  before_ += training_->version() + 1;
  training_ = std::move(training);
}

uint64_t LiveTraining::version() const {
  const std::lock_guard lock(mutex_);
  return before_ + training_->version();
}

std::optional<Model> LiveTraining::model(uint64_t& version, bool always) {
  std::shared_ptr<const TrainingSession> training;
  {
    const std::lock_guard lock(mutex_);
    training = training_;
    version = before_;
  }
  bool changed = false;
  version += training->take(states_, weights_, &changed);
  if (!changed && !always) return std::nullopt;
  for (auto& [name, tensors] : places_)
    for (Tensor* t : tensors) *t = weights_.at(name);
  Model m = base_;
  m.graph = base_.graph->clone();
  for (auto& [name, tensors] : places_)
    for (Tensor* t : tensors) *t = Tensor(t->dtype(), t->shape(), nullptr, nullptr);
  return m;
}

}  // namespace tiercel

// What stands behind the gradients in the graph of a step: checks that they are finite, then the optimiser or the sums of `accumulate`.
#pragma once
#include <map>
#include <vector>

#include "training/row_gradient.h"
#include "training/step_graph.h"

namespace tiercel {

// Errors: an optimiser or an option of one that does not exist.
void check_optimizer(const TrainingOptions& options);

// A scalar in the types of the parameters that read it.
class Scalars {
 public:
  Scalars(GraphWriter& w, Value* v) : w_(w), v_(v) {}
  Value* as(DType t);

 private:
  GraphWriter& w_;
  Value* v_;
  std::map<DType, Value*> made_;
};

class UpdateWriter {
 public:
  // Makes the scalars that updates read: before the gradients, so that no update need wait for them. `loss`: of the batch; null: `weights` are updated
  // by sums that are there. What is updated and checked is noted in `updates` and `checks`.
  UpdateWriter(GraphWriter& w, const TrainingOptions& options, const std::vector<Value*>& weights, Value* step, Value* loss,
               std::vector<StepGraph::Update>& updates, StepGraph::Checks& checks);
  // Appends the checks and the updates: moments become inputs, new values outputs, and the last output says which gradient is not finite. An update does
  // nothing where a check of its gradients, or of some before them, or of the loss failed; where the step is atomic, of any. `scale` (a double, may be null)
  // multiplies the gradients. With `accumulate` and a loss, instead: the gradients join sums, by an Sgd whose rate is minus the share of the batch.
  void add(std::vector<WeightGradient> grads, Value* scale = nullptr);

 private:
  struct Bucket {  // weights of one type and of equal settings, which one node updates
    DType dtype;
    WeightOptions own;
    std::vector<size_t> members;
    bool rows = false;  // one weight, whose gradient is of rows
    int64_t bytes = 0;
    size_t last = 0;    // place of the last gradient
  };
  WeightOptions options_of(const Value* weight) const;
  Value* rate(DType t, double factor);
  int64_t gradient_bytes(size_t i) const;
  bool are_small() const;
  std::vector<Bucket> buckets(int64_t most, bool alike) const;
  Value* check(const Bucket& b);
  void check_all();
  Value* check_norm(Value* scale);
  void clip_values(Value* scale);
  void update(const Bucket& b, const char* op, std::vector<Value*> scalars, const std::vector<Value*>& parameters, const std::vector<Value*>& moments,
              AttributeList attributes);
  void add_sums();
  void add_optimizer(Value* scale);

  GraphWriter& w_;
  const TrainingOptions& o_;
  const std::vector<Value*>& weights_;
  Value *const step_, *const loss_, *const lr_;
  const bool sums_;
  std::vector<StepGraph::Update>& updates_;
  StepGraph::Checks& checks_;
  std::map<double, Scalars> rates_;  // by factor of the learning rate
  std::vector<WeightGradient> grads_;
  Value* checked_ = nullptr;  // what the last check says of all so far
};

// The graph that applies the sums of `accumulate` to those of `weights` that have gradients.
void build_apply(StepGraph& r, const TrainingOptions& options, const std::vector<Value*>& weights, const std::vector<WeightGradient>& grads);

}  // namespace tiercel

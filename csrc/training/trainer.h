// TrainingSession: a model, a loss and an optimiser; one call a step. It owns the weights, the moments and the running statistics.
// Threads may share one: a call waits for the one before it.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/fork.h"
#include "onnx/onnx.h"
#include "runtime/session.h"
#include "training/adapters.h"
#include "training/step_graph.h"

namespace tiercel {

// Low-rank adapters in the model that is trained, and the model without them.
struct Adapters {
  Model base;
  std::map<std::string, AdapterForm> forms;  // of the weights that have one
  double scale = 1;                          // of their products
};

class TrainingSession {
 public:
  // Errors: options that do not exist, a weight that cannot be trained (the node and the way to it are named).
  TrainingSession(Model model, const TrainingOptions& options, const SessionOptions& session = {}, std::optional<Adapters> adapters = {});

  // One step on a batch: the model's inputs, then the target. Returns the loss. A loss or a gradient that is not finite is an Error(kRuntimeException)
  // that names the first node with such a result. All stays as it was, or of a gradient, where the graph is not atomic, `torn` weights (sums) have taken the step.
  double step(std::span<const RuntimeValue> batch, double lr);
  // With TrainingOptions::accumulate, instead: the gradients of a batch, times `share`, join the sums; `apply` takes a step with the sums
  // times `scale`, which begin anew.
  double accumulate(std::span<const RuntimeValue> batch, double share);
  void apply(double lr, double scale);
  // The loss of a batch in inference mode; `outputs` (may be empty) gets the model's outputs.
  double evaluate(std::span<const RuntimeValue> batch, std::vector<RuntimeValue>* outputs = nullptr);

  const std::vector<IoInfo>& inputs() const { return step_.session->inputs(); }  // the model's, then the target
  int num_inputs() const { return graph_.num_inputs; }
  int64_t steps() const { return steps_; }
  // Steps, and batches that went through: what Dropout draws with.
  void set_steps(int64_t steps, int64_t batches) { steps_ = steps; batches_ = batches; }
  int64_t batches() const { return batches_; }
  int64_t torn() const { return torn_; }  // by the last such error
  // Everything that a step changes, under unique names: the model's own for weights and statistics. The memory is live.
  std::vector<std::pair<std::string, Tensor>> state() const;
  int num_weights() const { return graph_.num_weights; }
  const std::vector<std::string>& notes() const { return graph_.notes; }
  // Writes over states, all at once for those who take or save them.
  void set_state(const std::map<std::string, Tensor>& state);
  // The model as it was given, adapters merged, with the weights and statistics of now (copies).
  Model model() const;
  // The same, for a file: a weight that its narrow type cannot hold, though its master is finite, is an error.
  Model written() const;
  // Another number after each change of the state; `touch` when somebody may have written to the memory of state().
  uint64_t version() const { return version_; }
  void touch() { ++version_; }
  // Of the model's constants, by name: copies of those that the training changes, and what they make of the model's. What is as it was in the maps
  // stays the same memory. Returns their version.
  using Tensors = std::map<std::string, Tensor>;
  uint64_t take(Tensors& states, Tensors& weights, bool* changed = nullptr) const;
  Tensors frozen() const;  // those that stay as they are
  // The model without what is trained: what a checkpoint belongs to.
  Model frame() const;
  Session::Memory memory() const { return step_.session->memory(); }
  std::vector<ProfileEvent> take_profile() { return step_.session->take_profile(); }

 private:
  [[noreturn]] void report_not_finite(std::span<const RuntimeValue> batch, int64_t bad);
  std::string find_not_finite(std::span<const RuntimeValue> batch, int weight);
  void check_target(std::span<const RuntimeValue> batch) const;
  Session& evaluation();
  double run_batch(std::span<const RuntimeValue> batch, double lr);
  // Runs with the states as inputs, in place; `lr` and `step` too. Inputs before `given` are the caller's.
  struct Run {
    std::unique_ptr<Session> session;
    std::vector<int> sources;  // by input: of a state, or one of those below
  };
  enum Source : int { kGiven = -1, kRate = -2, kStep = -3, kScale = -4 };
  struct Touch {  // at the end, of a run that failed too
    TrainingSession& session;
    ~Touch() { session.touch(); }
  };
  using Updates = std::vector<StepGraph::Update>;
  Run make_run(const std::shared_ptr<Graph>& graph);
  void run(Run& r, const Updates& updates, size_t first_update, double lr, int64_t step, double scale);
  void add_states(std::span<const std::pair<std::string, Type>> states);

  Model model_;
  StepGraph graph_;
  std::optional<Adapters> adapters_;
  SessionOptions options_;
  std::atomic<uint64_t> version_{0};
  Run step_, apply_;
  std::unique_ptr<Session> evaluation_;
  std::vector<std::string> names_;       // of the states, then of the moments
  std::vector<Tensor> states_;           // the same order
  std::map<std::string, size_t> index_;  // of a name
  std::map<std::string, DType> stored_;  // the model's types of weights whose masters are wider
  std::vector<RuntimeValue> in_, out_;   // of a run, kept from one to the next
  int64_t steps_ = 0, batches_ = 0, torn_ = 0;
  mutable ForkSafeMutex mutex_;             // one step, evaluation or copy at a time
};

// A loss of two arrays, alone.
RuntimeValue loss_value(const LossSpec& spec, const Tensor& prediction, const Tensor& target);
// The gradient of (the sum of) its elements with respect to the prediction.
RuntimeValue loss_gradient(const LossSpec& spec, const Tensor& prediction, const Tensor& target);

}  // namespace tiercel

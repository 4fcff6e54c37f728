// From a model to the graph of one training step: forward, loss, gradients, optimiser.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "autodiff/recompute.h"
#include "training/losses.h"

namespace tiercel {

struct OptimizerSpec {
  std::string name = "sgd";
  std::map<std::string, double> options;  // what its row says; another key is an error
};

// What holds for one weight instead of what the optimiser says.
struct WeightOptions {
  double lr = 1;                         // a factor
  std::optional<double> weight_decay;
};

struct TrainingOptions {
  LossSpec loss;
  OptimizerSpec optimizer;
  std::map<std::string, WeightOptions> groups;  // by weight
  std::string output;                   // what the loss is of; "": the first output
  std::vector<std::string> trainable;   // weights; empty: all of trainable_weights()
  double clip_norm = 0, clip_value = 0; // of the gradients; 0: not
  int64_t seed = 0;                     // of Dropout
  RecomputeOptions recompute;           // in the backward pass
  bool accumulate = false;              // gradients are added up over batches; a graph of its own applies them
  bool atomic = false;                  // no update before all gradients have been found finite: all of them live until then
};

struct StepGraph {
  bool nan_targets = false;         // are they asked for?
  int num_inputs = 0;               // of the model
  std::vector<std::string> states;  // constants of the model that are inputs now: weights (narrow ones as floats), then running statistics
  int num_weights = 0;
  // In training mode, as far as the gradients. Inputs: the model's, target, states, step (int64), the rate. Outputs: the loss, then the gradients of the
  // weights number `graded` of `states`.
  std::shared_ptr<Graph> whole;
  std::vector<size_t> graded;
  // The whole step. Inputs: the same, tiercel_lr (double), the optimiser's moments. Outputs: the loss, one for each of `updates`, then which gradient
  // is not finite: a number of checks.names, kLossNotFinite or -1.
  // With `accumulate`, instead: tiercel_lr is minus the share of the batch, and sums of gradients take the place of moments.
  std::shared_ptr<Graph> step;
  struct Update {
    int input;       // of `step`: what the output replaces
    bool in_place;   // the output may be given the input's memory
  };
  std::vector<Update> updates;
  struct Checks {
    std::vector<std::string> names;  // of weights, in the order in which their gradients are looked at
    std::vector<int64_t> begins;     // of lists of them: what comes before the list of a bad one was updated; atomic: only 0
  };
  Checks checks, apply_checks;
  // With `accumulate`: from sums of gradients to weights. Inputs: states' names, tiercel_step, tiercel_lr, tiercel_scale (double, of the
  // sums). Outputs: one for each of `apply_updates`, then which sum is not finite.
  std::shared_ptr<Graph> apply;
  std::vector<Update> apply_updates;
  std::vector<std::string> notes;   // what is not trained though a file may expect it: for a warning
  // In inference mode. Inputs: the model's, target, states. Outputs: the model's, then the loss.
  std::shared_ptr<Graph> evaluate;
};

// The names of a model's weights: float initializers of rank 1 and more that are no statistics, bounds, scales or ratios (where there are no such,
// those of rank 0; where there are none either, values of Constant nodes).
std::vector<std::string> trainable_weights(const Model& model);
// Those of rank 0, which are constants of the model's arithmetic more often than weights.
std::vector<std::string> scalar_weights(const Model& model);

// Throws where a weight cannot be trained; the message names the node and the way to it.
StepGraph build_step(const Model& model, const TrainingOptions& options);

// The model with, for each of `wrt` (inputs or initializers), a further output "gradient of NAME": of the sum of the elements of `outputs`
// (empty: all). A value that does not matter has zeros.
Model gradient_model(const Model& model, const std::vector<std::string>& outputs, const std::vector<std::string>& wrt);

}  // namespace tiercel

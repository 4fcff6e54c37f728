// Losses as nodes of the graph.
#pragma once
#include <map>
#include <string>

#include "ops/graph_writer.h"

namespace tiercel {

struct LossSpec {
  std::string name;                       // one of loss_names()
  std::string reduction = "mean";         // mean, sum, none; kl: batchmean too
  std::map<std::string, double> options;  // what the loss's row says; another key is an error
  Tensor weight;                          // of the classes (cross_entropy) or of the positive ones (binary_cross_entropy_with_logits); or none
  bool labels = false;                    // the target holds class numbers, not probabilities (cross_entropy, ctc)
};

struct LossRow {
  const char* name;
  Value* (*build)(GraphWriter& w, const LossSpec& spec, Value* prediction, Value* target);
  const char* options;  // their names, with blanks between
  bool takes_labels;
};
std::span<const LossRow> loss_table();

// Appends the loss of a prediction against a target. An unknown name, option or reduction is an Error(kInvalidArgument) that lists the known ones.
Value* build_loss(GraphWriter& w, const LossSpec& spec, Value* prediction, Value* target);

}  // namespace tiercel

// A graph as it runs in training: batch statistics, dropout.
#pragma once
#include <string>
#include <vector>

#include "training/batch_statistics.h"

namespace tiercel {

// Turns BatchNormalization with known statistics and Dropout into their training forms, which depend on `step` (an int64 scalar). Returns,
// for each running statistic (a constant or a graph input), the value it has after the step. `notes`: as of train_norms.
Statistics to_training_mode(Graph& graph, Value* step, int64_t seed, std::vector<std::string>& notes);

// The other way: BatchNormalization and Dropout that a file has in their training forms (which an exporter writes on request) become those of
// inference, unless their further outputs are used.
void to_inference_mode(Graph& graph);

}  // namespace tiercel

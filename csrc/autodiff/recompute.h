// What the backward pass computes again rather than keep from the forward pass.
#pragma once
#include <string>
#include <vector>

#include "graph/graph.h"

namespace tiercel {

struct RecomputeOptions {
  bool cheap = true;              // chains of elementwise operators and normalisation whose operands are kept anyway
  int segments = 0;               // gradient checkpointing: of the forward pass, only what crosses from one segment to the next is kept; kSqrt
  std::vector<std::string> keep;  // the same, by patterns (fnmatch) of the values that are kept
  static constexpr int kSqrt = -1;  // as many segments as the root of the number of kept values
};

// Nodes up to `last` are the forward pass, later ones read its results: they are given copies of nodes that stand just before the first reader.
// A pattern that matches no value of the forward pass is an error.
void recompute(Graph& graph, const Node* last, const RecomputeOptions& options);

}  // namespace tiercel

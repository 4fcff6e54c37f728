// Reverse-mode differentiation: a graph's own operators, backwards.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "ops/graph_writer.h"

namespace tiercel {

struct GradientSeed {
  Value* output = nullptr;
  Value* gradient = nullptr;  // null: ones (of a scalar: one)
};

struct GradientOptions {
  std::span<Value* const> fixed;  // values that are taken as given, whatever they were computed of; those of `wrt` may be among them
  bool strict = true;             // a value whose only ways are blocked is an error, not a null
  std::string way;                // to the graph, where it is a body: what errors begin the way with
};

// Writes what has no gradient but stands for other operators that have as those; types everything.
void make_differentiable(Graph& graph);

// Appends the nodes that compute, for each of `wrt`, the sum over the seeds of (d output / d wrt) applied to the seed's gradient. Null for a
// value that no output depends on, or only through operators whose derivative is zero. A way that cannot be differentiated is an
// Error(kNotImplemented) that names the node and the way from the value to it.
std::vector<Value*> gradients(GraphWriter& writer, std::span<const GradientSeed> seeds, std::span<Value* const> wrt,
                              const GradientOptions& options = {});

}  // namespace tiercel

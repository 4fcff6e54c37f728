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

// Appends the nodes that compute, for each of `wrt`, the sum over the seeds of (d output / d wrt) applied to the seed's gradient. Null for a
// value that no output depends on, or only through operators whose derivative is zero. A way that cannot be differentiated is an
// Error(kNotImplemented) that names the node and the way from the value to it.
std::vector<Value*> gradients(GraphWriter& writer, std::span<const GradientSeed> seeds, std::span<Value* const> wrt);

}  // namespace tiercel

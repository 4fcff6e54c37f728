// Gradients of tables that rows are gathered from, as those rows: what an optimiser reads need not be as big as the table.
#pragma once
#include <vector>

#include "ops/graph_writer.h"

namespace tiercel {

// Of a weight: a tensor in its shape; or, where there are `rows`, the sums that they have, as GatherRowsGrad gives them. No value: there is none.
struct WeightGradient {
  Value* value = nullptr;
  Value* rows = nullptr;
  explicit operator bool() const { return value != nullptr; }
};

// What `gradients` gave for each of `weights`. Where it is a sum of nothing but Gathers' gradients on axis 0 it becomes rows, and the nodes that made the
// whole go, but for what something else reads. A weight that is also used otherwise (a tied output projection) keeps the whole one.
std::vector<WeightGradient> with_rows(GraphWriter& writer, const std::vector<Value*>& weights, const std::vector<Value*>& gradients);

}  // namespace tiercel

// Which of the elements that are written to one place stays there: what the gradient of a scatter without reduction needs to know.
#pragma once
#include "ops/grad_tools.h"

namespace tiercel {

// Do the known indices name no place twice? Rows of `tuple` entries, which count within `extents` (negative ones from the end).
bool distinct_tuples(const Tensor& indices, int64_t tuple, std::span<const Dim> extents);

// Bools in the shape `each` (a value): is this update the last one for its place? scatter(target, ids) writes a number for each update into
// int64 `target`, gather(from) reads it again.
template <class Scatter, class Gather>
Value* written_last(GraphWriter& w, Value* each, Value* target_shape, Scatter scatter, Gather gather) {
  using namespace grad_tools;
  Value* const n = w.op("ReduceProd", {each}, {{"keepdims", int64_t{0}}});
  Value* const ids = w.op("Reshape", {count_up(w, n), each}, {{"allowzero", int64_t{1}}});
  return w.op("Equal", {gather(scatter(w.op("Expand", {integer(w, -1), target_shape}), ids)), ids});
}

}  // namespace tiercel

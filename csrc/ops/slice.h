// How a Slice walks over its input; inputs 1 to 4 of the node say it.
#pragma once
#include <vector>

#include "ops/movement.h"

namespace tiercel {

struct SliceWalk {
  std::vector<StridedCopy::Axis> axes;  // from the input to the output
  int64_t first = 0;                    // element of the input
  bool whole = true;                    // it takes everything as it is
};
SliceWalk slice_walk(const PrepareContext& ctx, const Shape& in, const Shape& out);

}  // namespace tiercel

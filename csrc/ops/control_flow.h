// Loop and Scan as their gradients see them.
#pragma once
#include <vector>

#include "ops/bodies.h"

namespace tiercel {

// Scan's attributes, checked: one entry for each scan input and scan output.
struct ScanForm {
  int first, states, scans, stacked;  // first: index of the first state among the inputs
  std::vector<int64_t> in_axes, in_back, out_axes, out_back;
  Graph* body;
  explicit ScanForm(const Node& node);
};

// Of a Loop or Scan: what its body's own inputs are at every step.
std::vector<ValueInfo> step_inputs(const InferContext& ctx);

}  // namespace tiercel

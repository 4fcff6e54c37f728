// The kernel of operators that combine the elements of two inputs, broadcast, into output 0.
#pragma once
#include "kernels/pointwise/binary.h"
#include "ops/elementwise.h"

namespace tiercel {

struct Combination {
  BinaryFn vectors = nullptr;        // both operands one by one
  const BinaryFn* pairs = nullptr;   // all pairings (f32); null: only vectors
  DType first = DType::kFloat, second = DType::kFloat, result = DType::kFloat;  // what the functions read and write
  double flops = 1;
  float pads[2] = {0, 0};            // of plain operands in NCHW16c
  bool keeps_zero = true;            // f(0, 0) and f(pads) are zero
  std::optional<Shape> second_shape; // of input 1 as it broadcasts; aligned_operand() when not given
};

// Inputs 0 and 1 of the node.
void combine_elements(PrepareContext& ctx, const Combination& c);

}  // namespace tiercel

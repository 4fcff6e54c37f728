// Convolution by Winograd's algorithm with a team: 3x3, stride 1, blocked in and out.
#pragma once
#include "kernels/conv/plan.h"
#include "ops/context.h"

namespace tiercel {

// The tile (2 or 4) by which the problem is estimated to run faster than directly; 0: none. Decided by its extents alone.
int winograd_tile(const ConvProblem& problem);

// Prepares inputs X, W (constant), B (constant, or none), residual (or none) at indices 0 to 3.
void prepare_winograd_conv(PrepareContext& ctx, const ConvProblem& problem, const Activation& activation, int tile);

}  // namespace tiercel

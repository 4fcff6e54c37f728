// Running a planned convolution with a team: what Conv and ConvTranspose share.
#pragma once
#include <string>

#include "kernels/conv/plan.h"
#include "ops/context.h"

namespace tiercel {

// Can the f32 kernels run it? (At most three spatial axes, extents that fit 31 bits, a bounded number of phases.)
bool conv_is_direct(const ConvProblem& problem);

// Prepares inputs X, W, B (or none), residual (or none) at indices 0 to 3, all f32; sets kernel, workspace, cost. `key` names what
// the packing of W depends on beside the problem's extents. X, residual and output may each be plain or blocked.
void prepare_direct_conv(PrepareContext& ctx, ConvProblem problem, const Activation& activation, const std::string& key);

// A constant W, packed on all threads: for the functions given to ctx.pack. Behind plan.packed floats lies one for each part: 1 where it is finite.
Buffer pack_constant(const PrepareContext& ctx, const ConvPlan& plan, const float* w);

// A bias without the sign of its zeros: results would tell whether a zero of the padding was added.
void copy_bias(const float* from, int64_t n, float* to);

// Input blocks of a pass over a panel, so that a pass's weights stay in L2 while pixels go by; 0: all of them.
int conv_pass(const ConvShape& shape, const ConvPanel& panel);
// Floats of the panel's weights worth fetching ahead, at most.
int64_t conv_fetch(const ConvPlan& plan, const ConvPanel& panel);

// The clamp that an activation is; other kinds give (-inf, inf) and false.
bool activation_clamp(const Activation& activation, float& low, float& high);

}  // namespace tiercel

// Transposed convolution with few outputs (an image's colours, the samples of an inverse short-time Fourier transform), as a product and the
// sum of what overlaps.
#pragma once
#include "kernels/conv/plan.h"
#include "ops/context.h"

namespace tiercel {

// Is it the faster form? The direct kernels compute 16 outputs at least, this one as many as there are. For weights [channels, outputs, taps].
inline bool suits_overlap_add(int64_t channels, int64_t outputs, int64_t taps, int64_t groups, int axes) {
  return groups == 1 && axes <= 2 && outputs <= 8 && channels >= 16 && outputs * taps >= 12 && outputs * taps <= (1 << 14);
}

// Prepares inputs X (plain or blocked), W (constant), B (or none); the output is plain. One or two spatial axes.
void prepare_overlap_add(PrepareContext& ctx, const ConvProblem& problem, const Activation& activation);

}  // namespace tiercel

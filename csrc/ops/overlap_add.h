// Convolutions of stride 1, and transposed ones, with few outputs (an image's colours, the samples of an inverse short-time Fourier transform), as
// a product of all taps and the sum of what overlaps.
#pragma once
#include "kernels/conv/plan.h"
#include "ops/context.h"

namespace tiercel {

// Is it the faster form, for weights of so many channels, outputs and taps? The direct kernels compute 16 outputs at least, this one as many as
// there are; where there are eight, Winograd's algorithm may serve a convolution.
inline bool suits_overlap_add(bool transposed, int64_t channels, int64_t outputs, int64_t taps, int64_t groups, int axes) {
  return groups == 1 && axes <= 2 && outputs <= (transposed ? 12 : 7) && channels >= 16 && outputs * taps >= 8 && outputs * taps <= (1 << 14);
}

// Prepares inputs X (plain or blocked), W (constant), B (or none); the output is plain. One or two spatial axes.
void prepare_overlap_add(PrepareContext& ctx, const ConvProblem& problem, const Activation& activation);

}  // namespace tiercel

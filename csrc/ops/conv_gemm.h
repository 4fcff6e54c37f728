// Convolutions of small images with weights that come at run time, as products: packing the weights would cost more than the arithmetic.
#pragma once
#include "kernels/conv/plan.h"
#include "ops/context.h"

namespace tiercel {

// Where each tap looks in a plane at each output pixel of a convolution (not transposed), [taps, out_plane]; -1: at padding.
std::vector<int32_t> tap_places(const ConvProblem& problem);

// Are all images together fewer pixels than a group has outputs (channels, of ConvGradX)? Then the weights are the larger operand.
bool conv_suits_gemm(const PrepareContext& ctx, const ConvProblem& problem);

// Y = W col(X): inputs X, W, B (or none), plain, no residual. The weights are read as they lie.
void prepare_gemm_conv(PrepareContext& ctx, const ConvProblem& problem, const Activation& activation);
// dX = col'(W' dY): inputs dY, W; `problem` is that of the forward convolution.
void prepare_gemm_conv_grad(PrepareContext& ctx, const ConvProblem& problem);

}  // namespace tiercel

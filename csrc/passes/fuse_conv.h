// What surrounds a convolution becomes part of it: padding, per-channel affine maps, a residual, an activation.
#pragma once
#include "graph/graph.h"

namespace tiercel {

// Around Conv and ConvTranspose in f32 with constant weights where weights change:
//   Pad (zeros, spatial axes) -> Conv                          pads
//   -> BatchNormalization (inference), Mul, Div, Add, Sub by a constant per channel or scalar       weights and bias
//   -> Add of a tensor of the same shape                        residual (input 3 of ai.tiercel.Conv)
//   -> Relu, LeakyRelu, Clip, Sigmoid, Silu, HardSwish, ... and x * Sigmoid(x), x * HardSigmoid(x)  activation
void fuse_conv(Graph& graph);

// A depthwise convolution in channel blocks and the pointwise ones beside it become ai.tiercel.ConvChain, where what lies between them is
// too large to stay in L2. Runs after the layout is chosen.
void fuse_depthwise(Graph& graph);

// Of what fuse_conv does, the padding and the affine maps alone.
void fold_into_conv(Graph& graph);

// Conv(x) + Conv(x), Conv(x) + BatchNormalization(x) of one stride and grouping, with constant weights: one Conv whose kernel is their sum, where
// the smaller kernel looks at pixels of the larger one's. The branches of networks that are trained so (RepVGG, MobileOne).
void merge_branches(Graph& graph);

}  // namespace tiercel

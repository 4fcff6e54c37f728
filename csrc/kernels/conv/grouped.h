// Convolution of small groups in NCHW16c. A register of output channels belongs to several groups, each of which reads channels of its
// own: a step takes one input channel for every lane, by a permutation of a register of inputs, and multiplies all lanes at once.
//
//   y[p][l] = act(bias[l] + residual[p][l] + sum over taps t, steps i of x[stride p + origin + t][step i's register][lane of l] w[t][i][l])
//
// Groups of 4 cost 4 steps a register and tap, where panels of 16 x 16 multiply by zeros for the other three quarters.
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

struct GroupedShape {
  int64_t in[3], out[3], kernel[3], stride[3], dilation[3];  // depth, height, width
  int64_t origin[3];                                         // input coordinate of tap 0 of output 0
};

struct GroupedStep {
  int64_t x;         // where the register of inputs begins, in floats of an image's first pixel
  int32_t lane[16];  // the lane of it that each output lane reads; -1: none, which counts as zero
};

struct GroupedTask {
  const float* x;            // of one image
  const float* w;            // [kernel depth][kernel height][steps][kernel width][lanes]
  const GroupedStep* step;
  int steps;
  bool uneven;               // does a lane of a step read none?
  const float* bias;         // of the register, as are the following: never null
  const float* residual;     // as y, or null; may be y
  float* y;                  // pixels are 16 floats apart
  float low, high;           // results are clamped to these
  int tail;                  // lanes that exist; the others are stored as zeros
};

struct GroupedKernels {
  // Output rows [begin, end), counted over depth and height.
  void (*run)(const GroupedShape& shape, const GroupedTask& task, int64_t begin, int64_t end);
};
TIERCEL_KERNEL_TABLE(GroupedKernels, grouped)

}  // namespace tiercel

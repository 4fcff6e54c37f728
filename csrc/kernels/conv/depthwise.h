// Depthwise convolution in NCHW16c: y[p][c] = act(bias[c] + residual[p][c] + sum over taps t of x[stride p + origin + t][c] w[t][c]).
// A tile is a run of columns; each input is loaded once a kernel row and used for all the columns it reaches.
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

struct DepthwiseShape {
  int64_t in[3], out[3], kernel[3], stride[3], dilation[3];  // depth, height, width
  int64_t origin[3];                                         // input coordinate of tap 0 of output 0
  int64_t wrap = 0;  // above 0: x holds this many rows, row h of the image at h % wrap (one depth; a window's rows are at most these)
};

struct DepthwiseTask {
  const float* x;         // one block of 16 channels of one image
  const float* w;         // [taps][16]
  const float* bias;      // 16, never null
  const float* residual;  // as y, or null; may be y
  float* y;
  float low, high;        // results are clamped to these
  int tail;               // channels that exist; the others are stored as zeros
};

struct DepthwiseKernels {
  // Output rows [begin, end), counted over depth and height.
  void (*run)(const DepthwiseShape& shape, const DepthwiseTask& task, int64_t begin, int64_t end);
};
TIERCEL_KERNEL_TABLE(DepthwiseKernels, depthwise)

}  // namespace tiercel

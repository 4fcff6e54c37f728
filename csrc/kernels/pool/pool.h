// Pooling windows over depth, height and width: the largest, the mean; and over a whole plane. NaN in a window gives NaN.
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

struct PoolShape {
  int64_t in[3], out[3], kernel[3], stride[3], dilation[3];
  int64_t origin[3];       // input coordinate of tap 0 of output 0: minus the padding at the begin
  int64_t limit[3];        // input extent with the padding at the end: taps from there on never count
  bool count_padding;      // a mean divides by the taps inside the padded image, else inside the image
};

struct PoolKernels {
  // One block of 16 channels of one image (NCHW16c), output rows [begin, end) counted over depth and height. `tail`: channels that
  // exist; the others become zeros.
  void (*max_block)(const PoolShape& s, const float* x, float* y, int tail, int64_t begin, int64_t end);
  void (*mean_block)(const PoolShape& s, const float* x, float* y, int tail, int64_t begin, int64_t end);
  // One plane of one image (NCHW). `row`: in[2] floats of scratch.
  void (*max_plane)(const PoolShape& s, const float* x, float* y, float* row, int64_t begin, int64_t end);
  void (*mean_plane)(const PoolShape& s, const float* x, float* y, float* row, int64_t begin, int64_t end);
  // All n pixels: of a block to y[16], of a plane to *y.
  void (*global_max_block)(const float* x, int64_t n, float* y, int tail);
  void (*global_mean_block)(const float* x, int64_t n, float* y, int tail);
  void (*global_max_plane)(const float* x, int64_t n, float* y);
  void (*global_mean_plane)(const float* x, int64_t n, float* y);
};
TIERCEL_KERNEL_TABLE(PoolKernels, pool)

}  // namespace tiercel

// RoiAlign of averages on NCHW16c. Samples lie on a grid, and bilinear weights are products: those of a bin are (row weights) x (column weights),
// summed over its samples first.
//
//   y[i][j] = sum over rows r of bin i, columns c of bin j of v_r w_c x[r][c]
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

// Of bin b along one axis: entries [begin[b], begin[b + 1]), each a place (rows: times the width) and its weight.
struct RoiAxis {
  const int32_t* begin;
  const int32_t* at;
  const float* weight;
};

struct RoiAlignKernels {
  // Bins [0, height) x [0, width) of one region and one block of channels; x and y are [pixel][16].
  void (*block)(const float* x, const RoiAxis& rows, int64_t height, const RoiAxis& columns, int64_t width, float* y);
};
TIERCEL_KERNEL_TABLE(RoiAlignKernels, roi_align)

}  // namespace tiercel

// Backwards through a softmax: dx = y (dy - sum dy y); through its logarithm: dx = dy - exp(y) sum dy.
// A row of which nothing is asked (dy = 0) gives zeros, also where y is NaN: softmax of scores that are all masked, which a Where then hid.
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

struct SoftmaxGradKernels {
  // Rows of n, of the softmax [0] and of its logarithm [1]. dx may be dy or y.
  void (*rows[2])(const float* dy, const float* y, int64_t rows, int64_t n, float* dx);
};
TIERCEL_KERNEL_TABLE(SoftmaxGradKernels, softmax_grad)

}  // namespace tiercel

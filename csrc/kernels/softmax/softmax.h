// Softmax and its logarithm of f32 arrays, along rows and along columns:
//   softmax  y_i = e^(x_i - m) / s      log softmax  y_i = (x_i - m) - log s      m = max x,  s = sum e^(x - m)
// A row that holds a NaN or +inf, or nothing but -inf, becomes NaN where the formula says so. y may be x.
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

struct SoftmaxKernels {
  // [0] softmax, [1] log softmax, of `rows` contiguous rows of n.
  void (*rows[2])(const float* x, int64_t rows, int64_t n, float* y);
  // Of `cols` columns of n elements, `stride` apart in x and in y. kSoftmaxStrip columns at most.
  void (*columns[2])(const float* x, int64_t n, int64_t stride, int64_t cols, float* y);
};
inline constexpr int64_t kSoftmaxStrip = 256;
TIERCEL_KERNEL_TABLE(SoftmaxKernels, softmax)

namespace reference {
void softmax(const float* x, int64_t n, int64_t stride, bool log, float* y);
}

}  // namespace tiercel

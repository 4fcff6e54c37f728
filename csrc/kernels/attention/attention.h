// What stands between the two products of scaled dot-product attention, on a tile of scores that lies in cache:
//   w_j = exp(scale s_j + mask_j - m),  m = max_j (scale s_j + mask_j),  inverse = 1 / sum_j w_j
// The products themselves are GEMMs; dividing by the sum waits until after the second one.
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

struct AttentionKernels {
  // `rows` rows of n scores, `row` floats apart, in place. `mask` (null: none): element (i, j) at mask[i mask_row + j mask_col],
  // mask_col 0 or 1. A row whose sum is NaN (all masked by -inf, a NaN or +inf score) gives NaN, or weight zero everywhere when
  // `nan_to_zero`. inverse[i] is the factor of row i.
  void (*weights)(float* scores, int64_t row, int64_t rows, int64_t n, float scale, const float* mask, int64_t mask_row,
                  int64_t mask_col, bool nan_to_zero, float* inverse);
  // Row i of y, n floats, times factor[i].
  void (*scale_rows)(float* y, int64_t row, int64_t rows, int64_t n, const float* factor);
};
TIERCEL_KERNEL_TABLE(AttentionKernels, attention)

namespace reference {
// y [q, dv] = softmax(scale Q K^T + mask) V of one head; Q [q, d], K [k, d], V [k, dv], mask [q, k] or null. In double.
void attention(const double* Q, const double* K, const double* V, const double* mask, int64_t q, int64_t k, int64_t d, int64_t dv,
               double scale, bool nan_to_zero, double* y);
}  // namespace reference

}  // namespace tiercel

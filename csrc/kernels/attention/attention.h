// What stands between the two products of scaled dot-product attention, on a block of scores that lies in cache:
//   w_j = exp(x_j - m),  x_j = cap tanh(scale s_j / cap) + mask_j (without a cap: scale s_j + mask_j),  m = max_j x_j
// The products themselves are GEMMs; dividing by the sum waits until after the second one. Keys may come in several blocks, each of
// which may raise m: what was summed before is then multiplied by a factor (Milakov and Gimelshein, "Online normalizer calculation
// for softmax", 2018).
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

struct AttentionBlock {
  float* scores;  // `rows` rows of `keys`, `row` floats apart: weights in their place
  int64_t row, rows, keys;
  float scale = 1, cap = 0;     // cap 0: none
  const float* mask = nullptr;  // null: none; element (i, j) at mask[i * mask_row + j * mask_col], mask_col 0 or 1
  int64_t mask_row = 0, mask_col = 0;
  float *most, *sum;  // of each row, over the blocks so far: begin with -inf and 0. most is in units of s where there is neither cap nor mask
  float* factor;      // of each row: what the products of earlier blocks are to be multiplied by
};

struct AttentionKernels {
  // A NaN or +inf among the scores makes the sum NaN; with nothing but -inf it stays 0. False when every factor is 1.
  bool (*weights)(const AttentionBlock& block);
  // Row i of y, n floats, times factor[i].
  void (*scale_rows)(float* y, int64_t row, int64_t rows, int64_t n, const float* factor);
  // Is every element of rows x n at most `limit`? With col 0 a row has one element.
  bool (*all_below)(const float* x, int64_t row, int64_t col, int64_t rows, int64_t n, float limit);
  // The largest magnitude; +inf when an element is not finite, 0 when there is none.
  float (*magnitude)(const float* x, int64_t row, int64_t rows, int64_t n);
};
TIERCEL_KERNEL_TABLE(AttentionKernels, attention)

namespace reference {
// y [q, dv] = softmax(cap tanh(scale Q K^T / cap) + mask) V of one head; Q [q, d], K [k, d], V [k, dv], mask [q, k] or null; cap 0: none.
// In double.
void attention(const double* Q, const double* K, const double* V, const double* mask, int64_t q, int64_t k, int64_t d, int64_t dv,
               double scale, double cap, bool nan_to_zero, double* y);
}  // namespace reference

}  // namespace tiercel

// Reductions of f32 arrays: along rows (the reduced axis is contiguous) and along columns (it is strided).
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

// What is accumulated. NaN in, NaN out (kMax and kMin too). Nothing to reduce: 0, 0, 0, 0, -inf, +inf, 1.
enum class ReduceMap : uint8_t {
  kSum,        // sum x
  kSumAbs,     // sum |x|
  kSumSquare,  // sum x^2
  kSumExp,     // sum exp(x - shift)
  kMax,
  kMin,
  kProd,
};
inline constexpr int kNumReduceMaps = 7;
// Partial results are merged with this.
constexpr ReduceMap merge_of(ReduceMap m) { return m <= ReduceMap::kSumExp ? ReduceMap::kSum : m; }

struct ReduceKernels {
  // y[r] = reduce over i < n of x[r * stride + i], r < rows. shift[r]: for kSumExp. Sums: chains of 64, then of n / 4096 lanes.
  void (*rows[kNumReduceMaps])(const float* x, int64_t rows, int64_t stride, int64_t n, const float* shift, float* y);
  // y[c] = reduce over r < rows of x[r * stride + c], c < cols; merged with what y holds if `accumulate`. shift[c].
  // Eight rows are added as a tree, trees one after another.
  void (*columns[kNumReduceMaps])(const float* x, int64_t rows, int64_t stride, int64_t cols, const float* shift,
                                  bool accumulate, float* y);
  // y[r] = index i < n of the largest (smallest) x[r * stride + i]: the first, or the last. A NaN beats all numbers. n > 0.
  void (*arg_rows[2])(const float* x, int64_t rows, int64_t stride, int64_t n, bool last, int64_t* y);  // [0] max, [1] min
  // y[c] = index r < rows of the largest (smallest) x[r * stride + c]. 0 < rows < 2^31.
  void (*arg_columns[2])(const float* x, int64_t rows, int64_t stride, int64_t cols, bool last, int64_t* y);
  // Writes the indices i < n, rising, with !(x[i] <= limit), or !(x[i] >= limit) unless `above`, to at (room for n). Returns how many. NaN are among them.
  int64_t (*beyond)(const float* x, int64_t n, float limit, bool above, int32_t* at);
  // y[i] = y[i] / divisor; sqrt(y[i]); log(y[i]) + shift[i] (shift may be null)
  void (*divide)(float* y, int64_t n, float divisor);
  void (*sqrt)(float* y, int64_t n);
  void (*log)(float* y, int64_t n, const float* shift);
};
TIERCEL_KERNEL_TABLE(ReduceKernels, reduce)

namespace reference {
double reduce(ReduceMap map, const float* x, int64_t n, int64_t stride, double shift);
int64_t arg_reduce(const float* x, int64_t n, int64_t stride, bool min, bool last);
}  // namespace reference

}  // namespace tiercel

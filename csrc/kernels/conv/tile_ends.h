// What the convolutions' tiles do with their sums at the end. For *.isa.cc files.
#pragma once
#include "simd/vec.h"

namespace tiercel::TIERCEL_ISA {
namespace {

alignas(64) const float kZeros[16] = {};
alignas(64) const float kLaneNumbers[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// Lanes of a block's register that begins at channel `lane` of it, as far as channel `tail`.
inline M lanes_below(int tail, int lane) { return lt(load(kLaneNumbers + lane), set1(static_cast<float>(tail))); }

// acc[i] = min(high, max(low, acc[i])). Constants go first: max(low, NaN) and min(high, NaN) are NaN.
template <int N>
inline __attribute__((always_inline)) void bound(F (&acc)[N], F low, F high) {
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) acc[i] = min(high, max(low, acc[i]));
}

// acc[i] = from(i) + acc[i]: a residual, which joins sums that are finished, as it may be far larger than they are.
template <int N, class From>
inline __attribute__((always_inline)) void join(F (&acc)[N], From from) {
#pragma GCC unroll 16
  for (int i = 0; i < N; ++i) acc[i] = load(from(i)) + acc[i];
}

}  // namespace
}  // namespace tiercel::TIERCEL_ISA

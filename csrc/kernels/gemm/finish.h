// GEMM's epilogue over a tile that is still in the nearest cache.
#pragma once
#include "kernels/gemm/gemm.h"
#include "simd/activation.h"

namespace tiercel::TIERCEL_ISA {
namespace {

// scale * data, or data where the scale is 1: one rounding less.
inline F addend(const GemmAddend& d, int64_t i, int64_t j, int64_t n) {
  const float* p = d.data + i * d.row;
  const F x = d.col ? (n == kLanes ? load(p + j) : load(p + j, n)) : set1(*p);
  return d.scale == 1 ? x : x * set1(d.scale);
}

// C at (i0, j0) of the whole, m x n, in place.
void finish_tile(float* c, int64_t c_row, int64_t m, int64_t n, const GemmEpilogue& e, int64_t i0, int64_t j0) {
  const bool sums = e.alpha != 1 || e.add[0].data || e.add[1].data;
  for (int64_t i = 0; sums && i < m; ++i) {
    float* out = c + i * c_row;
    for (int64_t j = 0; j < n; j += kLanes) {
      const int64_t left = n - j < kLanes ? n - j : kLanes;
      F x = left == kLanes ? load(out + j) : load(out + j, left);
      if (e.alpha != 1) x = x * set1(e.alpha);
      if (e.add[0].data) x = x + addend(e.add[0], i0 + i, j0 + j, left);
      if (e.add[1].data) x = x + addend(e.add[1], i0 + i, j0 + j, left);
      if (left == kLanes) store(out + j, x);
      else store(out + j, x, left);
    }
  }
  if (e.activation) activate(e.activation, c, c_row, c, c_row, m, n);
}

// Brings rows of n floats near.
inline void fetch_rows(const float* p, int64_t row, int64_t rows, int64_t n) {
  constexpr int64_t kLine = 16;
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < n; j += kLine) __builtin_prefetch(p + i * row + j);
}
// What finish_tile() will read beside C.
inline void fetch_addends(const GemmEpilogue& e, int64_t m, int64_t n, int64_t i0, int64_t j0) {
  for (const GemmAddend& d : e.add)
    if (d.data && d.row && d.col) fetch_rows(d.data + i0 * d.row + j0, d.row, m, n);
}

}  // namespace
}  // namespace tiercel::TIERCEL_ISA

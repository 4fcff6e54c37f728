// GEMM with few columns: every element a dot product along k, in registers of partial sums.
#pragma once
#include "kernels/gemm/finish.h"

namespace tiercel::TIERCEL_ISA {
namespace {

// MR rows of A by NC rows of B.
template <int MR, int NC>
inline __attribute__((always_inline)) void dot_tile(const float* a, int64_t a_row, const float* b, int64_t b_row, int64_t k, float* c,
                                                    int64_t c_row, bool accumulate) {
  F acc[MR][NC];
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NC; ++j) acc[i][j] = zero();
  int64_t x = 0;
  for (; x + kLanes <= k; x += kLanes) {
    F y[NC];
#pragma GCC unroll 4
    for (int j = 0; j < NC; ++j) y[j] = load(b + j * b_row + x);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const F z = load(a + i * a_row + x);
#pragma GCC unroll 4
      for (int j = 0; j < NC; ++j) acc[i][j] = fma(z, y[j], acc[i][j]);
    }
  }
  if (x < k) {
    F y[NC];
#pragma GCC unroll 4
    for (int j = 0; j < NC; ++j) y[j] = load(b + j * b_row + x, k - x);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
      const F z = load(a + i * a_row + x, k - x);
#pragma GCC unroll 4
      for (int j = 0; j < NC; ++j) acc[i][j] = fma(z, y[j], acc[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NC; ++j) {
      float* p = c + i * c_row + j;
      *p = accumulate ? *p + sum(acc[i][j]) : sum(acc[i][j]);
    }
}

template <int NC> void dot_columns(const GemmArgs& g, int64_t j) {
  constexpr int kRows = NC == 1 ? 8 : kPanelRegs == 4 || NC == 2 ? 4 : 2;
  const float *a = g.a[0], *b = g.b[0] + j * g.b_row;
  int64_t i = 0;
  for (; i + kRows <= g.m; i += kRows) dot_tile<kRows, NC>(a + i * g.a_row, g.a_row, b, g.b_row, g.k, g.c + i * g.c_row + j, g.c_row, g.accumulate);
  for (; i < g.m; ++i) dot_tile<1, NC>(a + i * g.a_row, g.a_row, b, g.b_row, g.k, g.c + i * g.c_row + j, g.c_row, g.accumulate);
}

void dot(const GemmArgs& g) {
  int64_t j = 0;
  for (; j + 4 <= g.n; j += 4) dot_columns<4>(g, j);
  if (g.n - j == 3) dot_columns<3>(g, j);
  if (g.n - j == 2) dot_columns<2>(g, j);
  if (g.n - j == 1) dot_columns<1>(g, j);
  if (g.epilogue) finish_tile(g.c, g.c_row, g.m, g.n, *g.epilogue, 0, 0);
}

}  // namespace
}  // namespace tiercel::TIERCEL_ISA

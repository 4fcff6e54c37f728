// GEMM in f32: C[m,n] = act(alpha * sum_r A_r[m,k] B_r[k,n] + add[0] + add[1]), C row-major.
//
// With one pair (count = 1) it is the plain product; with more it is the batch-reduce form that convolution taps, recurrent
// steps and attention stand on. Every element of C is a sum of chains of `chain` fused multiply-adds over r, then k, in rising
// order (a shorter one at the end of a panel of k), whatever the tile, the panel, m or n: a row does not depend on its batch, nor a
// result on how the work is split. Chains keep rounding errors down: they grow with the square root of k times the chain.
// (Baseline and AArch64 chain likewise, the baseline with a rounding after the multiplication.)
#pragma once
#include <stdint.h>

#include "kernels/activation.h"
#include "kernels/dispatch.h"

namespace tiercel {

// k is cut in panels of at most this many; between them, and between chains, the sums rest in C.
inline constexpr int64_t kGemmDepth = 768, kGemmChain = 192;

// Added to element (i, j): scale * data[i * row + j * col].
struct GemmAddend {
  const float* data = nullptr;  // null: none
  int64_t row = 0;              // 0: the same for all rows
  int64_t col = 1;              // 1, or 0: the same for all columns
  float scale = 1;
};

// Each step rounds as the separate operators would: multiply by alpha, add add[0], add add[1], activate.
struct GemmEpilogue {
  float alpha = 1;
  GemmAddend add[2];
  Activation activation;
};

struct GemmArgs {
  int64_t m = 0, n = 0, k = 0;
  int64_t count = 1;             // pairs (A_r, B_r)
  const float* const* a = nullptr;
  int64_t a_row = 0, a_k = 1;    // elements from a row of A to the next, and along k
  const float* const* b = nullptr;
  int64_t b_row = 0;             // 0: packed by pack_b; else elements from a row of B (contiguous along n) to the next
  float* c = nullptr;
  int64_t c_row = 0;
  int64_t chain = kGemmChain;    // even
  bool accumulate = false;       // the sum starts from what C holds, not from zero
  const GemmEpilogue* epilogue = nullptr;  // null: none
  bool backwards = false;        // one row: B's panels from the last to the first; by turns, a B too large for L2 is found there in part
  const float* next_b = nullptr;  // packed columns that this core will want next: fetched while the last panel is at work
};

struct GemmKernels {
  int lanes;  // floats in a register
  int panel;  // columns of a packed panel, a multiple of lanes
  // One thread's work; blocks for the caches inside. C may not overlap A, B or an addend: it holds sums that are not complete.
  void (*gemm)(const GemmArgs& args);
  // Columns [first, last) of B (element (k, j) at b[k * row + j * col]) into the packing of the whole [k, n]: panels of `panel`
  // columns, each [k][panel], the last one [k][round_up(rest, lanes)] with zeros beyond n. `first` is a multiple of panel.
  // Column j0 of a packed B (a multiple of panel) begins at packed + k * j0: so sub-ranges of columns are products, too.
  void (*pack_b)(const float* b, int64_t row, int64_t col, int64_t k, int64_t n, int64_t first, int64_t last, float* packed);
  // The product with few columns: B lies as rows along k, element (k, j) at b[0][j * b_row + k], and a_k and count are 1. Each
  // element is a sum of lanes(k), so it differs from gemm() in rounding; like it, it depends on k alone.
  void (*dot)(const GemmArgs& args);
  // The epilogue alone, over C in place.
  void (*finish)(float* c, int64_t c_row, int64_t m, int64_t n, const GemmEpilogue& epilogue);
};
TIERCEL_KERNEL_TABLE(GemmKernels, gemm)

inline int64_t gemm_packed_floats(const GemmKernels& g, int64_t k, int64_t n) {
  return k * ((n + g.lanes - 1) / g.lanes * g.lanes);
}

namespace reference {
void gemm(const GemmArgs& args);  // b_row > 0 only
}

}  // namespace tiercel

// The register tile of GEMM: MR rows by NV registers of C, kept in registers over all of k.
#pragma once
#include "simd/vec.h"

namespace tiercel::TIERCEL_ISA {
namespace {

// Registers of a full panel, and the most rows of a tile for each number of registers across: as many accumulators as the
// register file holds beside NV of B and one of A.
#if defined(TIERCEL_ISA_AVX512)
constexpr int kPanelRegs = 4;
constexpr int kMaxRows[] = {0, 14, 14, 8, 6};
constexpr bool kCheapMask = true;  // a masked load costs one turn of a multiply-add port
#elif defined(TIERCEL_ISA_NEON)
constexpr int kPanelRegs = 4;
constexpr int kMaxRows[] = {0, 14, 12, 8, 6};
constexpr bool kCheapMask = false;
#elif defined(TIERCEL_ISA_AVX2)
constexpr int kPanelRegs = 2;
constexpr int kMaxRows[] = {0, 10, 6};
constexpr bool kCheapMask = false;
#else
constexpr int kPanelRegs = 2;
constexpr int kMaxRows[] = {0, 6, 4};
constexpr bool kCheapMask = false;
#endif

constexpr int64_t kCacheLine = 64;

struct Tile {
  int64_t count, k, chain;
  const float* const* a;
  int64_t a_offset, a_row, a_k;
  const float* const* b;
  int64_t b_offset, b_row;
  float* c;
  int64_t c_row;
  int64_t tail;       // columns in the last register
  bool accumulate;
  const float* bias;  // added once the sum is complete; null: none
  const float* residual;  // added after the bias, lies as C does but for its rows; null: none
  int64_t residual_row;
  const float* clip;  // {low, high}; null: none
  const char* ahead;  // memory that will be read soon: brought near by ahead_step bytes for each two k (Unit tiles)
  int64_t ahead_step;
  int64_t ahead_lines;  // cache lines of a step
};

// The last register of a row of C or of the bias.
inline F load_tail(const float* p, int64_t n) { return n == kLanes ? load(p) : load(p, n); }
inline void store_tail(float* p, F x, int64_t n) { n == kLanes ? store(p, x) : store(p, x, n); }

// Keeps a value in its register: low tiles would otherwise read B anew for each row.
inline void keep(F& x) {
#if defined(__x86_64__)
  asm volatile("" : "+x"(x.v));
#endif
}

// Steps k .. k + U of the chains. Unit: A is contiguous along k, and k even: two steps an iteration leave fewer scalar
// instructions, which take turns on the ports of the multiply-adds (worth 5 % of the peak). Masked: the last register of B
// has `tail` columns; a packed B has zeros there instead.
template <int U, bool Unit, bool Masked, int MR, int NV, int G>
inline __attribute__((always_inline)) void steps(F (&acc)[MR][NV], const float* (&p)[G], const float*& b, int64_t a_row,
                                                 int64_t a_k, int64_t b_row, int64_t tail) {
#pragma GCC unroll 2
  for (int u = 0; u < U; ++u) {
    F x[NV];
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const float* q = b + u * b_row + v * kLanes;
      x[v] = Masked && v == NV - 1 ? load(q, tail) : load(q);
      if (MR == 2 || MR == 3) keep(x[v]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const F y = set1(p[i / 3][(i % 3) * a_row + u]);
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[i][v] = fma(y, x[v], acc[i][v]);
    }
  }
  b += U * b_row;
#pragma GCC unroll 8
  for (int g = 0; g < G; ++g) p[g] += Unit ? U : a_k;
}

// C (zero where it has not begun) += acc.
template <int MR, int NV>
inline __attribute__((always_inline)) void add_to(const F (&acc)[MR][NV], const Tile& t, bool begun) {
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      float* const c = t.c + i * t.c_row + v * kLanes;
      if (v == NV - 1) store_tail(c, begun ? load_tail(c, t.tail) + acc[i][v] : acc[i][v], t.tail);
      else store(c, begun ? load(c) + acc[i][v] : acc[i][v]);
    }
}

template <int MR, int NV, bool Masked, bool Unit>
void tile(const Tile& t) {
  constexpr int kSteps = Unit ? 2 : 1;
  constexpr int kGroups = (MR + 2) / 3;  // rows p, p + row, p + 2 row: few pointers, no spilled ones
  const int64_t a_row = t.a_row, a_k = t.a_k, b_row = t.b_row, depth = t.k, tail = t.tail, ahead_step = t.ahead_step, ahead_lines = t.ahead_lines;
  const char* ahead = t.ahead;
  F acc[MR][NV];
  bool begun = t.accumulate;  // C holds the sum of what came before
  int64_t steps_left = t.chain;
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) acc[i][v] = zero();
  for (int64_t r = 0; r < t.count; ++r) {
    const float* b = t.b[r] + t.b_offset;
    const float* p[kGroups];
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) p[g] = t.a[r] + t.a_offset + 3 * g * a_row;
    for (int64_t k = 0; k < depth;) {
      if (steps_left <= 0) {  // a chain ends: its sum joins those before it
        add_to<MR, NV>(acc, t, begun);
        begun = true;
        steps_left = t.chain;
#pragma GCC unroll 16
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
          for (int v = 0; v < NV; ++v) acc[i][v] = zero();
      }
      const int64_t end = depth - k < steps_left ? depth : k + steps_left;
      steps_left -= end - k;
      if (Unit && ahead_lines > 1) {  // few tiles share the fetching: apart, for the loop below is faster without
        for (; k < end; k += kSteps, ahead += ahead_step) {
          for (int64_t line = 0; line < ahead_lines; ++line) __builtin_prefetch(ahead + line * kCacheLine, 0, 2);
          steps<kSteps, Unit, Masked>(acc, p, b, a_row, a_k, b_row, tail);
        }
      } else {
        for (; k < end; k += kSteps) {
          if constexpr (Unit) {
            __builtin_prefetch(ahead, 0, 2);
            ahead += ahead_step;
          }
          steps<kSteps, Unit, Masked>(acc, p, b, a_row, a_k, b_row, tail);
        }
      }
    }
  }
  if (begun) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const float* c = t.c + i * t.c_row + v * kLanes;
        acc[i][v] = (v == NV - 1 ? load_tail(c, tail) : load(c)) + acc[i][v];
      }
  }
  if (t.bias) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const F d = v == NV - 1 ? load_tail(t.bias + v * kLanes, tail) : load(t.bias + v * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) acc[i][v] = acc[i][v] + d;
    }
  }
  if (t.residual) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const float* d = t.residual + i * t.residual_row + v * kLanes;
        acc[i][v] = acc[i][v] + (v == NV - 1 ? load_tail(d, tail) : load(d));
      }
  }
  if (t.clip) {
    const F low = set1(t.clip[0]), high = set1(t.clip[1]);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[i][v] = min(high, max(low, acc[i][v]));
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      float* c = t.c + i * t.c_row + v * kLanes;
      if (v == NV - 1) store_tail(c, acc[i][v], tail);
      else store(c, acc[i][v]);
    }
}

using TileFn = void (*)(const Tile&);

template <int NV, bool Masked, bool Unit>
TileFn tile_of(int64_t rows) {
#define TIERCEL_TILE(r) if constexpr (r <= kMaxRows[NV]) if (rows == r) return &tile<r, NV, Masked, Unit>;
  TIERCEL_TILE(1) TIERCEL_TILE(2) TIERCEL_TILE(3) TIERCEL_TILE(4) TIERCEL_TILE(5) TIERCEL_TILE(6) TIERCEL_TILE(7)
  TIERCEL_TILE(8) TIERCEL_TILE(9) TIERCEL_TILE(10) TIERCEL_TILE(11) TIERCEL_TILE(12) TIERCEL_TILE(13) TIERCEL_TILE(14)
#undef TIERCEL_TILE
  return nullptr;
}

template <bool Masked, bool Unit>
TileFn tile_of(int64_t rows, int64_t regs) {
  if constexpr (kPanelRegs > 2) {
    if (regs == 4) return tile_of<4, Masked, Unit>(rows);
    if (regs == 3) return tile_of<3, Masked, Unit>(rows);
  }
  return regs == 2 ? tile_of<2, Masked, Unit>(rows) : tile_of<1, Masked, Unit>(rows);
}

// The tile of `rows` x `regs` registers. `unit`: A is contiguous along k, and k is even. `masked`: B may end within a register.
inline TileFn find_tile(int64_t rows, int64_t regs, bool unit, bool masked) {
  if (unit && !masked) return tile_of<false, true>(rows, regs);
  if (kCheapMask || masked) return tile_of<true, false>(rows, regs);
  if constexpr (!kCheapMask) return tile_of<false, false>(rows, regs);
  return nullptr;
}

}  // namespace
}  // namespace tiercel::TIERCEL_ISA

// The register tile of GEMM: MR rows by NV registers of C, kept in registers over all of k.
#pragma once
#include "simd/vec.h"

namespace tiercel::TIERCEL_ISA {
namespace {

// Registers of a full panel, and the most rows of a tile for each number of registers across: as many accumulators as the
// register file holds beside NV of B and one of A.
#if defined(TIERCEL_ISA_AVX512)
constexpr int kPanelRegs = 4;
constexpr int kMaxRows[] = {0, 14, 14, 9, 6};
constexpr bool kMaskAlways = true;  // a mask costs nothing
#elif defined(TIERCEL_ISA_NEON)
constexpr int kPanelRegs = 4;
constexpr int kMaxRows[] = {0, 14, 12, 8, 6};
constexpr bool kMaskAlways = false;
#elif defined(TIERCEL_ISA_AVX2)
constexpr int kPanelRegs = 2;
constexpr int kMaxRows[] = {0, 10, 6};
constexpr bool kMaskAlways = false;
#else
constexpr int kPanelRegs = 2;
constexpr int kMaxRows[] = {0, 6, 4};
constexpr bool kMaskAlways = false;
#endif

struct Tile {
  int64_t count, k;
  const float* const* a;
  int64_t a_offset, a_row, a_k;
  const float* const* b;
  int64_t b_offset, b_row;
  float* c;
  int64_t c_row;
  int64_t tail;       // columns in the last register
  bool accumulate;
  const float* bias;  // added once the sum is complete; null: none
  const float* clip;  // {low, high}; null: none
};

template <bool Masked> inline F load_tail(const float* p, int64_t n) { return Masked ? load(p, n) : load(p); }
template <bool Masked> inline void store_tail(float* p, F x, int64_t n) { Masked ? store(p, x, n) : store(p, x); }

template <int MR, int NV, bool Masked>
void tile(const Tile& t) {
  constexpr int kGroups = (MR + 2) / 3;  // rows p, p + row, p + 2 row: few pointers, no spilled ones
  const int64_t a_row = t.a_row, a_k = t.a_k, b_row = t.b_row, depth = t.k, tail = t.tail;
  F acc[MR][NV];
  if (t.accumulate) {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) {
        const float* c = t.c + i * t.c_row + v * kLanes;
        acc[i][v] = v == NV - 1 ? load_tail<Masked>(c, tail) : load(c);
      }
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) acc[i][v] = zero();
  }
  for (int64_t r = 0; r < t.count; ++r) {
    const float* b = t.b[r] + t.b_offset;
    const float* p[kGroups];
#pragma GCC unroll 8
    for (int g = 0; g < kGroups; ++g) p[g] = t.a[r] + t.a_offset + 3 * g * a_row;
    for (int64_t k = 0; k < depth; ++k) {
      F x[NV];
#pragma GCC unroll 4
      for (int v = 0; v < NV; ++v) x[v] = v == NV - 1 ? load_tail<Masked>(b + v * kLanes, tail) : load(b + v * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) {
        const F y = set1(p[i / 3][(i % 3) * a_row]);
#pragma GCC unroll 4
        for (int v = 0; v < NV; ++v) acc[i][v] = fma(y, x[v], acc[i][v]);
      }
      b += b_row;
#pragma GCC unroll 8
      for (int g = 0; g < kGroups; ++g) p[g] += a_k;
    }
  }
  if (t.bias) {
#pragma GCC unroll 4
    for (int v = 0; v < NV; ++v) {
      const F d = v == NV - 1 ? load_tail<Masked>(t.bias + v * kLanes, tail) : load(t.bias + v * kLanes);
#pragma GCC unroll 16
      for (int i = 0; i < MR; ++i) acc[i][v] = acc[i][v] + d;
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
      if (v == NV - 1) store_tail<Masked>(c, acc[i][v], tail);
      else store(c, acc[i][v]);
    }
}

using TileFn = void (*)(const Tile&);

template <int NV, bool Masked>
TileFn tile_of(int64_t rows) {
#define TIERCEL_TILE(r) if constexpr (r <= kMaxRows[NV]) if (rows == r) return &tile<r, NV, Masked>;
  TIERCEL_TILE(1) TIERCEL_TILE(2) TIERCEL_TILE(3) TIERCEL_TILE(4) TIERCEL_TILE(5) TIERCEL_TILE(6) TIERCEL_TILE(7)
  TIERCEL_TILE(8) TIERCEL_TILE(9) TIERCEL_TILE(10) TIERCEL_TILE(11) TIERCEL_TILE(12) TIERCEL_TILE(13) TIERCEL_TILE(14)
#undef TIERCEL_TILE
  return nullptr;
}

template <bool Masked>
TileFn tile_of(int64_t rows, int64_t regs) {
  if (regs == 1) return tile_of<1, Masked>(rows);
  if (regs == 2) return tile_of<2, Masked>(rows);
  if constexpr (kPanelRegs > 2) {
    if (regs == 3) return tile_of<3, Masked>(rows);
    if (regs == 4) return tile_of<4, Masked>(rows);
  }
  return nullptr;
}

// The tile of `rows` x `regs` registers, the last of which has `tail` columns.
inline TileFn find_tile(int64_t rows, int64_t regs, int64_t tail) {
  if constexpr (kMaskAlways) return tile_of<true>(rows, regs);
  return tail == kLanes ? tile_of<false>(rows, regs) : tile_of<true>(rows, regs);
}

}  // namespace
}  // namespace tiercel::TIERCEL_ISA

#include "kernels/gemm/gemm.h"

#include "kernels/gemm/tile.h"

#include "kernels/gemm/dot.h"
#include "simd/transpose.h"

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int64_t kPanel = kPanelRegs * kLanes;
constexpr int64_t kBlockRows = 144;  // kBlockRows x kGemmDepth of A stay in L2 while B's panels pass by
// Where k is short C is most of the traffic: with all of B in L2, few rows of C are written at a time.
constexpr int64_t kShortDepth = 128, kSmallB = 131072, kSmallBlockRows = 24;

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// What the tiles may do in registers, and what is left for a pass over the fresh tile.
struct Split {
  const float* bias = nullptr;
  GemmAddend residual;
  float clip[2];
  bool has_clip = false, finish = false;
  GemmEpilogue rest;
};

void split_epilogue(const GemmEpilogue* e, Split* s) {
  if (!e) return;
  s->rest = *e;
  const GemmAddend& bias = e->add[0];
  const bool bias_in_tile = e->alpha == 1 && bias.data && bias.row == 0 && bias.col == 1 && bias.scale == 1;
  if (bias_in_tile) {
    s->bias = bias.data;
    s->rest.add[0].data = nullptr;
  }
  for (GemmAddend& d : s->rest.add) {  // the first that is left
    if (!d.data) continue;
    if (e->alpha == 1 && d.row != 0 && d.col == 1 && d.scale == 1) {
      s->residual = d;
      d.data = nullptr;
    }
    break;
  }
  if (e->alpha == 1 && !s->rest.add[0].data && !s->rest.add[1].data) {
    const Activation& a = e->activation;
    if (a.kind == ActivationKind::kRelu || a.kind == ActivationKind::kClip) {
      s->clip[0] = a.kind == ActivationKind::kRelu ? 0 : a.alpha;
      s->clip[1] = a.kind == ActivationKind::kRelu ? __builtin_inff() : a.beta;
      s->has_clip = true;
      s->rest.activation = {};
    }
  }
  s->finish = s->rest.alpha != 1 || s->rest.add[0].data || s->rest.add[1].data || s->rest.activation;
}

// All rows of a block over [k0, k1) of the inner dimension.
struct Pass {
  const GemmArgs& g;
  const Split& s;
  int64_t i0, m, k0, k1;
  bool first, last;

  // Columns [j, j + n) of the panel that begins at column `start`, in tiles of rows as even as can be.
  void slice(int64_t start, int64_t width, int64_t j, int64_t n, int64_t most, const float* ahead) const {
    const int64_t regs = (n + kLanes - 1) / kLanes, tiles = (m + most - 1) / most, base = m / tiles, longer = m % tiles;
    const bool packed = g.b_row == 0;
    Tile t;
    t.count = g.count;
    t.k = k1 - k0;
    t.chain = g.chain;
    t.a = g.a;
    t.a_row = g.a_row;
    t.a_k = g.a_k;
    t.b = g.b;
    t.b_row = packed ? width : g.b_row;
    t.b_offset = (packed ? g.k * start : start) + k0 * t.b_row + j - start;
    t.c_row = g.c_row;
    t.tail = n - (regs - 1) * kLanes;
    t.accumulate = g.accumulate || !first;
    t.bias = last && s.bias ? s.bias + j : nullptr;
    t.residual = nullptr;
    t.residual_row = s.residual.row;
    t.clip = last && s.has_clip ? s.clip : nullptr;
    // What comes next in B, spread over the tiles of this panel.
    t.ahead_step = ahead ? (8 * n + tiles - 1) / tiles : 0;
    t.ahead_lines = (t.ahead_step + kCacheLine - 1) / kCacheLine;
    t.ahead = reinterpret_cast<const char*>(ahead ? ahead : g.b[0]);
    int64_t i = i0;
    for (int64_t x = 0; x < tiles; ++x) {
      const int64_t rows = base + (x < longer);
      t.a_offset = i * g.a_row + k0 * g.a_k;
      t.c = g.c + i * g.c_row + j;
      if (last && s.residual.data) {
        t.residual = s.residual.data + i * t.residual_row + j;
        fetch_rows(t.residual, t.residual_row, rows, n);
      }
      if (last && s.finish) fetch_addends(s.rest, rows, n, i, j);
      find_tile(rows, regs, g.a_k == 1 && t.k % 2 == 0, !packed && t.tail < kLanes)(t);
      if (last && s.finish) finish_tile(t.c, g.c_row, rows, n, s.rest, i, j);
      i += rows;
      t.ahead += t.ahead_step * t.k / 2;
    }
  }

  // One row by the panels at columns `start` and `start + apart`: a single one's chains would wait for themselves, and a single stream
  // through B comes from L2 at half the speed of two.
  void row_of_pair(int64_t start, int64_t apart) const {
    constexpr int kRegs = 2 * kPanelRegs;
    const float *b0 = g.b[0] + g.k * start + k0 * kPanel, *b1 = b0 + g.k * apart, *a = g.a[0] + i0 * g.a_row;
    const auto column = [&](int v) { return start + (v < kPanelRegs ? v * kLanes : apart + (v - kPanelRegs) * kLanes); };
    float* const c = g.c + i0 * g.c_row;
    F acc[kRegs];
    bool begun = g.accumulate || !first;
    for (int64_t k = k0; k < k1;) {
#pragma GCC unroll 8
      for (int v = 0; v < kRegs; ++v) acc[v] = zero();
#pragma GCC unroll 2
      for (const int64_t end = least(k + g.chain, k1); k < end; ++k, b0 += kPanel, b1 += kPanel) {
        const F x = set1(a[k]);
        F y[kRegs];  // read in order of their addresses: the hardware fetches ahead by streams
#pragma GCC unroll 8
        for (int v = 0; v < kPanelRegs; ++v) keep(y[v] = load(b0 + v * kLanes));
#pragma GCC unroll 8
        for (int v = 0; v < kPanelRegs; ++v) keep(y[kPanelRegs + v] = load(b1 + v * kLanes));
#pragma GCC unroll 8
        for (int v = 0; v < kRegs; ++v) acc[v] = fma(x, y[v], acc[v]);
      }
#pragma GCC unroll 8
      for (int v = 0; v < kRegs; ++v) {
        if (begun) acc[v] = load(c + column(v)) + acc[v];
        if (k < k1) store(c + column(v), acc[v]);
      }
      begun = true;
    }
#pragma GCC unroll 8
    for (int v = 0; v < kRegs; ++v) {
      F y = acc[v];
      if (last && s.bias) y = y + load(s.bias + column(v));
      if (last && s.residual.data) y = y + load(s.residual.data + i0 * s.residual.row + column(v));
      if (last && s.has_clip) y = min(set1(s.clip[1]), max(set1(s.clip[0]), y));
      store(c + column(v), y);
    }
    if (!last || !s.finish) return;
    finish_tile(c + start, g.c_row, 1, kPanel, s.rest, i0, start);
    finish_tile(c + start + apart, g.c_row, 1, kPanel, s.rest, i0, start + apart);
  }

  void panel(int64_t start) const {
    const int64_t n = least(kPanel, g.n - start), regs = (n + kLanes - 1) / kLanes, width = regs * kLanes;
    const float* ahead = nullptr;  // the panel after this one
    if (g.b_row == 0 && g.count == 1) {
      if (start + kPanel < g.n) ahead = g.b[0] + g.k * (start + kPanel) + k0 * kPanel;
      else ahead = k1 < g.k ? g.b[0] + k1 * (g.n < kPanel ? width : kPanel) : g.next_b;
    }
    if (kPanelRegs == 4 && regs == 4 && (m == 7 || m == 8)) {
      // One tile of half the width takes all rows, where two low ones would wait for B.
      slice(start, width, start, kPanel / 2, m, ahead);
      slice(start, width, start + kPanel / 2, n - kPanel / 2, m, ahead ? ahead + (k1 - k0) * kPanel / 2 : nullptr);
    } else {
      slice(start, width, start, n, kMaxRows[regs], ahead);
    }
  }
};

void gemm(const GemmArgs& g) {
  if (g.m <= 0 || g.n <= 0) return;
  Split s;
  split_epilogue(g.epilogue, &s);
  if (g.k <= 0 || g.count <= 0) {  // an empty sum
    if (!g.accumulate)
      for (int64_t i = 0; i < g.m; ++i)
        for (int64_t j = 0; j < g.n; ++j) g.c[i * g.c_row + j] = 0;
    if (g.epilogue) finish_tile(g.c, g.c_row, g.m, g.n, *g.epilogue, 0, 0);
    return;
  }
  // Panels of k as even as can be; an odd last step goes alone, for the fast tiles take two at once.
  const int64_t odd = g.count == 1 && g.k > 2 && g.a_k == 1 ? g.k % 2 : 0, even = g.k - odd;
  const int64_t depths = g.count > 1 ? 1 : (even + kGemmDepth - 1) / kGemmDepth;
  const int64_t depth = g.count > 1 ? g.k : ((even + depths - 1) / depths + 7) / 8 * 8;
  const int64_t rows = g.k <= kShortDepth && g.k * g.n <= kSmallB ? kSmallBlockRows : kBlockRows;
  const int64_t blocks = (g.m + rows - 1) / rows, block = (g.m + blocks - 1) / blocks;
  for (int64_t i = 0; i < g.m; i += block)
    for (int64_t k = 0; k < g.k;) {
      const int64_t end = k < even ? least(k + depth, even) : g.k;
      const Pass pass{g, s, i, least(block, g.m - i), k, end, k == 0, end == g.k};
      int64_t j = 0;
      if (pass.m == 1 && g.b_row == 0 && g.a_k == 1 && g.count == 1)
        if (const int64_t half = g.n / (2 * kPanel) * kPanel; half > 0) {  // a stream through each half, unbroken where k is one pass
          for (; j < half; j += kPanel) pass.row_of_pair(g.backwards ? half - kPanel - j : j, half);
          j = 2 * half;
        }
      for (; j < g.n; j += kPanel) pass.panel(j);
      k = end;
    }
}

void pack_b(const float* b, int64_t row, int64_t col, int64_t k, int64_t n, int64_t first, int64_t last, float* packed) {
  for (int64_t j = first; j < last; j += kPanel) {
    const int64_t columns = least(kPanel, n - j), width = (columns + kLanes - 1) / kLanes * kLanes;
    float* out = packed + k * j;
    if (col == 1) {
      for (int64_t i = 0; i < k; ++i, out += width) {
        const float* in = b + i * row + j;
        int64_t x = 0;
        for (; x + kLanes <= columns; x += kLanes) store(out + x, load(in + x));
        if (x < columns) store(out + x, load(in + x, columns - x));
      }
    } else if (row == 1) {  // squares are transposed in registers
      for (int64_t i = 0; i < k; i += kLanes) {
        const int64_t rows = least(kLanes, k - i);
        for (int64_t x = 0; x < width; x += kLanes) {
          const float* in = b + (j + x) * col + i;
          F r[kLanes];
#pragma GCC unroll 16
          for (int l = 0; l < kLanes; ++l, in += col) r[l] = x + l >= columns ? zero() : rows == kLanes ? load(in) : load(in, rows);
          transpose(r);
#pragma GCC unroll 16
          for (int l = 0; l < kLanes; ++l)
            if (l < rows) store(out + (i + l) * width + x, r[l]);
        }
      }
    } else {  // blocks that read and write whole lines
      constexpr int64_t kStep = 16;
      for (int64_t i = 0; i < k; i += kStep) {
        const int64_t end = least(i + kStep, k);
        for (int64_t x = 0; x < columns; ++x) {
          const float* in = b + (j + x) * col;
          for (int64_t y = i; y < end; ++y) out[y * width + x] = in[y * row];
        }
        for (int64_t y = i; y < end; ++y)
          for (int64_t x = columns; x < width; ++x) out[y * width + x] = 0;
      }
    }
  }
}

void finish(float* c, int64_t c_row, int64_t m, int64_t n, const GemmEpilogue& epilogue) {
  finish_tile(c, c_row, m, n, epilogue, 0, 0);
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(GemmKernels, gemm){kLanes, kPanel, &gemm, &pack_b, &dot, &finish};

}  // namespace tiercel::TIERCEL_ISA

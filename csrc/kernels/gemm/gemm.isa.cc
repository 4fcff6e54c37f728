#include "kernels/gemm/gemm.h"

#include "kernels/gemm/finish.h"
#include "kernels/gemm/tile.h"

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int64_t kPanel = kPanelRegs * kLanes;
constexpr int64_t kBlockColumns = 256;  // a block of B, kGemmDepth x kBlockColumns, stays in L2 while all rows pass over it

inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// What the tiles may do in registers, and what is left for a pass over the fresh tile.
struct Split {
  const float* bias = nullptr;
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

// Rows [i, i + rows) of the block of columns [j0, j1), over [k0, k1): one tile a panel.
struct Pass {
  const GemmArgs& g;
  const Split& s;
  int64_t k0, k1;
  bool first, last;

  void panel(int64_t i, int64_t rows, int64_t j, int64_t columns, int64_t step) const {
    // A full panel that is more rows than its tile takes goes in slices of `step` columns.
    const bool packed = g.b_row == 0;
    const int64_t width = packed ? (columns + kLanes - 1) / kLanes * kLanes : 0;
    for (int64_t at = 0; at < columns; at += step) {
      const int64_t n = least(step, columns - at), regs = (n + kLanes - 1) / kLanes;
      Tile t;
      t.count = g.count;
      t.k = k1 - k0;
      t.a = g.a;
      t.a_offset = i * g.a_row + k0 * g.a_k;
      t.a_row = g.a_row;
      t.a_k = g.a_k;
      t.b = g.b;
      t.b_row = packed ? width : g.b_row;
      t.b_offset = (packed ? g.k * j : j) + k0 * t.b_row + at;
      t.c = g.c + i * g.c_row + j + at;
      t.c_row = g.c_row;
      t.tail = n - (regs - 1) * kLanes;
      t.accumulate = g.accumulate || !first;
      t.bias = last && s.bias ? s.bias + j + at : nullptr;
      t.clip = last && s.has_clip ? s.clip : nullptr;
      find_tile(rows, regs, t.tail)(t);
      if (last && s.finish) finish_tile(t.c, g.c_row, rows, n, s.rest, i, j + at);
    }
  }

  // All rows over the panels of [j0, j1), in tiles of rows as even as can be. `step`: columns of a tile.
  void rows(int64_t j0, int64_t j1, int64_t step, int64_t most) const {
    const int64_t tiles = (g.m + most - 1) / most, base = g.m / tiles, longer = g.m % tiles;
    int64_t i = 0;
    for (int64_t x = 0; x < tiles; ++x) {
      const int64_t r = base + (x < longer);
      for (int64_t j = j0; j < j1; j += kPanel) panel(i, r, j, least(kPanel, j1 - j), step);
      i += r;
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
  // Two slices of half a panel take more rows at once: B passes through the core once where it would twice.
  const bool halves = kPanelRegs == 4 && g.m > kMaxRows[4 % (kPanelRegs + 1)] && g.m <= kMaxRows[2];
  const int64_t full_step = halves ? kPanel / 2 : kPanel, full_rows = kMaxRows[halves ? 2 : kPanelRegs];
  const int64_t full = g.n / kPanel * kPanel, rest_regs = (g.n - full + kLanes - 1) / kLanes;
  const int64_t depths = g.count > 1 ? 1 : (g.k + kGemmDepth - 1) / kGemmDepth;
  const int64_t depth = ((g.k + depths - 1) / depths + 7) / 8 * 8;
  for (int64_t j = 0; j < g.n; j += kBlockColumns) {
    const int64_t end = least(j + kBlockColumns, g.n), full_end = least(end, full);
    for (int64_t d = 0; d < depths; ++d) {
      const Pass pass{g, s, least(d * depth, g.k), d + 1 == depths ? g.k : least((d + 1) * depth, g.k), d == 0, d + 1 == depths};
      if (j < full_end) pass.rows(j, full_end, full_step, full_rows);
      if (full_end < end) pass.rows(full_end, end, kPanel, kMaxRows[rest_regs]);
    }
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

TIERCEL_KERNEL_TABLE_IS(GemmKernels, gemm){kLanes, kPanel, &gemm, &pack_b, &finish};

}  // namespace tiercel::TIERCEL_ISA

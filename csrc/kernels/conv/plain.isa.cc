#include "kernels/conv/plain.h"

#include "kernels/conv/clip.h"
#include "kernels/conv/tile_ends.h"

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int kWide = kConvBlock / kLanes;  // registers of a block

// Most pixels of a tile, for each width of a panel in blocks: sums and a row of weights fill the registers, pixels come from memory.
constexpr int kMaxRows = 16;
#if defined(TIERCEL_ISA_AVX512)
constexpr int kRows[kConvMaxBlocks + 1] = {0, 16, 14, 8, 6};
#elif defined(TIERCEL_ISA_AVX2) || defined(TIERCEL_ISA_NEON)
constexpr int kRows[kConvMaxBlocks + 1] = {0, 6, 0, 0, 0};
#else
constexpr int kRows[kConvMaxBlocks + 1] = {0, 2, 0, 0, 0};
#endif
constexpr int kMaxStride = 4;

struct Row {                     // one output row
  const float* x;                // of channel 0: row 0 of the image at depth 0
  int64_t d, h;                  // input coordinates of tap (0, 0)
  int64_t k_begin[2], k_end[2];  // taps inside the image, along depth and height
};

// Columns [0, n) from `at` of a row of `width`, zeros outside of it.
inline void copy_run(const float* row, int64_t at, int64_t width, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = static_cast<uint64_t>(at + i) < static_cast<uint64_t>(width) ? row[at + i] : 0.0f;
}

// R pixels by O blocks at y; `w0`: the input column of tap 0 of the first. K: the kernel's width with dilation 1, or 0: any.
// With one register a pixel a product asks for two loads; K known, an input is loaded once for all the pixels it reaches.
template <int R, int O, int S, int K>
void tile(const ConvShape& s, const ConvTask& t, const Row& row, int64_t w0, bool border, int64_t y_at) {
  constexpr int V = O * kWide;
  F acc[R][V];
#pragma GCC unroll 16
  for (int v = 0; v < V; ++v) {
    const F bias = load(t.bias + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) acc[r][v] = bias;
  }

  const int64_t kernel = s.kernel[2], dilation = s.dilation[2], reach = (R - 1) * S + (kernel - 1) * dilation + 1;
  const int64_t w_step = t.blocks * V * kLanes;  // from tap to tap
  float run[(kMaxRows - 1) * kMaxStride + kPlainReach];
  for (int64_t kd = row.k_begin[0]; kd < row.k_end[0]; ++kd)
    for (int64_t kh = row.k_begin[1]; kh < row.k_end[1]; ++kh) {
      const float* x = row.x + ((row.d + kd * s.dilation[0]) * s.in[1] + row.h + kh * s.dilation[1]) * s.in[2];
      const float* w_row = t.w + (kd * s.kernel[1] + kh) * kernel * w_step;
      for (int c = 0; c < t.blocks; ++c, x += s.x_block, w_row += V * kLanes) {
        if (border) copy_run(x, w0, s.in[2], reach, run);
        const float* p = border ? run : x + w0;
        const float* w = w_row;
        if constexpr (K > 0) {
          static_assert(V == 1);
          F weights[K];
#pragma GCC unroll 8
          for (int k = 0; k < K; ++k) weights[k] = load(w + k * w_step);
#pragma GCC unroll 64
          for (int i = 0; i < (R - 1) * S + K; ++i) {
            bool used = false;
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k) used |= i >= k && (i - k) % S == 0 && (i - k) / S < R;
            if (!used) continue;
            const F a = set1(p[i]);
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k)
              if (i >= k && (i - k) % S == 0 && (i - k) / S < R) acc[(i - k) / S][0] = fma(a, weights[k], acc[(i - k) / S][0]);
          }
          continue;
        }
        for (int64_t k = 0; k < kernel; ++k, p += dilation, w += w_step) {
          F weights[V];
#pragma GCC unroll 16
          for (int v = 0; v < V; ++v) weights[v] = load(w + v * kLanes);
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) {
            const F a = set1(p[r * S]);
#pragma GCC unroll 16
            for (int v = 0; v < V; ++v) acc[r][v] = fma(a, weights[v], acc[r][v]);
          }
        }
      }
    }

  if (t.residual) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      join(acc[r], [&](int v) { return t.residual + y_at + r * s.y_step[2] + v / kWide * s.y_block + v % kWide * kLanes; });
  }
  const F low = set1(t.low), high = set1(t.high);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) bound(acc[r], low, high);
  if (t.tail < kConvBlock) {
#pragma GCC unroll 4
    for (int v = V - kWide; v < V; ++v) {
      const M exists = lanes_below(t.tail, (v - (V - kWide)) * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) acc[r][v] = select(exists, acc[r][v], zero());
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    float* const y = t.y + y_at + r * s.y_step[2];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) store(y + v / kWide * s.y_block + v % kWide * kLanes, acc[r][v]);
  }
}

using TileFn = void (*)(const ConvShape&, const ConvTask&, const Row&, int64_t, bool, int64_t);
struct TileFns { TileFn f[3][2]; };  // [log2 of the stride][three columns]
template <int R, int O> constexpr TileFns tile_fns() {
  constexpr int kThree = O * kWide == 1 ? 3 : 0;
  if constexpr (R <= kRows[O])
    return {{{&tile<R, O, 1, 0>, &tile<R, O, 1, kThree>}, {&tile<R, O, 2, 0>, &tile<R, O, 2, kThree>}, {&tile<R, O, 4, 0>, &tile<R, O, 4, 0>}}};
  else
    return {};
}
#define TIERCEL_ROWS(O)                                                                                          \
  {tile_fns<1, O>(), tile_fns<2, O>(), tile_fns<3, O>(), tile_fns<4, O>(), tile_fns<5, O>(), tile_fns<6, O>(),   \
   tile_fns<7, O>(), tile_fns<8, O>(), tile_fns<9, O>(), tile_fns<10, O>(), tile_fns<11, O>(), tile_fns<12, O>(), \
   tile_fns<13, O>(), tile_fns<14, O>(), tile_fns<15, O>(), tile_fns<16, O>()}
constexpr TileFns kTiles[kConvMaxBlocks][kMaxRows] = {TIERCEL_ROWS(1), TIERCEL_ROWS(2), TIERCEL_ROWS(3), TIERCEL_ROWS(4)};
#undef TIERCEL_ROWS

void run(const ConvShape& s, const ConvTask& t, int64_t begin, int64_t end) {
  const TileFns* const fns = kTiles[t.panel - 1];
  const int64_t most = kRows[t.panel], stride = s.stride[2], reach = (s.kernel[2] - 1) * s.dilation[2];
  const int log = stride == 4 ? 2 : static_cast<int>(stride) - 1;
  const bool three = s.kernel[2] == 3 && s.dilation[2] == 1;
  while (begin < end) {
    const int64_t i = begin / s.out[2], od = i / s.out[1], oh = i % s.out[1];
    Row row;
    row.x = t.x;
    row.d = od * s.stride[0] + s.origin[0];
    row.h = oh * s.stride[1] + s.origin[1];
    clip(row.d, s.kernel[0], s.dilation[0], s.in[0], row.k_begin[0], row.k_end[0]);
    clip(row.h, s.kernel[1], s.dilation[1], s.in[1], row.k_begin[1], row.k_end[1]);
    int64_t j = begin % s.out[2];
    const int64_t columns = end - begin < s.out[2] - j ? end - begin : s.out[2] - j;
    const int64_t tiles = (columns + most - 1) / most, each = columns / tiles, longer = columns % tiles;  // balanced
    for (int64_t q = 0; q < tiles; ++q) {
      const int64_t n = each + (q < longer), w0 = j * stride + s.origin[2];
      const bool border = w0 < 0 || w0 + (n - 1) * stride + reach >= s.in[2];
      fns[n - 1].f[log][three](s, t, row, w0, border, od * s.y_step[0] + oh * s.y_step[1] + j * s.y_step[2]);
      j += n;
    }
    begin += columns;
  }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(PlainKernels, conv_plain){&run};

}  // namespace tiercel::TIERCEL_ISA

#include "kernels/conv/depthwise.h"

#include "simd/vec.h"

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int kBlock = 16;
constexpr int kWide = kBlock / kLanes;  // registers of a block: each is a pass of its own
constexpr int kColumns = 8;             // of a tile at most

alignas(64) const float kZeros[kBlock] = {};
alignas(64) const float kLaneNumbers[kBlock] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

struct Row {             // one output row
  int64_t d, h;          // input coordinates of tap (0, 0)
  int64_t k_begin[2], k_end[2];  // taps inside the image, along depth and height
};

// Columns [j, j + R) of a row, lanes [lane, lane + kLanes). K and S: kernel width and stride with dilation 1, or 0: any.
template <int R, int K, int S, bool kBorder>
void tile(const DepthwiseShape& s, const DepthwiseTask& t, const Row& row, int64_t j, int64_t y_at, int lane) {
  F acc[R];
  const F bias = load(t.bias + lane);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) acc[r] = t.residual ? bias + load(t.residual + y_at + r * kBlock + lane) : bias;
  const int64_t w0 = j * s.stride[2] + s.origin[2];
  const int64_t width = s.in[2];
  for (int64_t kd = row.k_begin[0]; kd < row.k_end[0]; ++kd)
    for (int64_t kh = row.k_begin[1]; kh < row.k_end[1]; ++kh) {
      const int64_t d = row.d + kd * s.dilation[0], h = row.h + kh * s.dilation[1];
      const float* const x = t.x + ((d * s.in[1] + h) * width + w0) * kBlock + lane;
      const float* const w = t.w + (kd * s.kernel[1] + kh) * s.kernel[2] * kBlock + lane;
      auto at = [&](int64_t i) {  // i columns right of w0
        if constexpr (kBorder)
          return load(static_cast<uint64_t>(w0 + i) < static_cast<uint64_t>(width) ? x + i * kBlock : kZeros);
        else
          return load(x + i * kBlock);
      };
      if constexpr (K > 0) {
        F wk[K];
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) wk[k] = load(w + k * kBlock);
#pragma GCC unroll 32
        for (int i = 0; i < (R - 1) * S + K; ++i) {
          const F v = at(i);
#pragma GCC unroll 8
          for (int k = 0; k < K; ++k)
            if (i >= k && (i - k) % S == 0 && (i - k) / S < R) acc[(i - k) / S] = fma(v, wk[k], acc[(i - k) / S]);
        }
      } else {
        const int64_t stride = s.stride[2], dilation = s.dilation[2];
        for (int64_t k = 0; k < s.kernel[2]; ++k) {
          const F wk = load(w + k * kBlock);
#pragma GCC unroll 8
          for (int r = 0; r < R; ++r) acc[r] = fma(at(r * stride + k * dilation), wk, acc[r]);
        }
      }
    }
  const F low = set1(t.low), high = set1(t.high);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) acc[r] = min(high, max(low, acc[r]));
  if (t.tail < lane + kLanes) {
    const M exists = lt(load(kLaneNumbers + lane), set1(static_cast<float>(t.tail)));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r] = select(exists, acc[r], zero());
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) store(t.y + y_at + r * kBlock + lane, acc[r]);
}

using TileFn = void (*)(const DepthwiseShape&, const DepthwiseTask&, const Row&, int64_t, int64_t, int);
struct TileFns { TileFn f[2]; };  // [border]
template <int R, int K, int S> constexpr TileFns tile_fns() { return {{&tile<R, K, S, false>, &tile<R, K, S, true>}}; }
#define TIERCEL_COLUMNS(K, S)                                                                   \
  {tile_fns<1, K, S>(), tile_fns<2, K, S>(), tile_fns<3, K, S>(), tile_fns<4, K, S>(), tile_fns<5, K, S>(), \
   tile_fns<6, K, S>(), tile_fns<7, K, S>(), tile_fns<8, K, S>()}
constexpr TileFns kAny[kColumns] = TIERCEL_COLUMNS(0, 0);
constexpr TileFns kW3S1[kColumns] = TIERCEL_COLUMNS(3, 1);
constexpr TileFns kW3S2[kColumns] = TIERCEL_COLUMNS(3, 2);
constexpr TileFns kW5S1[kColumns] = TIERCEL_COLUMNS(5, 1);
constexpr TileFns kW5S2[kColumns] = TIERCEL_COLUMNS(5, 2);
constexpr TileFns kW7S1[kColumns] = TIERCEL_COLUMNS(7, 1);
#undef TIERCEL_COLUMNS

const TileFns* choose(const DepthwiseShape& s) {
  if (s.dilation[2] != 1 && s.kernel[2] > 1) return kAny;
  const int64_t k = s.kernel[2], stride = s.stride[2];
  if (k == 3 && stride == 1) return kW3S1;
  if (k == 3 && stride == 2) return kW3S2;
  if (k == 5 && stride == 1) return kW5S1;
  if (k == 5 && stride == 2) return kW5S2;
  if (k == 7 && stride == 1) return kW7S1;
  return kAny;
}

// Taps k of [0, kernel) with 0 <= at + k dilation < in.
inline void clip(int64_t at, int64_t kernel, int64_t dilation, int64_t in, int64_t& begin, int64_t& end) {
  begin = at >= 0 ? 0 : (-at + dilation - 1) / dilation;
  end = in - 1 - at < 0 ? 0 : (in - 1 - at) / dilation + 1;
  if (begin > kernel) begin = kernel;
  if (end > kernel) end = kernel;
  if (end < begin) end = begin;
}

void run(const DepthwiseShape& s, const DepthwiseTask& t, int64_t begin, int64_t end) {
  const TileFns* const fns = choose(s);
  const int64_t reach = (s.kernel[2] - 1) * s.dilation[2];
  // Balanced tiles: 14 columns are 7 + 7.
  const int64_t tiles = (s.out[2] + kColumns - 1) / kColumns;
  if (!tiles) return;
  const int64_t columns = s.out[2] / tiles, longer = s.out[2] % tiles;
  for (int64_t i = begin; i < end; ++i) {
    Row row;
    row.d = i / s.out[1] * s.stride[0] + s.origin[0];
    row.h = i % s.out[1] * s.stride[1] + s.origin[1];
    clip(row.d, s.kernel[0], s.dilation[0], s.in[0], row.k_begin[0], row.k_end[0]);
    clip(row.h, s.kernel[1], s.dilation[1], s.in[1], row.k_begin[1], row.k_end[1]);
    int64_t j = 0;
    for (int64_t q = 0; q < tiles; ++q) {
      const int n = static_cast<int>(columns + (q < longer));
      const int64_t first = j * s.stride[2] + s.origin[2], last = first + (n - 1) * s.stride[2] + reach;
      const bool border = first < 0 || last >= s.in[2];
      for (int lane = 0; lane < kWide * kLanes; lane += kLanes)
        fns[n - 1].f[border](s, t, row, j, (i * s.out[2] + j) * kBlock, lane);
      j += n;
    }
  }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(DepthwiseKernels, depthwise){&run};

}  // namespace tiercel::TIERCEL_ISA

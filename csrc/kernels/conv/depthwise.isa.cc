#include "kernels/conv/depthwise.h"

#include <type_traits>

#include "kernels/conv/clip.h"
#include "kernels/conv/tile_ends.h"

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int kBlock = 16;
constexpr int kWide = kBlock / kLanes;  // registers of a block: each is a pass of its own
constexpr int kColumns = 8;             // of a tile at most
#if defined(__SANITIZE_ADDRESS__)
constexpr int kMostColumns = 4;  // of those that are compiled: checked load by load, they take minutes
#else
constexpr int kMostColumns = kColumns;
#endif
// Two rows at a time, where the register file holds both rows' sums and weights: an input then serves twice as many products.
#if defined(TIERCEL_ISA_AVX512) || defined(TIERCEL_ISA_NEON)
constexpr int kPairColumns = 4;         // of a tile at least
#else
constexpr int kPairColumns = kColumns + 1;  // never
#endif

struct Row {             // one output row
  int64_t d, h;          // input coordinates of tap (0, 0)
  int64_t k_begin[2], k_end[2];  // taps inside the image, along depth and height
  int64_t at, wrap;      // where x holds the row of tap k_begin[1]; rows from `wrap` on lie at its beginning
};

// Columns [j, j + R) of a row, lanes [lane, lane + kLanes). K and S: kernel width and stride with dilation 1, or 0: any.
template <int R, int K, int S, bool kBorder>
void tile(const DepthwiseShape& s, const DepthwiseTask& t, const Row& row, int64_t j, int64_t y_at, int lane) {
  F acc[R];
  const F bias = load(t.bias + lane);
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) acc[r] = bias;
  const int64_t w0 = j * s.stride[2] + s.origin[2];
  const int64_t width = s.in[2];
  for (int64_t kd = row.k_begin[0]; kd < row.k_end[0]; ++kd)
    for (int64_t kh = row.k_begin[1]; kh < row.k_end[1]; ++kh) {
      const int64_t d = row.d + kd * s.dilation[0], next = row.at + (kh - row.k_begin[1]) * s.dilation[1];
      const int64_t h = next < row.wrap ? next : next - row.wrap;
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
  if (t.residual) join(acc, [&](int r) { return t.residual + y_at + r * kBlock + lane; });
  bound(acc, set1(t.low), set1(t.high));
  if (t.tail < lane + kLanes) {
    const M exists = lanes_below(t.tail, lane);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[r] = select(exists, acc[r], zero());
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) store(t.y + y_at + r * kBlock + lane, acc[r]);
}

// The same for two rows, of which the first is `row`, with dilation 1.
template <int R, int K, int S, bool kBorder>
void pair(const DepthwiseShape& s, const DepthwiseTask& t, const Row& row, int64_t j, int64_t y_at, int lane) {
  F acc[2][R];
  const F bias = load(t.bias + lane);
  const int64_t y_row = s.out[2] * kBlock, width = s.in[2], w0 = j * S + s.origin[2];
#pragma GCC unroll 2
  for (int o = 0; o < 2; ++o)
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) acc[o][r] = bias;
  for (int64_t kd = row.k_begin[0]; kd < row.k_end[0]; ++kd) {
    const float* const plane = t.x + ((row.d + kd * s.dilation[0]) * s.in[1] * width + w0) * kBlock + lane;
    const float* const taps = t.w + kd * K * K * kBlock + lane;
    // Input rows [from, to) below row.h: kernel row i of the first output row, i - S of the second.
    auto rows = [&](auto first, auto second, int64_t from, int64_t to) __attribute__((always_inline)) {
      from = from < -row.h ? -row.h : from;
      to = to < s.in[1] - row.h ? to : s.in[1] - row.h;
      for (int64_t i = from; i < to; ++i) {
        const int64_t next = row.at + i - row.k_begin[1], h = next < row.wrap ? next : next - row.wrap;
        const float* const x = plane + h * width * kBlock;
        auto at = [&](int64_t c) {  // c columns right of w0
          if constexpr (kBorder)
            return load(static_cast<uint64_t>(w0 + c) < static_cast<uint64_t>(width) ? x + c * kBlock : kZeros);
          else
            return load(x + c * kBlock);
        };
        F wk[2][K];
#pragma GCC unroll 8
        for (int k = 0; k < K; ++k) {
          if constexpr (first) wk[0][k] = load(taps + (i * K + k) * kBlock);
          if constexpr (second) wk[1][k] = load(taps + ((i - S) * K + k) * kBlock);
        }
#pragma GCC unroll 32
        for (int c = 0; c < (R - 1) * S + K; ++c) {
          const F v = at(c);
#pragma GCC unroll 8
          for (int k = 0; k < K; ++k)
            if (c >= k && (c - k) % S == 0 && (c - k) / S < R) {
              if constexpr (first) acc[0][(c - k) / S] = fma(v, wk[0][k], acc[0][(c - k) / S]);
              if constexpr (second) acc[1][(c - k) / S] = fma(v, wk[1][k], acc[1][(c - k) / S]);
            }
        }
      }
    };
    rows(std::true_type(), std::false_type(), 0, S);
    rows(std::true_type(), std::true_type(), S, K);
    rows(std::false_type(), std::true_type(), K, K + S);
  }
  if (t.residual) {
#pragma GCC unroll 2
    for (int o = 0; o < 2; ++o) join(acc[o], [&](int r) { return t.residual + y_at + o * y_row + r * kBlock + lane; });
  }
  const bool part = t.tail < lane + kLanes;
  const M exists = lanes_below(t.tail, lane);
#pragma GCC unroll 2
  for (int o = 0; o < 2; ++o) {
    bound(acc[o], set1(t.low), set1(t.high));
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) store(t.y + y_at + o * y_row + r * kBlock + lane, part ? select(exists, acc[o][r], zero()) : acc[o][r]);
  }
}

using TileFn = void (*)(const DepthwiseShape&, const DepthwiseTask&, const Row&, int64_t, int64_t, int);
struct TileFns { TileFn f[2], two[2]; };  // [border]; two rows: null where there is no such form
template <int R, int K, int S> constexpr TileFns tile_fns() {
  if constexpr (R > kMostColumns)
    return {};
  else if constexpr (K > 0 && R >= kPairColumns)
    return {{&tile<R, K, S, false>, &tile<R, K, S, true>}, {&pair<R, K, S, false>, &pair<R, K, S, true>}};
  else
    return {{&tile<R, K, S, false>, &tile<R, K, S, true>}, {nullptr, nullptr}};
}
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

void run(const DepthwiseShape& s, const DepthwiseTask& t, int64_t begin, int64_t end) {
  const TileFns* const fns = choose(s);
  const int64_t reach = (s.kernel[2] - 1) * s.dilation[2];
  // Balanced tiles: 14 columns are 7 + 7.
  const int64_t tiles = (s.out[2] + kMostColumns - 1) / kMostColumns;
  if (!tiles) return;
  const int64_t columns = s.out[2] / tiles, longer = s.out[2] % tiles;
  const bool square = fns != kAny && s.kernel[1] == s.kernel[2] && s.stride[1] == s.stride[2] && s.dilation[1] == 1;
  for (int64_t i = begin; i < end;) {
    Row row;
    row.d = i / s.out[1] * s.stride[0] + s.origin[0];
    row.h = i % s.out[1] * s.stride[1] + s.origin[1];
    clip(row.d, s.kernel[0], s.dilation[0], s.in[0], row.k_begin[0], row.k_end[0]);
    clip(row.h, s.kernel[1], s.dilation[1], s.in[1], row.k_begin[1], row.k_end[1]);
    row.at = row.h + row.k_begin[1] * s.dilation[1];
    row.wrap = INT64_MAX;
    if (s.wrap > 0) {
      row.at = (row.at % s.wrap + s.wrap) % s.wrap;
      row.wrap = s.wrap;
    }
    const bool two = square && i + 1 < end && i % s.out[1] + 1 < s.out[1] && fns[columns - 1].two[0];
    int64_t j = 0;
    for (int64_t q = 0; q < tiles; ++q) {
      const int n = static_cast<int>(columns + (q < longer));
      const int64_t first = j * s.stride[2] + s.origin[2], last = first + (n - 1) * s.stride[2] + reach;
      const bool border = first < 0 || last >= s.in[2];
      const TileFn fn = two ? fns[n - 1].two[border] : fns[n - 1].f[border];
      for (int lane = 0; lane < kWide * kLanes; lane += kLanes) fn(s, t, row, j, (i * s.out[2] + j) * kBlock, lane);
      j += n;
    }
    i += two ? 2 : 1;
  }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(DepthwiseKernels, depthwise){&run};

}  // namespace tiercel::TIERCEL_ISA

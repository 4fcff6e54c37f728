#include "kernels/conv/grouped.h"

#include "kernels/conv/clip.h"
#include "kernels/conv/tile_ends.h"

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int kBlock = 16;
#if defined(TIERCEL_ISA_AVX512)
constexpr int kColumns = 14;  // of a tile at most: its sums, a row of weights, the lanes and an input must fit the registers
#else
constexpr int kColumns = 8;
#endif

struct Row {                     // one output row
  int64_t d, h;                  // input coordinates of tap (0, 0)
  int64_t k_begin[2], k_end[2];  // taps inside the image, along depth and height
};

// Columns [j, j + R) of a row. K and S: kernel width and stride with dilation 1, or 0: any. Each input is permuted once a kernel row and
// step, and used for all the columns it reaches.
template <int R, int K, int S, bool kBorder, bool kUneven>
void tile(const GroupedShape& s, const GroupedTask& t, const Row& row, int64_t j, int64_t y_at) {
  F acc[R];
  const F bias = load(t.bias);
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) acc[r] = bias;
  const int64_t w0 = j * s.stride[2] + s.origin[2], width = s.in[2];
  const int64_t w_step = s.kernel[2] * kLanes, w_row = t.steps * w_step;
  for (int64_t kd = row.k_begin[0]; kd < row.k_end[0]; ++kd)
    for (int64_t kh = row.k_begin[1]; kh < row.k_end[1]; ++kh) {
      const int64_t d = row.d + kd * s.dilation[0], h = row.h + kh * s.dilation[1];
      const float* const pixel = t.x + ((d * s.in[1] + h) * width + w0) * kBlock;
      const float* w = t.w + (kd * s.kernel[1] + kh) * w_row;
      for (int i = 0; i < t.steps; ++i, w += w_step) {
        const float* const x = pixel + t.step[i].x;
        const I lane = iload(t.step[i].lane);
        [[maybe_unused]] const M reads = igt(lane, iset1(-1));
        const I from = kUneven ? lane & iset1(kLanes - 1) : lane;
        auto at = [&](int64_t c) __attribute__((always_inline)) {  // c columns right of w0
          const float* const pixel = !kBorder || static_cast<uint64_t>(w0 + c) < static_cast<uint64_t>(width) ? x + c * kBlock : kZeros;
          const F v = permute(load(pixel), from);
          if constexpr (kUneven) return select(reads, v, zero());
          else return v;
        };
        if constexpr (K > 0) {
          F wk[K];
#pragma GCC unroll 8
          for (int k = 0; k < K; ++k) wk[k] = load(w + k * kLanes);
#pragma GCC unroll 32
          for (int c = 0; c < (R - 1) * S + K; ++c) {
            const F v = at(c);
#pragma GCC unroll 8
            for (int k = 0; k < K; ++k)
              if (c >= k && (c - k) % S == 0 && (c - k) / S < R) acc[(c - k) / S] = fma(v, wk[k], acc[(c - k) / S]);
          }
        } else {
          const int64_t stride = s.stride[2], dilation = s.dilation[2];
          for (int64_t k = 0; k < s.kernel[2]; ++k) {
            const F wk = load(w + k * kLanes);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) acc[r] = fma(at(r * stride + k * dilation), wk, acc[r]);
          }
        }
      }
    }
  if (t.residual) join(acc, [&](int r) { return t.residual + y_at + r * kBlock; });
  bound(acc, set1(t.low), set1(t.high));
  if (t.tail < kLanes) {
    const M exists = lanes_below(t.tail, 0);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) acc[r] = select(exists, acc[r], zero());
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) store(t.y + y_at + r * kBlock, acc[r]);
}

using TileFn = void (*)(const GroupedShape&, const GroupedTask&, const Row&, int64_t, int64_t);
struct TileFns { TileFn f[3]; };  // inside, at a border, uneven (rare: at a border or not)
template <int R, int K, int S> constexpr TileFns tile_fns() {
  if constexpr (R <= kColumns)
    return {{&tile<R, K, S, false, false>, &tile<R, K, S, true, false>, &tile<R, K, S, true, true>}};
  else
    return {};
}
#define TIERCEL_COLUMNS(K, S)                                                                               \
  {tile_fns<1, K, S>(), tile_fns<2, K, S>(), tile_fns<3, K, S>(), tile_fns<4, K, S>(), tile_fns<5, K, S>(),   \
   tile_fns<6, K, S>(), tile_fns<7, K, S>(), tile_fns<8, K, S>(), tile_fns<9, K, S>(), tile_fns<10, K, S>(),  \
   tile_fns<11, K, S>(), tile_fns<12, K, S>(), tile_fns<13, K, S>(), tile_fns<14, K, S>()}
constexpr TileFns kAny[14] = TIERCEL_COLUMNS(0, 0);
constexpr TileFns kW3S1[14] = TIERCEL_COLUMNS(3, 1);
constexpr TileFns kW3S2[14] = TIERCEL_COLUMNS(3, 2);
#undef TIERCEL_COLUMNS

void run(const GroupedShape& s, const GroupedTask& t, int64_t begin, int64_t end) {
  const TileFns* fns = kAny;
  if (s.kernel[2] == 3 && s.dilation[2] == 1 && s.stride[2] == 1) fns = kW3S1;
  if (s.kernel[2] == 3 && s.dilation[2] == 1 && s.stride[2] == 2) fns = kW3S2;
  const int64_t reach = (s.kernel[2] - 1) * s.dilation[2];
  // Balanced tiles: 20 columns are 10 + 10.
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
      fns[n - 1].f[t.uneven ? 2 : first < 0 || last >= s.in[2]](s, t, row, j, (i * s.out[2] + j) * kBlock);
      j += n;
    }
  }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(GroupedKernels, grouped){&run};

}  // namespace tiercel::TIERCEL_ISA

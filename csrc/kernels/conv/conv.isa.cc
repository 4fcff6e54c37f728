#include "kernels/conv/conv.h"

#include "kernels/conv/tile_ends.h"
#include "simd/activation.h"

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int kMaxRows = 12;
constexpr int kChain = 8;  // input blocks times taps that are summed in one chain: rounding errors grow with the square root of its length

// The register file decides: accumulators, a panel's row of weights and one broadcast must fit.
#if defined(TIERCEL_ISA_AVX512) && defined(__SANITIZE_ADDRESS__)
constexpr int kPanel = 4;  // tiles of full height, checked load by load, take a quarter of an hour to compile
constexpr int kRows[kConvMaxBlocks + 1] = {0, 3, 3, 2, 2};
#elif defined(TIERCEL_ISA_AVX512)
constexpr int kPanel = 4;
constexpr int kRows[kConvMaxBlocks + 1] = {0, 12, 12, 8, 6};
#elif defined(TIERCEL_ISA_AVX2)
constexpr int kPanel = 1;
constexpr int kRows[kConvMaxBlocks + 1] = {0, 6, 0, 0, 0};
#elif defined(TIERCEL_ISA_NEON)
constexpr int kPanel = 1;
constexpr int kRows[kConvMaxBlocks + 1] = {0, 6, 0, 0, 0};
#else
constexpr int kPanel = 1;
constexpr int kRows[kConvMaxBlocks + 1] = {0, 2, 0, 0, 0};
#endif

struct Tile {
  const float* x[kMaxRows];  // displacement 0 of each pixel; may point outside the image
  int64_t y[kMaxRows];       // floats from the origin of the output
  int32_t at[kMaxRows][3];   // input coordinates of displacement 0
};

inline bool inside(const ConvShape& s, const int32_t* at, const int32_t* tap) {
  return static_cast<uint64_t>(at[0] + tap[0]) < static_cast<uint64_t>(s.in[0]) &&
         static_cast<uint64_t>(at[1] + tap[1]) < static_cast<uint64_t>(s.in[1]) &&
         static_cast<uint64_t>(at[2] + tap[2]) < static_cast<uint64_t>(s.in[2]);
}

// acc[r][v] += sum over `kUnroll` channels of p[r][off + c] w[c][v]
template <int R, int V, int kUnroll>
inline __attribute__((always_inline)) void accumulate(F (&acc)[R][V], const float* const (&p)[R], int64_t off, const float* w) {
#pragma GCC unroll 16
  for (int c = 0; c < kUnroll; ++c) {
    F row[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) row[v] = load(w + (c * V + v) * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const F x = set1(p[r][off + c]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[r][v] = fma(x, row[v], acc[r][v]);
    }
  }
}

// Input blocks [b0, b1), and weights to bring into L2 beside: `lines` cache lines from `next` for each block and tap.
struct Pass {
  int64_t b0, b1;
  const float* next;
  int lines;
};
constexpr int64_t kLine = 16;  // floats

// What x is: blocks of channels, the same where there is one tap, within the image (a loop less: tiles of one block of outputs gain a fifth),
// or planes.
enum class Form { kBlocks, kPoint, kPlanes };

// Tile of R pixels by O blocks.
template <int R, int O, bool kBorder, Form kForm>
void tile(const ConvShape& s, const ConvTask& t, const Tile& tile, const Pass& pass) {
  constexpr bool kPlain = kForm == Form::kPlanes;
  const int64_t b0 = pass.b0, b1 = pass.b1;
  constexpr int kWide = kConvBlock / kLanes;  // registers of a block
  constexpr int V = O * kWide;
  F acc[R][V];
  const float* sum = b0 ? t.y : t.residual;  // what the chain's sum joins: those before it, or the residual, or null
#pragma GCC unroll 16
  for (int v = 0; v < V; ++v) {
    const F b = b0 ? zero() : load(t.bias + v * kLanes);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) acc[r][v] = b;
  }
  if (sum && !kPlain) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int o = 0; o < O; ++o) __builtin_prefetch(sum + tile.y[r] + o * s.y_block, 0, 3);
  }

  const float* p[R];
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) p[r] = tile.x[r];
  const float* w = t.w + b0 * s.taps * kConvBlock * O * kConvBlock;
  const auto end_chain = [&]() __attribute__((always_inline)) {  // its sums join those before them
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) {
        const int64_t at = tile.y[r] + v / kWide * s.y_block + v % kWide * kLanes;
        store(t.y + at, sum ? load(sum + at) + acc[r][v] : acc[r][v]);
        acc[r][v] = zero();
      }
    sum = t.y;
  };
  if constexpr (kForm == Form::kPoint) {
    const float* next = pass.next;
    for (int64_t b = b0; b < b1;) {
      for (const int64_t end = b1 - b < kChain ? b1 : b + kChain; b < end; ++b) {
        int64_t off = b * s.x_block;
        for (int i = 0; i < pass.lines; ++i, next += kLine) __builtin_prefetch(next, 0, 2);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) __builtin_prefetch(p[r] + off + R * s.x_pixel, 0, 3);
        for (const int64_t last = off + (b + 1 < t.blocks ? kConvBlock : t.last); off != last; off += 4) {
          accumulate<R, V, 4>(acc, p, off, w);
          w += 4 * V * kLanes;
        }
      }
      if (b < b1) end_chain();
    }
  } else if constexpr (kPlain) {
    for (int k = 0; k < s.taps; ++k) {
      int64_t off = s.tap_offset[k];
      [[maybe_unused]] int64_t step[R];
      if constexpr (kBorder) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
          const bool in = inside(s, tile.at[r], s.tap + 3 * k);
          p[r] = in ? tile.x[r] + off : kZeros;
          step[r] = in ? s.x_block : 0;
        }
        off = 0;
      }
      for (int b = t.blocks; b > 0; --b) {
        accumulate<R, V, 1>(acc, p, off, w);
        w += V * kLanes;
        if constexpr (kBorder) {
          if (b == 1) break;  // no address past the image
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) p[r] += step[r];
        } else {
          off += s.x_block;
        }
      }
    }
  } else {
    const float* next = pass.next;
    int chain = kChain;
    for (int64_t b = b0; b < b1; ++b) {
      const int64_t n = b + 1 < t.blocks ? kConvBlock : t.last;
      for (int k = 0, until = s.fetch; k < s.taps; ++k) {
        if (--chain < 0) {
          chain = kChain - 1;
          end_chain();
        }
        int64_t off = s.tap_offset[k] + b * s.x_block;
        for (int i = 0; i < pass.lines; ++i, next += kLine) __builtin_prefetch(next, 0, 2);
        if (--until == 0) {  // what the next tile is the first to read: another core may have written it
          until = s.fetch;
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) __builtin_prefetch(tile.x[r] + off + R * s.x_pixel, 0, 3);
        }
        if constexpr (kBorder) {
          bool any = false;
#pragma GCC unroll 16
          for (int r = 0; r < R; ++r) {
            const bool in = inside(s, tile.at[r], s.tap + 3 * k);
            any |= in;
            p[r] = in ? tile.x[r] + off : kZeros;
          }
          if (!any && t.finite) {  // a tap in the padding of all pixels: wide dilations, few planes of depth
            w += n * V * kLanes;
            continue;
          }
          off = 0;
        }
        for (const int64_t end = off + n; off != end; off += 4) {
          accumulate<R, V, 4>(acc, p, off, w);
          w += 4 * V * kLanes;
        }
      }
    }
  }

  if (sum) {
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
      join(acc[r], [&](int v) { return sum + tile.y[r] + v / kWide * s.y_block + v % kWide * kLanes; });
  }
  if (b1 == t.blocks) {
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
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r) {
    float* const q = t.y + tile.y[r];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) store(q + v / kWide * s.y_block + v % kWide * kLanes, acc[r][v]);
  }
}

using TileFn = void (*)(const ConvShape&, const ConvTask&, const Tile&, const Pass&);
struct TileFns { TileFn f[2][3]; };  // [border][form]

template <int R, int O> constexpr TileFns tile_fns() {
  if constexpr (R <= kRows[O])
    return {{{&tile<R, O, false, Form::kBlocks>, &tile<R, O, false, O == 1 ? Form::kPoint : Form::kBlocks>, &tile<R, O, false, Form::kPlanes>},
             {&tile<R, O, true, Form::kBlocks>, &tile<R, O, true, Form::kBlocks>, &tile<R, O, true, Form::kPlanes>}}};
  else
    return {};
}
#define TIERCEL_ROWS(O)                                                                                          \
  {tile_fns<1, O>(), tile_fns<2, O>(), tile_fns<3, O>(), tile_fns<4, O>(), tile_fns<5, O>(), tile_fns<6, O>(),   \
   tile_fns<7, O>(), tile_fns<8, O>(), tile_fns<9, O>(), tile_fns<10, O>(), tile_fns<11, O>(), tile_fns<12, O>()}
constexpr TileFns kTiles[kConvMaxBlocks][kMaxRows] = {TIERCEL_ROWS(1), TIERCEL_ROWS(2), TIERCEL_ROWS(3), TIERCEL_ROWS(4)};
#undef TIERCEL_ROWS

// Range of output coordinates along an axis whose taps all lie inside.
struct Span { int64_t begin, end; };
Span interior(const ConvShape& s, int axis) {
  int64_t low = INT32_MAX, high = INT32_MIN;
  for (int k = 0; k < s.taps; ++k) {
    const int64_t d = s.tap[3 * k + axis];
    if (d < low) low = d;
    if (d > high) high = d;
  }
  // 0 <= i stride + origin + low and i stride + origin + high < in
  const int64_t first = -(s.origin[axis] + low), last = s.in[axis] - 1 - s.origin[axis] - high;
  if (last < 0) return {0, 0};
  return {first <= 0 ? 0 : (first + s.stride[axis] - 1) / s.stride[axis], last / s.stride[axis] + 1};
}

// Walks the output grid; what belongs to a row is computed once a row.
struct Walker {
  const ConvShape& s;
  const float* x;
  Span span[3];
  int64_t at[3];
  const float* row;
  int64_t y_row;
  bool row_inside;

  Walker(const ConvShape& shape, const ConvTask& t, int64_t begin) : s(shape), x(t.x) {
    for (int a = 0; a < 3; ++a) span[a] = interior(s, a);
    at[2] = begin % s.out[2];
    at[1] = begin / s.out[2] % s.out[1];
    at[0] = begin / s.out[2] / s.out[1];
    enter_row();
  }
  void enter_row() {
    const int64_t d = at[0] * s.stride[0] + s.origin[0], h = at[1] * s.stride[1] + s.origin[1];
    row = x + ((d * s.in[1] + h) * s.in[2] + s.origin[2]) * s.x_pixel;
    y_row = at[0] * s.y_step[0] + at[1] * s.y_step[1];
    row_inside = at[0] >= span[0].begin && at[0] < span[0].end && at[1] >= span[1].begin && at[1] < span[1].end;
  }
  // The next n pixels; true when some tap of them lies outside the image.
  bool take(int n, Tile& tile) {
    if (row_inside && at[2] >= span[2].begin && at[2] + n <= span[2].end && at[2] + n <= s.out[2]) {  // a run of a row: no coordinates are needed
      const float* const x0 = row + at[2] * s.stride[2] * s.x_pixel;
      const int64_t y0 = y_row + at[2] * s.y_step[2], x_step = s.stride[2] * s.x_pixel, y_step = s.y_step[2];
      for (int r = 0; r < n; ++r) {
        tile.x[r] = x0 + r * x_step;
        tile.y[r] = y0 + r * y_step;
      }
      at[2] += n;
      if (at[2] == s.out[2]) next_row();
      return false;
    }
    bool border = false;
    for (int r = 0; r < n; ++r) {
      const int64_t j = at[2];
      tile.x[r] = row + j * s.stride[2] * s.x_pixel;
      tile.y[r] = y_row + j * s.y_step[2];
      tile.at[r][0] = static_cast<int32_t>(at[0] * s.stride[0] + s.origin[0]);
      tile.at[r][1] = static_cast<int32_t>(at[1] * s.stride[1] + s.origin[1]);
      tile.at[r][2] = static_cast<int32_t>(j * s.stride[2] + s.origin[2]);
      border |= !row_inside || j < span[2].begin || j >= span[2].end;
      if (++at[2] == s.out[2]) next_row();
    }
    return border;
  }
  void next_row() {
    at[2] = 0;
    if (++at[1] == s.out[1]) { at[1] = 0; ++at[0]; }
    enter_row();
  }
};

void run(const ConvShape& s, const ConvTask& t, int64_t begin, int64_t end) {
  if (begin >= end) return;
  const int64_t most = kRows[t.panel];
  const int64_t tiles = (end - begin + most - 1) / most;
  const int64_t rows = (end - begin) / tiles, longer = (end - begin) % tiles;  // balanced: no tile is a remainder
  const int64_t pass = s.plain || t.pass <= 0 ? t.blocks : t.pass;
  const TileFns* const fns = kTiles[t.panel - 1];
  const int form = static_cast<int>(s.plain ? Form::kPlanes : s.taps == 1 && s.tap_offset[0] == 0 ? Form::kPoint : Form::kBlocks);
  for (int64_t b = 0; b < t.blocks; b += pass) {
    const int64_t b_end = b + pass < t.blocks ? b + pass : t.blocks;
    // The weights of the next pass, or the next task's, in shares of a tile each.
    const int64_t block = s.taps * kConvBlock * t.panel * kConvBlock, steps = (b_end - b) * s.taps;
    const float* next = b_end < t.blocks ? t.w + b_end * block : t.next;
    const int64_t ahead = b_end < t.blocks ? (t.blocks - b_end < pass ? t.blocks - b_end : pass) * block : t.next ? t.next_size : 0;
    int64_t left = (ahead + kLine - 1) / kLine;
    const int64_t share = left && steps ? (left + tiles * steps - 1) / (tiles * steps) : 0;  // lines a step
    Walker walk(s, t, begin);
    Tile tile;
    for (int64_t i = 0; i < tiles; ++i) {
      const int n = static_cast<int>(rows + (i < longer));
      const bool border = walk.take(n, tile);
      const Pass p{b, b_end, next, left > 0 ? static_cast<int>(share) : 0};
      left -= share * steps;
      next += share * steps * kLine;
      fns[n - 1].f[border][form](s, t, tile, p);
    }
  }
}

bool has_nan(const float* y, int64_t step, int64_t n) {
  M some = is_nan(zero());
  for (int64_t i = 0; i < n; ++i, y += step)
    for (int lane = 0; lane < kConvBlock; lane += kLanes) some = some | is_nan(load(y + lane));
  return any(some);
}

void activate_pixels(const Activation& a, float* y, int64_t n, int tail) {
  activate(a, y, y, n * kConvBlock);
  if (tail < kConvBlock)
    for (int64_t i = 0; i < n; ++i)
      for (int c = tail; c < kConvBlock; ++c) y[i * kConvBlock + c] = 0;
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(ConvKernels, conv){
    kLanes, kPanel, {kRows[0], kRows[1], kRows[2], kRows[3], kRows[4]}, &run, &has_nan, &activate_pixels};

}  // namespace tiercel::TIERCEL_ISA

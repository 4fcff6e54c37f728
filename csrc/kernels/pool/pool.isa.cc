#include "kernels/pool/pool.h"

#include "simd/math.h"

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int kBlock = 16;
constexpr int kColumns = 4;

alignas(64) const float kLaneNumbers[kBlock] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

struct Max {
  static F start() { return set1(-INFINITY); }
  static F add(F a, F b) { return select(is_nan(a), a, max(a, b)); }  // max(a, b) is b when b is NaN
  static float add(float a, float b) { return b > a || b != b ? b : a; }
  static F finish(F a, float) { return a; }
  static float finish(float a, float) { return a; }
  static float all(F a) { return any(is_nan(a)) ? NAN : hmax(a); }
};
struct Mean {
  static F start() { return zero(); }
  static F add(F a, F b) { return a + b; }
  static float add(float a, float b) { return a + b; }
  static F finish(F a, float count) { return a / set1(count); }
  static float finish(float a, float count) { return a / count; }
  static float all(F a) { return sum(a); }
};

// Taps of one axis at one output coordinate: those inside the image, and how many count in a mean.
struct Taps { int64_t at, begin, end, count; };
inline Taps taps_at(const PoolShape& s, int axis, int64_t o) {
  const int64_t d = s.dilation[axis], at = o * s.stride[axis] + s.origin[axis];
  auto below = [&](int64_t limit) {  // taps k with at + k d < limit
    const int64_t n = limit <= at ? 0 : (limit - at + d - 1) / d;
    return n < s.kernel[axis] ? n : s.kernel[axis];
  };
  Taps t{at, at >= 0 ? 0 : (-at + d - 1) / d, below(s.in[axis]), 0};
  if (t.end < t.begin) t.end = t.begin = 0;
  t.count = s.count_padding ? below(s.limit[axis]) : t.end - t.begin;
  return t;
}

// R columns from input column `at`, for which taps [w.begin, w.end) lie inside.
template <class Op, int R>
inline void columns(const PoolShape& s, const float* x, const Taps& d, const Taps& h, const Taps& w, int lane, F (&acc)[R]) {
  for (int r = 0; r < R; ++r) acc[r] = Op::start();
  const int64_t step = s.stride[2] * kBlock;
  for (int64_t i = d.begin; i < d.end; ++i)
    for (int64_t j = h.begin; j < h.end; ++j) {
      const float* p = x + (((d.at + i * s.dilation[0]) * s.in[1] + h.at + j * s.dilation[1]) * s.in[2] + w.at + w.begin * s.dilation[2]) * kBlock + lane;
      for (int64_t k = w.begin; k < w.end; ++k, p += s.dilation[2] * kBlock)
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) acc[r] = Op::add(acc[r], load(p + r * step));
    }
}

template <class Op>
void block(const PoolShape& s, const float* x, float* y, int tail, int64_t begin, int64_t end) {
  const int64_t reach = (s.kernel[2] - 1) * s.dilation[2];
  for (int64_t row = begin; row < end; ++row) {
    const Taps d = taps_at(s, 0, row / s.out[1]), h = taps_at(s, 1, row % s.out[1]);
    float* out = y + row * s.out[2] * kBlock;
    for (int64_t o = 0; o < s.out[2];) {
      Taps w = taps_at(s, 2, o);
      const int64_t last = w.at + (kColumns - 1) * s.stride[2] + reach;
      const int n = o + kColumns <= s.out[2] && w.at >= 0 && last < s.in[2] ? kColumns : 1;
      const float count = static_cast<float>(d.count * h.count * w.count);
      for (int lane = 0; lane < kBlock; lane += kLanes) {
        const M exists = lt(load(kLaneNumbers + lane), set1(static_cast<float>(tail)));
        auto put = [&](int64_t r, F a) { store(out + (o + r) * kBlock + lane, select(exists, Op::finish(a, count), zero())); };
        if (n == kColumns) {
          F acc[kColumns];
          columns<Op>(s, x, d, h, w, lane, acc);
#pragma GCC unroll 8
          for (int r = 0; r < kColumns; ++r) put(r, acc[r]);
        } else {
          F acc[1];
          columns<Op>(s, x, d, h, w, lane, acc);
          put(0, acc[0]);
        }
      }
      o += n;
    }
  }
}

// out[o] = the pool of p[o step + k dilation]. S: the step where it is known, so that the compiler makes vectors of the row; else 0.
template <class Op, int S>
void along(const float* __restrict p, int64_t n, const PoolShape& s, float count, float* __restrict out) {
  const int64_t step = S > 0 ? S : s.stride[2];
  for (int64_t o = 0; o < n; ++o) out[o] = p[o * step];
  for (int64_t k = 1; k < s.kernel[2]; ++k) {
    p += s.dilation[2];
    for (int64_t o = 0; o < n; ++o) out[o] = Op::add(out[o], p[o * step]);
  }
  for (int64_t o = 0; o < n; ++o) out[o] = Op::finish(out[o], count);
}

// Down the columns in registers, then along the row of results: windows inside the image together, those at its ends one by one.
template <class Op>
void plane(const PoolShape& s, const float* x, float* y, float* line, int64_t begin, int64_t end) {
  const int64_t room = s.in[2] - 1 - (s.kernel[2] - 1) * s.dilation[2] - s.origin[2];  // of the last window's first tap
  int64_t low = s.origin[2] >= 0 ? 0 : (-s.origin[2] + s.stride[2] - 1) / s.stride[2], high = room < 0 ? 0 : room / s.stride[2] + 1;
  if (high > s.out[2]) high = s.out[2];
  if (low > high) low = high;
  for (int64_t row = begin; row < end; ++row) {
    const Taps d = taps_at(s, 0, row / s.out[1]), h = taps_at(s, 1, row % s.out[1]);
    for (int64_t c = 0; c < s.in[2]; c += kLanes) {
      const int64_t n = s.in[2] - c < kLanes ? s.in[2] - c : kLanes;
      F acc = Op::start();
      for (int64_t i = d.begin; i < d.end; ++i)
        for (int64_t j = h.begin; j < h.end; ++j) {
          const float* const p = x + ((d.at + i * s.dilation[0]) * s.in[1] + h.at + j * s.dilation[1]) * s.in[2] + c;
          acc = Op::add(acc, n == kLanes ? load(p) : load(p, n));
        }
      if (n == kLanes) store(line + c, acc);
      else store(line + c, acc, n);
    }
    float* const out = y + row * s.out[2];
    if (d.begin < d.end && h.begin < h.end) {
      const float* const from = line + low * s.stride[2] + s.origin[2];
      const float count = static_cast<float>(d.count * h.count * s.kernel[2]);
      (s.stride[2] == 1 ? along<Op, 1> : s.stride[2] == 2 ? along<Op, 2> : along<Op, 0>)(from, high - low, s, count, out + low);
    } else {
      high = low;
    }
    for (int64_t o = 0; o < s.out[2]; ++o) {
      if (o == low) o = high;
      if (o == s.out[2]) break;
      const Taps w = taps_at(s, 2, o);
      float acc = w.begin < w.end ? line[w.at + w.begin * s.dilation[2]] : Op::all(Op::start());
      for (int64_t k = w.begin + 1; k < w.end; ++k) acc = Op::add(acc, line[w.at + k * s.dilation[2]]);
      out[o] = Op::finish(acc, static_cast<float>(d.count * h.count * w.count));
    }
  }
}

template <class Op>
void global_block(const float* x, int64_t n, float* y, int tail) {
  for (int lane = 0; lane < kBlock; lane += kLanes) {
    F acc[4] = {Op::start(), Op::start(), Op::start(), Op::start()};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) acc[r] = Op::add(acc[r], load(x + (i + r) * kBlock + lane));
    for (; i < n; ++i) acc[0] = Op::add(acc[0], load(x + i * kBlock + lane));
    const F all = Op::finish(Op::add(Op::add(acc[0], acc[1]), Op::add(acc[2], acc[3])), static_cast<float>(n));
    store(y + lane, select(lt(load(kLaneNumbers + lane), set1(static_cast<float>(tail))), all, zero()));
  }
}

template <class Op>
void global_plane(const float* x, int64_t n, float* y) {
  F acc[4] = {Op::start(), Op::start(), Op::start(), Op::start()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) acc[r] = Op::add(acc[r], load(x + i + r * kLanes));
  for (; i + kLanes <= n; i += kLanes) acc[0] = Op::add(acc[0], load(x + i));
  float all = Op::all(Op::add(Op::add(acc[0], acc[1]), Op::add(acc[2], acc[3])));
  for (; i < n; ++i) all = Op::add(all, x[i]);
  *y = Op::finish(all, static_cast<float>(n));
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(PoolKernels, pool){&block<Max>,       &block<Mean>,       &plane<Max>,       &plane<Mean>,
                                           &global_block<Max>, &global_block<Mean>, &global_plane<Max>, &global_plane<Mean>};

}  // namespace tiercel::TIERCEL_ISA

#include "kernels/reduce/reduce.h"
#include "simd/math.h"

namespace tiercel::TIERCEL_ISA {
namespace {

// start: accumulates to nothing; neutral: an x that changes nothing (it fills the lanes past the end).
template <ReduceMap R> struct Op {
  static constexpr bool kMax = R == ReduceMap::kMax, kMin = R == ReduceMap::kMin, kProd = R == ReduceMap::kProd;
  static constexpr float kStart = kMax ? -INFINITY : kMin ? INFINITY : kProd ? 1.0f : 0.0f;
  static constexpr float kNeutral = R == ReduceMap::kSumExp ? -INFINITY : kStart;

  static F map(F x, F shift) {
    if constexpr (R == ReduceMap::kSumAbs) return abs(x);
    if constexpr (R == ReduceMap::kSumSquare) return x * x;
    if constexpr (R == ReduceMap::kSumExp) return exp(x - shift);
    return x;
  }
  static F merge(F a, F b) {
    if constexpr (kMax) return nan_max(a, b);
    else if constexpr (kMin) return nan_min(a, b);
    else if constexpr (kProd) return a * b;
    else return a + b;
  }
  static F add(F acc, F x, F shift) {
    if constexpr (R == ReduceMap::kSumSquare) return fma(x, x, acc);
    return merge(acc, map(x, shift));
  }
  static float across(F a) {
    if constexpr (kMax || kMin) {
      if (any(is_nan(a))) return NAN;
      return kMax ? hmax(a) : hmin(a);
    } else if constexpr (kProd) {
      float v[kLanes];
      store(v, a);
      for (int half = kLanes / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) v[i] *= v[i + half];
      return v[0];
    } else {
      return sum(a);
    }
  }
};

template <ReduceMap R> float reduce_row(const float* x, int64_t n, F shift) {
  using O = Op<R>;
  constexpr int64_t kStep = 4 * kLanes, kBlock = 64 * kStep;
  F total = set1(O::kStart), grand = total;  // blocks add up in total, every 64 of them in grand: no long chain of roundings
  int blocks = 0;
  while (n >= kStep) {
    const int64_t m = n < kBlock ? n / kStep * kStep : kBlock;
    F a = set1(O::kStart), b = a, c = a, d = a;
    for (const float* end = x + m; x < end; x += kStep) {
      a = O::add(a, load(x), shift);
      b = O::add(b, load(x + kLanes), shift);
      c = O::add(c, load(x + 2 * kLanes), shift);
      d = O::add(d, load(x + 3 * kLanes), shift);
    }
    total = O::merge(total, O::merge(O::merge(a, b), O::merge(c, d)));
    n -= m;
    if (++blocks == 64) {
      grand = O::merge(grand, total);
      total = set1(O::kStart);
      blocks = 0;
    }
  }
  total = O::merge(grand, total);
  for (; n >= kLanes; n -= kLanes, x += kLanes) total = O::add(total, load(x), shift);
  if (n) total = O::add(total, load(x, n, set1(O::kNeutral)), shift);
  return O::across(total);
}

template <ReduceMap R>
void reduce_rows(const float* x, int64_t rows, int64_t stride, int64_t n, const float* shift, float* y) {
  for (int64_t r = 0; r < rows; ++r) y[r] = reduce_row<R>(x + r * stride, n, shift ? set1(shift[r]) : zero());
}

// Rows of fewer floats than half a register, laid end to end, are taken several at once and folded at the end.
template <ReduceMap R>
void reduce_columns(const float* x, int64_t rows, int64_t stride, int64_t cols, const float* shift, bool accumulate, float* y) {
  using O = Op<R>;
  constexpr int kWide = 8 * kLanes;
  if (stride == cols && 2 * cols <= kLanes && cols > 0) {
    const int64_t together = kWide / cols, wide = together * cols;
    if (rows >= 4 * together) {
      float acc[kWide], shifts[kWide];
      if (shift) for (int64_t i = 0; i < wide; ++i) shifts[i] = shift[i % cols];
      reduce_columns<R>(x, rows / together, wide, wide, shift ? shifts : nullptr, false, acc);
      reduce_columns<R>(x + rows / together * wide, rows % together, stride, cols, shift, accumulate, y);
      reduce_columns<merge_of(R)>(acc, together, cols, cols, nullptr, true, y);
      return;
    }
  }
  if (!accumulate) {
    int64_t c = 0;
    for (; c + kLanes <= cols; c += kLanes) store(y + c, set1(O::kStart));
    if (c < cols) store(y + c, set1(O::kStart), cols - c);
  }
  for (; rows >= 8; rows -= 8, x += 8 * stride) {
    for (int64_t c = 0; c < cols; c += kLanes) {
      const int64_t left = cols - c;
      const F s = !shift ? zero() : left < kLanes ? load(shift + c, left) : load(shift + c);
      F v[8];
      if (left < kLanes)
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) v[i] = O::map(load(x + i * stride + c, left, set1(O::kNeutral)), s);
      else
#pragma GCC unroll 8
        for (int i = 0; i < 8; ++i) v[i] = O::map(load(x + i * stride + c), s);
#pragma GCC unroll 3
      for (int half = 4; half > 0; half /= 2)
#pragma GCC unroll 4
        for (int i = 0; i < half; ++i) v[i] = O::merge(v[i], v[i + half]);
      if (left < kLanes) store(y + c, O::merge(load(y + c, left), v[0]), left);
      else store(y + c, O::merge(load(y + c), v[0]));
    }
  }
  for (; rows > 0; --rows, x += stride)
    for (int64_t c = 0; c < cols; c += kLanes) {
      const int64_t left = cols - c;
      if (left < kLanes) store(y + c, O::add(load(y + c, left), load(x + c, left), shift ? load(shift + c, left) : zero()), left);
      else store(y + c, O::add(load(y + c), load(x + c), shift ? load(shift + c) : zero()));
    }
}

template <bool kMin>
void arg_rows(const float* x, int64_t rows, int64_t stride, int64_t n, bool last, int64_t* y) {
  for (int64_t r = 0; r < rows; ++r, x += stride) {
    const float best = reduce_row<kMin ? ReduceMap::kMin : ReduceMap::kMax>(x, n, zero());
    const F b = set1(best);
    const bool nan = best != best;
    const auto hit = [&](float v) { return v == best || (nan && v != v); };
    const auto hits = [&](F v) { return any(nan ? is_nan(v) : eq(v, b)); };
    int64_t i;
    if (!last) {
      i = 0;
      while (i + kLanes <= n && !hits(load(x + i))) i += kLanes;
      while (i < n - 1 && !hit(x[i])) ++i;
    } else {
      i = n;
      while (i - kLanes >= 0 && !hits(load(x + i - kLanes))) i -= kLanes;
      while (i > 1 && !hit(x[i - 1])) --i;
      --i;
    }
    y[r] = i;
  }
}

// Strips of columns whose best values and indices stay in L1 while the rows stream past.
template <bool kMin, bool kLast>
void arg_strip(const float* x, int64_t rows, int64_t stride, int64_t cols, int64_t* y) {
  constexpr int64_t kStrip = 512;
  float best[kStrip], index[kStrip];  // index: bits of an int32
  for (int64_t c0 = 0; c0 < cols; c0 += kStrip) {
    const int64_t n = cols - c0 < kStrip ? cols - c0 : kStrip;
    const auto full = [](const float* p, int64_t left) { return left < kLanes ? load(p, left) : load(p); };
    for (int64_t c = 0; c < n; c += kLanes) {
      store(best + c, full(x + c0 + c, n - c));
      store(index + c, zero());
    }
    for (int64_t r = 1; r < rows; ++r) {
      const float* row = x + r * stride + c0;
      const F here = from_bits(iset1(static_cast<int32_t>(r)));
      for (int64_t c = 0; c < n; c += kLanes) {
        const F v = full(row + c, n - c), b = load(best + c);
        M take = kMin ? (kLast ? le(v, b) : lt(v, b)) : (kLast ? ge(v, b) : gt(v, b));
        take = take | (kLast ? is_nan(v) : is_nan(v) & ~is_nan(b));
        store(best + c, select(take, v, b));
        store(index + c, select(take, here, load(index + c)));
      }
    }
    for (int64_t c = 0; c < n; ++c) {
      int32_t i;
      __builtin_memcpy(&i, &index[c], 4);
      y[c0 + c] = i;
    }
  }
}

template <bool kMin> void arg_columns(const float* x, int64_t rows, int64_t stride, int64_t cols, bool last, int64_t* y) {
  if (last) arg_strip<kMin, true>(x, rows, stride, cols, y);
  else arg_strip<kMin, false>(x, rows, stride, cols, y);
}

template <class G> inline void update(float* y, int64_t n, G g) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, g(load(y + i), i, kLanes));
  if (i < n) store(y + i, g(load(y + i, n - i), i, n - i), n - i);
}
void divide(float* y, int64_t n, float divisor) {
  const F d = set1(divisor);
  update(y, n, [=](F v, int64_t, int64_t) { return v / d; });
}
void sqrt_all(float* y, int64_t n) {
  update(y, n, [](F v, int64_t, int64_t) { return sqrt(v); });
}
void log_all(float* y, int64_t n, const float* shift) {
  update(y, n, [=](F v, int64_t i, int64_t m) {
    if (!shift) return log(v);
    return log(v) + (m < kLanes ? load(shift + i, m) : load(shift + i));
  });
}

template <bool kAbove> int64_t beyond(const float* x, int64_t n, float limit, int32_t* at) {
  const F m = set1(limit);
  int64_t count = 0, i = 0;
  const auto take = [&](uint32_t lanes) __attribute__((always_inline)) {
    for (; lanes; lanes &= lanes - 1) at[count++] = static_cast<int32_t>(i + __builtin_ctz(lanes));
  };
  for (; i + kLanes <= n; i += kLanes) {
    const F v = load(x + i);
    take(lanes_of(~(kAbove ? le(v, m) : ge(v, m))));
  }
  if (i < n) {
    const F v = load(x + i, n - i);
    take(lanes_of(~(kAbove ? le(v, m) : ge(v, m))) & ((1u << (n - i)) - 1));
  }
  return count;
}
int64_t beyond(const float* x, int64_t n, float limit, bool above, int32_t* at) {
  return above ? beyond<true>(x, n, limit, at) : beyond<false>(x, n, limit, at);
}

}  // namespace

#define TIERCEL_ROW(f)                                                                                          \
  {&f<ReduceMap::kSum>, &f<ReduceMap::kSumAbs>, &f<ReduceMap::kSumSquare>, &f<ReduceMap::kSumExp>,              \
   &f<ReduceMap::kMax>, &f<ReduceMap::kMin>, &f<ReduceMap::kProd>}
TIERCEL_KERNEL_TABLE_IS(ReduceKernels, reduce){TIERCEL_ROW(reduce_rows),
                                               TIERCEL_ROW(reduce_columns),
                                               {&arg_rows<false>, &arg_rows<true>},
                                               {&arg_columns<false>, &arg_columns<true>},
                                               &beyond,
                                               &divide,
                                               &sqrt_all,
                                               &log_all};
#undef TIERCEL_ROW

}  // namespace tiercel::TIERCEL_ISA

#include "kernels/softmax/softmax.h"
#include "simd/math.h"

namespace tiercel::TIERCEL_ISA {
namespace {

// e^x for x <= 0 (or NaN)
inline F exp_negative(F x) {
#if defined(TIERCEL_ISA_AVX512)
  const ExpParts e = exp_parts(max(set1(-104.0f), x));
  return {_mm512_scalef_ps((e.t + set1(1.0f)).v, e.n.v)};
#else
  return select(lt(x, set1(-87.3365402f)), zero(), exp_core(x));
#endif
}

// A NaN may be lost here; the exponentials find it again.
inline float row_max(const float* x, int64_t n) {
  F a = set1(-INFINITY), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    a = max(a, load(x + i));
    b = max(b, load(x + i + kLanes));
    c = max(c, load(x + i + 2 * kLanes));
    d = max(d, load(x + i + 3 * kLanes));
  }
  for (; i + kLanes <= n; i += kLanes) a = max(a, load(x + i));
  if (i < n) b = max(b, load(x + i, n - i, set1(-INFINITY)));
  return hmax(max(max(a, b), max(c, d)));
}

// sum of e^(x - m); the terms are stored in y if kStore
template <bool kStore> inline float row_exp(const float* x, int64_t n, F m, float* y) {
  F a = zero(), b = zero();
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    const F u = exp_negative(load(x + i) - m), v = exp_negative(load(x + i + kLanes) - m);
    if (kStore) {
      store(y + i, u);
      store(y + i + kLanes, v);
    }
    a = a + u;
    b = b + v;
  }
  for (; i < n; i += kLanes) {
    const bool full = i + kLanes <= n;
    const F u = exp_negative((full ? load(x + i) : load(x + i, n - i, set1(-INFINITY))) - m);
    if (kStore) full ? store(y + i, u) : store(y + i, u, n - i);
    a = a + u;
  }
  return sum(a + b);
}

template <class G> inline void map_row(const float* x, int64_t n, float* y, G g) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, g(load(x + i)));
  if (i < n) store(y + i, g(load(x + i, n - i)), n - i);
}

inline float log_of(float s) {
  float v[kLanes];
  store(v, log(set1(s)));
  return v[0];
}

// Rows shorter than a register, kLanes of them at a time: lane l is row l.
template <bool kLog> void short_rows(const float* x, int64_t rows, int64_t n, float* y) {
  const I first = iota() * iset1(static_cast<int32_t>(n));
  F e[kLanes];
  float column[kLanes * kLanes], some[kLanes * kLanes];  // the last, fewer than kLanes rows are copied
  for (int64_t r = 0; r < rows; r += kLanes, x += kLanes * n, y += kLanes * n) {
    const int64_t left = rows - r < kLanes ? rows - r : kLanes;
    const float* from = x;
    if (left < kLanes) {
      for (int64_t i = 0; i < kLanes * n; ++i) some[i] = i < left * n ? x[i] : 0;
      from = some;
    }
    F m = set1(-INFINITY), total = zero();
    for (int64_t i = 0; i < n; ++i) m = max(m, e[i] = gather(from + i, first));
    for (int64_t i = 0; i < n; ++i) {
      const F v = e[i] - m, u = exp_negative(v);
      e[i] = kLog ? v : u;
      total = total + u;
    }
    const F of_row = kLog ? log(total) : set1(1.0f) / total;
    for (int64_t i = 0; i < n; ++i) store(column + i * kLanes, kLog ? e[i] - of_row : e[i] * of_row);
    for (int64_t l = 0; l < left; ++l)
      for (int64_t i = 0; i < n; ++i) y[l * n + i] = column[i * kLanes + l];
  }
}

void softmax_rows(const float* x, int64_t rows, int64_t n, float* y) {
  if (n < kLanes) return short_rows<false>(x, rows, n, y);
  if (n == kLanes) {  // a row is a register
    for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
      const F v = load(x, n, set1(-INFINITY));
      const F e = exp_negative(v - set1(hmax(v)));
      store(y, e * set1(1.0f / sum(e)), n);
    }
    return;
  }
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    const F scale = set1(1.0f / row_exp<true>(x, n, set1(row_max(x, n)), y));
    map_row(y, n, y, [=](F v) { return v * scale; });
  }
}

void log_softmax_rows(const float* x, int64_t rows, int64_t n, float* y) {
  if (n < kLanes) return short_rows<true>(x, rows, n, y);
  for (int64_t r = 0; r < rows; ++r, x += n, y += n) {
    const F m = set1(row_max(x, n));
    const F l = set1(log_of(row_exp<false>(x, n, m, nullptr)));
    map_row(x, n, y, [=](F v) { return (v - m) - l; });
  }
}

inline F load_some(const float* p, int64_t left) { return left < kLanes ? load(p, left) : load(p); }
inline void store_some(float* p, F v, int64_t left) { left < kLanes ? store(p, v, left) : store(p, v); }

// Columns that lie together and are fewer than lanes: registers go over all elements as they lie, lane l of every cols-th register belongs
// to one column, and only the largest values and the sums are brought together.
template <bool kLog> void softmax_narrow(const float* x, int64_t count, int64_t cols, float* y) {
  const F low = set1(-INFINITY);
  const int64_t period = cols * kLanes;
  float top[kLanes * kLanes], total[kLanes * kLanes];
  const auto over = [&](auto f) {  // f(element, place within the period, elements left)
    for (int64_t i = 0, at = 0; i < count; i += kLanes) {
      f(i, at, count - i);
      at = at + kLanes < period ? at + kLanes : 0;
    }
  };
  const auto gather = [&](float* of, auto f) {
    for (int64_t c = 0; c < cols; ++c) {
      float v = of[c];
      for (int64_t i = c + cols; i < period; i += cols) v = f(v, of[i]);
      for (int64_t i = c; i < period; i += cols) of[i] = v;
    }
  };
  const auto load_low = [&](int64_t i, int64_t left) { return left < kLanes ? load(x + i, left, low) : load(x + i); };
  for (int64_t c = 0; c < period; c += kLanes) {
    store(top + c, low);
    store(total + c, zero());
  }
  over([&](int64_t i, int64_t at, int64_t left) { store(top + at, max(load(top + at), load_low(i, left))); });
  gather(top, [](float a, float b) { return a > b ? a : b; });
  over([&](int64_t i, int64_t at, int64_t left) {
    const F e = exp_negative(load_low(i, left) - load(top + at));
    store(total + at, load(total + at) + e);
    if (!kLog) store_some(y + i, e, left);
  });
  gather(total, [](float a, float b) { return a + b; });
  for (int64_t c = 0; c < period; c += kLanes) store(total + c, kLog ? log(load(total + c)) : set1(1.0f) / load(total + c));
  over([&](int64_t i, int64_t at, int64_t left) {
    const F v = load_some((kLog ? x : y) + i, left);
    store_some(y + i, kLog ? (v - load(top + at)) - load(total + at) : v * load(total + at), left);
  });
}

// Largest values and sums of a strip stay in L1 while the rows pass three times.
template <bool kLog> void softmax_columns(const float* x, int64_t n, int64_t stride, int64_t cols, float* y) {
  if (cols == stride && cols < kLanes) return softmax_narrow<kLog>(x, n * cols, cols, y);
  float top[kSoftmaxStrip], total[kSoftmaxStrip];
  for (int64_t c = 0; c < cols; c += kLanes) {
    store(top + c, set1(-INFINITY));
    store(total + c, zero());
  }
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < cols; c += kLanes) store(top + c, max(load(top + c), load_some(x + i * stride + c, cols - c)));
  for (int64_t i = 0; i < n; i += 16)  // sixteen terms, then their sums: long columns stay accurate
    for (int64_t c = 0; c < cols; c += kLanes) {
      const F m = load(top + c);
      F s = zero();
      for (int64_t at = i * stride + c, end = (i + 16 < n ? i + 16 : n) * stride; at < end; at += stride) {
        const F e = exp_negative(load_some(x + at, cols - c) - m);
        s = s + e;
        if (!kLog) store_some(y + at, e, cols - c);
      }
      store(total + c, load(total + c) + s);
    }
  for (int64_t c = 0; c < cols; c += kLanes) store(total + c, kLog ? log(load(total + c)) : set1(1.0f) / load(total + c));
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < cols; c += kLanes) {
      const int64_t at = i * stride + c;
      const F v = load_some((kLog ? x : y) + at, cols - c);
      store_some(y + at, kLog ? (v - load(top + c)) - load(total + c) : v * load(total + c), cols - c);
    }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(SoftmaxKernels, softmax){{&softmax_rows, &log_softmax_rows},
                                                 {&softmax_columns<false>, &softmax_columns<true>}};

}  // namespace tiercel::TIERCEL_ISA

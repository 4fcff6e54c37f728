#include "kernels/norm/norm.h"
#include "simd/activation.h"

namespace tiercel::TIERCEL_ISA {
namespace {

inline F load_some(const float* p, int64_t left) { return left < kLanes ? load(p, left) : load(p); }
inline void store_some(float* p, F v, int64_t left) { left < kLanes ? store(p, v, left) : store(p, v); }

// sum of g(x): four chains of at most 64 terms in a block, blocks added up
template <class G> inline float sum_of(const float* x, int64_t n, G g) {
  constexpr int64_t kStep = 4 * kLanes, kBlock = 64 * kStep;
  F total = zero();
  while (n >= kStep) {
    const int64_t m = n < kBlock ? n / kStep * kStep : kBlock;
    F a = zero(), b = a, c = a, d = a;
    for (const float* end = x + m; x < end; x += kStep) {
      a = g(a, load(x));
      b = g(b, load(x + kLanes));
      c = g(c, load(x + 2 * kLanes));
      d = g(d, load(x + 3 * kLanes));
    }
    total = total + ((a + b) + (c + d));
    n -= m;
  }
  for (; n >= kLanes; n -= kLanes, x += kLanes) total = g(total, load(x));
  float s = sum(total);
  if (n) {  // the lanes past the end must not count, whatever g does to zero
    float v[kLanes];
    store(v, g(zero(), load(x, n)));
    for (int64_t i = 0; i < n; ++i) s += v[i];
  }
  return s;
}

inline float sum_row(const float* x, int64_t n) {
  return sum_of(x, n, [](F acc, F v) { return acc + v; });
}
inline float sum_squares(const float* x, int64_t n, float mean) {
  const F m = set1(mean);
  return sum_of(x, n, [=](F acc, F v) {
    const F d = v - m;
    return fma(d, d, acc);
  });
}

template <bool kSkip, bool kShift> inline void add_rows(const float* x, const float* skip, const float* shift, int64_t n, float* u) {
  for (int64_t i = 0; i < n; i += kLanes) {
    F v = load_some(x + i, n - i);
    if (kSkip) v = v + load_some(skip + i, n - i);
    if (kShift) v = v + load_some(shift + i, n - i);
    store_some(u + i, v, n - i);
  }
}

// y = (u - m) r scale + bias
template <bool kScale, bool kBias> inline void apply_row(const float* u, int64_t n, float mean, float rstd, const float* scale, const float* bias, float* y) {
  const F m = set1(mean), r = set1(rstd);
  const auto one = [&](int64_t i, auto get) {
    F v = (get(u + i) - m) * r;
    if (kScale && kBias) return fma(v, get(scale + i), get(bias + i));
    if (kScale) v = v * get(scale + i);
    if (kBias) v = v + get(bias + i);
    return v;
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, one(i, [](const float* p) { return load(p); }));
  if (i < n) store(y + i, one(i, [&](const float* p) { return load(p, n - i); }), n - i);
}

template <bool kRms> void row_norm(const RowNorm& a, int64_t rows) {
  const int64_t n = a.n;
  for (int64_t r = 0; r < rows; ++r) {
    const float* u = a.x + r * n;
    float* y = a.y + r * n;
    if (a.skip || a.shift || a.sum) {
      float* to = a.sum ? a.sum + r * n : y;
      const float* skip = a.skip ? a.skip + r * n : nullptr;
      if (skip && a.shift) add_rows<true, true>(u, skip, a.shift, n, to);
      else if (skip) add_rows<true, false>(u, skip, nullptr, n, to);
      else if (a.shift) add_rows<false, true>(u, nullptr, a.shift, n, to);
      else add_rows<false, false>(u, nullptr, nullptr, n, to);
      u = to;
    }
    const float count = static_cast<float>(n);
    const float mean = kRms ? 0.0f : sum_row(u, n) / count;
    const float rstd = 1.0f / __builtin_sqrtf(sum_squares(u, n, mean) / count + a.epsilon);
    if (a.scale && a.bias) apply_row<true, true>(u, n, mean, rstd, a.scale, a.bias, y);
    else if (a.scale) apply_row<true, false>(u, n, mean, rstd, a.scale, nullptr, y);
    else if (a.bias) apply_row<false, true>(u, n, mean, rstd, nullptr, a.bias, y);
    else apply_row<false, false>(u, n, mean, rstd, nullptr, nullptr, y);
    if (a.mean) a.mean[r] = mean;
    if (a.rstd) a.rstd[r] = rstd;
  }
}

template <bool kRms> void column_norm(const ColumnNorm& a) {
  float mean[kColumnNormStrip], rstd[kColumnNormStrip];
  const F count = set1(static_cast<float>(a.n));
  // sixteen terms, then their sums
  const auto accumulate = [&](float* to, auto g) {
    for (int64_t c = 0; c < a.cols; c += kLanes) store(to + c, zero());
    for (int64_t i = 0; i < a.n; i += 16)
      for (int64_t c = 0; c < a.cols; c += kLanes) {
        F s = zero();
        for (int64_t at = i * a.stride + c, end = (i + 16 < a.n ? i + 16 : a.n) * a.stride; at < end; at += a.stride)
          s = g(s, load_some(a.x + at, a.cols - c), c);
        store(to + c, load(to + c) + s);
      }
  };
  if (kRms) {
    for (int64_t c = 0; c < a.cols; c += kLanes) store(mean + c, zero());
  } else {
    accumulate(mean, [](F s, F v, int64_t) { return s + v; });
    for (int64_t c = 0; c < a.cols; c += kLanes) store(mean + c, load(mean + c) / count);
  }
  accumulate(rstd, [&](F s, F v, int64_t c) {
    const F d = v - load(mean + c);
    return fma(d, d, s);
  });
  for (int64_t c = 0; c < a.cols; c += kLanes)
    store(rstd + c, set1(1.0f) / sqrt(load(rstd + c) / count + set1(a.epsilon)));
  for (int64_t i = 0; i < a.n; ++i) {
    const F scale = set1(a.scale ? a.scale[i] : 1.0f), bias = set1(a.bias ? a.bias[i] : 0.0f);
    for (int64_t c = 0; c < a.cols; c += kLanes) {
      const int64_t at = i * a.stride + c, left = a.cols - c;
      store_some(a.y + at, fma((load_some(a.x + at, left) - load(mean + c)) * load(rstd + c), scale, bias), left);
    }
  }
}

// Moments of two disjoint sets out of the moments of each (Chan et al.).
struct Merged {
  double count = 0, mean = 0, m2 = 0;
  void add(double n, double m, double s) {
    const double total = count + n, delta = m - mean;
    mean += delta * (n / total);
    m2 += s + delta * delta * (count * n / total);
    count = total;
  }
};

void moments(const float* x, int64_t n, double* mean, double* m2) {
  constexpr int64_t kBlock = 4096;
  Merged all;
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t m = n - i < kBlock ? n - i : kBlock;
    const float center = sum_row(x + i, m) / static_cast<float>(m);
    all.add(static_cast<double>(m), center, sum_squares(x + i, m, center));
  }
  *mean = all.mean;
  *m2 = all.m2;
}

void moments16(const float* x, int64_t n, double* mean, double* m2) {
  constexpr int kRegs = 16 / kLanes;
  constexpr int64_t kBlock = 256;
  Merged all[16];
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t m = n - i < kBlock ? n - i : kBlock;
    const float* p = x + i * 16;
    F even[kRegs], odd[kRegs], center[kRegs];
    for (int k = 0; k < kRegs; ++k) even[k] = odd[k] = zero();
    int64_t j = 0;
    for (; j + 2 <= m; j += 2)
      for (int k = 0; k < kRegs; ++k) {
        even[k] = even[k] + load(p + j * 16 + k * kLanes);
        odd[k] = odd[k] + load(p + j * 16 + 16 + k * kLanes);
      }
    for (; j < m; ++j) for (int k = 0; k < kRegs; ++k) even[k] = even[k] + load(p + j * 16 + k * kLanes);
    for (int k = 0; k < kRegs; ++k) {
      center[k] = (even[k] + odd[k]) / set1(static_cast<float>(m));
      even[k] = odd[k] = zero();
    }
    for (j = 0; j + 2 <= m; j += 2)
      for (int k = 0; k < kRegs; ++k) {
        const F a = load(p + j * 16 + k * kLanes) - center[k], b = load(p + j * 16 + 16 + k * kLanes) - center[k];
        even[k] = fma(a, a, even[k]);
        odd[k] = fma(b, b, odd[k]);
      }
    for (; j < m; ++j)
      for (int k = 0; k < kRegs; ++k) {
        const F a = load(p + j * 16 + k * kLanes) - center[k];
        even[k] = fma(a, a, even[k]);
      }
    float c[16], s[16];
    for (int k = 0; k < kRegs; ++k) {
      store(c + k * kLanes, center[k]);
      store(s + k * kLanes, even[k] + odd[k]);
    }
    for (int k = 0; k < 16; ++k) all[k].add(static_cast<double>(m), c[k], s[k]);
  }
  for (int k = 0; k < 16; ++k) {
    mean[k] = all[k].mean;
    m2[k] = all[k].m2;
  }
}

// Activations too big for every kernel pass over the result a second time, in pieces that stay in L1.
constexpr int64_t kPiece = 2048;

void affine(const float* x, int64_t n, float c, float a, float b, const Activation& act, float* y) {
  const F vc = set1(c), va = set1(a), vb = set1(b);
  const bool done = with_register_activation(act.kind, [&](auto tag) {
    constexpr ActivationKind kind = decltype(tag)::value;
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(y + i, apply<kind>(fma(load(x + i) - vc, va, vb), act));
    if (i < n) store(y + i, apply<kind>(fma(load(x + i, n - i) - vc, va, vb), act), n - i);
  });
  if (done) return;
  for (int64_t i = 0; i < n; i += kPiece) {
    const int64_t m = n - i < kPiece ? n - i : kPiece;
    affine(x + i, m, c, a, b, Activation{}, y + i);
    activate(act, y + i, y + i, m);
  }
}

void affine_rows(const float* x, int64_t rows, int64_t stride, int64_t n, const float* c, const float* a, const float* b,
                 const Activation& act, float* y) {
  const bool done = with_register_activation(act.kind, [&](auto tag) {
    constexpr ActivationKind kind = decltype(tag)::value;
    for (int64_t i = 0; i < n; i += kLanes) {  // a strip of columns: its coefficients stay in registers
      const int64_t left = n - i;
      const F vc = load_some(c + i, left), va = load_some(a + i, left), vb = load_some(b + i, left);
      if (left < kLanes) {
        for (int64_t r = 0, at = i; r < rows; ++r, at += stride)
          store(y + at, apply<kind>(fma(load(x + at, left) - vc, va, vb), act), left);
      } else {
        for (int64_t r = 0, at = i; r < rows; ++r, at += stride)
          store(y + at, apply<kind>(fma(load(x + at) - vc, va, vb), act));
      }
    }
  });
  if (done) return;
  for (int64_t r = 0; r < rows; ++r) {
    affine_rows(x + r * stride, 1, stride, n, c, a, b, Activation{}, y + r * stride);
    activate(act, y + r * stride, y + r * stride, n);
  }
}

void lrn(const float* x, int64_t channels, int64_t stride, int64_t n, int64_t before, int64_t after, float bias, float alpha,
         float beta, float* y) {
  const F vb = set1(bias), va = set1(alpha), power = set1(-beta);
  for (int64_t c = 0; c < channels; ++c) {
    const int64_t first = c - before < 0 ? 0 : c - before, last = c + after < channels ? c + after : channels - 1;
    for (int64_t i = 0; i < n; i += kLanes) {
      const int64_t left = n - i;
      F s = zero();
      for (int64_t k = first; k <= last; ++k) {
        const F v = load_some(x + k * stride + i, left);
        s = fma(v, v, s);
      }
      const F scaled = load_some(x + c * stride + i, left) * exp(log(fma(va, s, vb)) * power);
      store_some(y + c * stride + i, scaled, left);
    }
  }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(NormKernels, norm){&row_norm<false>, &row_norm<true>, &column_norm<false>,
                                           &column_norm<true>, &moments, &moments16, &affine, &affine_rows, &lrn};

}  // namespace tiercel::TIERCEL_ISA

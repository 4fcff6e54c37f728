#include "kernels/attention/attention.h"

#include "simd/math.h"

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr float kLog2e = 1.44269504f;

// 2^t for t <= 0 to 2 ulp, 1 for 0; below 2^-126 it may be zero. NaN stays.
inline F exp2_negative(F t) {
#if defined(TIERCEL_ISA_AVX512)
  // The fraction, the power of the floor: two instructions. Both take infinities, of which the fraction is zero.
  const F r{_mm512_reduce_ps(t.v, 1)};
  return {_mm512_scalef_ps(horner(r, 1.0f, 0x1.62e4bap-1f, 0x1.ebdb56p-3f, 0x1.c91ce6p-5f, 0x1.277856p-7f, 0x1.e974fap-10f).v, t.v)};
#else
  const F magic = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const F z = t + magic, n = z - magic, r = t - n;
  const F p = horner(r, 1.0f, 0x1.62e42ap-1f, 0x1.ebf9bcp-3f, 0x1.c6b752p-5f, 0x1.3cea88p-7f, 0x1.5bba14p-10f);
  const F y = select(ge(t, set1(-126.0f)), from_bits(bits(p) + shl<23>(bits(z))), zero());
  return select(is_nan(t), t, y);
#endif
}

// x as in the header in place of s, and the largest. A NaN may be missed here: its exponential is NaN all the same.
template <int kMask, bool kCap>  // 0 none, 1 one value for the row, 2 one an element
float biased_max(float* s, int64_t n, float scale, float cap, const float* mask) {
  const F a = set1(kCap ? scale / cap : scale), c = set1(cap), constant = set1(kMask == 1 ? mask[0] : 0.0f);
  F m = set1(-__builtin_inff());
  const auto biased = [&](F v, F b) {
    v = v * a;
    if constexpr (kCap) v = tanh(v) * c;
    if constexpr (kMask == 1) v = v + constant;
    if constexpr (kMask == 2) v = v + b;
    return v;
  };
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    const F v = biased(load(s + j), kMask == 2 ? load(mask + j) : constant);
    store(s + j, v);
    m = max(v, m);
  }
  if (j < n) {
    const F v = biased(load(s + j, n - j), kMask == 2 ? load(mask + j, n - j) : constant);
    store(s + j, v, n - j);
    m = max(load(s + j, n - j, m), m);
  }
  return hmax(m);
}

template <bool kCap> float biased_max(float* s, const AttentionBlock& b, const float* mask) {
  if (!mask) return biased_max<0, kCap>(s, b.keys, b.scale, b.cap, mask);
  return b.mask_col ? biased_max<2, kCap>(s, b.keys, b.scale, b.cap, mask) : biased_max<1, kCap>(s, b.keys, b.scale, b.cap, mask);
}

float largest(const float* s, int64_t n) {
  F m0 = set1(-__builtin_inff()), m1 = m0;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    m0 = max(load(s + j), m0);
    m1 = max(load(s + j + kLanes), m1);
  }
  for (; j < n; j += kLanes) m0 = max(n - j < kLanes ? load(s + j, n - j, m0) : load(s + j), m0);
  return hmax(max(m0, m1));
}

// s_j = 2^(c (s_j - most)); gives their sum. (One multiply-add with -c most would do, but its rounding costs half of the accuracy.)
inline float exponentials(float* s, int64_t n, float c, float most) {
  const F m = set1(most), a = set1(c);
  const auto weight = [&](F x) { return exp2_negative((x - m) * a); };
  F sum0 = zero(), sum1 = zero();
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    const F e0 = weight(load(s + j)), e1 = weight(load(s + j + kLanes));
    store(s + j, e0);
    store(s + j + kLanes, e1);
    sum0 = sum0 + e0;
    sum1 = sum1 + e1;
  }
  if (j + kLanes <= n) {
    const F e = weight(load(s + j));
    store(s + j, e);
    sum0 = sum0 + e;
    j += kLanes;
  }
  if (j < n) {
    const F e = weight(load(s + j, n - j, set1(-__builtin_inff())));
    store(s + j, e, n - j);
    sum1 = sum1 + e;
  }
  return sum(sum0 + sum1);
}

constexpr int64_t kGroup = 32;  // rows whose maxima are found before exponentials are taken: one row's would wait for its maximum

bool weights(const AttentionBlock& b) {
  const bool plain = !b.mask && b.cap == 0 && b.scale > 0;
  const float c = plain ? b.scale * kLog2e : kLog2e;
  bool changed = false;
  float most[kGroup];
  for (int64_t begin = 0; begin < b.rows; begin += kGroup) {
    const int64_t rows = b.rows - begin < kGroup ? b.rows - begin : kGroup;
    for (int64_t i = 0; i < rows; ++i) {
      float* const s = b.scores + (begin + i) * b.row;
      const float* const mask = b.mask ? b.mask + (begin + i) * b.mask_row : nullptr;
      most[i] = plain ? largest(s, b.keys) : b.cap > 0 ? biased_max<true>(s, b, mask) : biased_max<false>(s, b, mask);
    }
    for (int64_t i = 0; i < rows; i += kLanes) {
      const int64_t n = rows - i < kLanes ? rows - i : kLanes;
      const F before = load(b.most + begin + i, n), now = max(load(most + i, n), before);
      const M same = eq(now, before);
      store(b.most + begin + i, now, n);
      store(most + i, select(eq(now, set1(-__builtin_inff())), zero(), now), n);
      store(b.factor + begin + i, select(same, set1(1.0f), exp2_negative((before - now) * set1(c))), n);
      changed |= !all(same);
    }
    for (int64_t i = 0; i < rows; ++i) {
      float* const sum = b.sum + begin + i;
      *sum = *sum * b.factor[begin + i] + exponentials(b.scores + (begin + i) * b.row, b.keys, c, most[i]);
    }
  }
  return changed;
}

void scale_rows(float* y, int64_t row, int64_t rows, int64_t n, const float* factor) {
  for (int64_t i = 0; i < rows; ++i) {
    float* const r = y + i * row;
    const F f = set1(factor[i]);
    int64_t j = 0;
    for (; j + kLanes <= n; j += kLanes) store(r + j, load(r + j) * f);
    if (j < n) store(r + j, load(r + j, n - j) * f, n - j);
  }
}

bool all_below(const float* x, int64_t row, int64_t col, int64_t rows, int64_t n, float limit) {
  const F most = set1(limit);
  for (int64_t i = 0; i < rows; ++i) {
    const float* const r = x + i * row;
    if (!(r[0] <= limit)) return false;
    if (!col) continue;
    int64_t j = 0;
    for (; j + kLanes <= n; j += kLanes) if (!all(le(load(r + j), most))) return false;
    if (j < n && !all(le(load(r + j, n - j, most), most))) return false;
  }
  return true;
}

float magnitude(const float* x, int64_t row, int64_t rows, int64_t n) {
  F most = zero();
  for (int64_t i = 0; i < rows; ++i) {
    const float* const r = x + i * row;
    int64_t j = 0;
    for (; j + kLanes <= n; j += kLanes) most = nan_max(abs(load(r + j)), most);
    if (j < n) most = nan_max(abs(load(r + j, n - j)), most);
  }
  return any(is_nan(most)) ? __builtin_inff() : hmax(most);
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(AttentionKernels, attention){&weights, &scale_rows, &all_below, &magnitude};

}  // namespace tiercel::TIERCEL_ISA

// Vector maths on F. Errors in ulp of the result (largest seen over dense samples of all floats, every ISA):
//   exp 1, log 1, sigmoid 2.5, tanh 2.5, erf 1.2, expm1 2, softplus 2; sin and cos 2, in units of 2^-25 near their zeros;
//   gelu 4 in units of at least 2^-26 (the tail of negative x, where the result is far below x)
// NaN stays NaN, infinities and overflow are right, results below 2^-126 may be flushed to zero.
// Polynomials: minimax fits of the function named beside them.
#pragma once
#include <math.h>

#include "simd/vec.h"
#if defined(TIERCEL_ISA_AVX512)
#include "simd/piecewise_avx512.h"
#endif

namespace tiercel::TIERCEL_ISA {
namespace {

// c0 + x (c1 + x (c2 + ...))
inline F horner(F, float c0) { return set1(c0); }
template <class... C> inline F horner(F x, float c0, C... c) { return fma(horner(x, c...), x, set1(c0)); }

// min and max that give NaN when either operand is NaN, as ONNX Min, Max and Clip do.
inline F nan_min(F a, F b) { return select(is_nan(a), a, min(a, b)); }
inline F nan_max(F a, F b) { return select(is_nan(a), a, max(a, b)); }
inline F with_sign(F magnitude, F sign) {
  return from_bits((bits(magnitude) & iset1(0x7fffffff)) | (bits(sign) & iset1(INT32_MIN)));
}

// x = n ln2 + r, |r| <= ln2/2: t = e^r - 1 of small relative error. n as a float, and in the low bits of `shifted`.
struct ExpParts { F t, n; I shifted; };
inline ExpParts exp_parts(F x) {
  const F magic = set1(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const F z = fma(x, set1(1.44269504f), magic);
  const F n = z - magic;
  const F r = fnma(n, set1(-2.12194440e-4f), fnma(n, set1(0.693359375f), x));
  const F p = horner(r, 0x1p-1f, 0x1.55548ep-3f, 0x1.55545ep-5f, 0x1.123b84p-7f, 0x1.6db46p-10f);
  return {fma(r * r, p, r), n, bits(z)};
}

// e^x for x in [-87, 88]; elsewhere not defined.
inline F exp_core(F x) {
  const ExpParts e = exp_parts(x);
  return from_bits(bits(e.t + set1(1.0f)) + shl<23>(e.shifted));
}

inline F exp(F x) {
#if defined(TIERCEL_ISA_AVX512)
  const ExpParts e = exp_parts(min(set1(89.0f), max(set1(-104.0f), x)));
  return {_mm512_scalef_ps((e.t + set1(1.0f)).v, e.n.v)};
#else
  const F y = select(lt(x, set1(-87.3365402f)), zero(), exp_core(x));
  return select(le(x, set1(88.7228317f)), y, x + set1(INFINITY));
#endif
}

// e^x - 1 for x <= 88.
inline F expm1(F x) {
  const ExpParts e = exp_parts(max(set1(-87.0f), x));
  const F scale = from_bits(shl<23>(e.shifted + iset1(127)));
  return fma(scale, e.t, scale - set1(1.0f));
}

inline F log_core(F m1, F e) {  // log(1 + m1) + e ln2, m1 in [sqrt(1/2) - 1, sqrt(2) - 1]
  const F p = horner(m1, 0x1.55554ap-2f, -0x1.00022p-2f, 0x1.99a596p-3f, -0x1.54789p-3f, 0x1.226e52p-3f, -0x1.0ce05ep-3f,
                     0x1.07d0acp-3f, -0x1.41edfp-4f);
  const F m2 = m1 * m1;
  F y = fma(e, set1(-2.12194440e-4f), m2 * m1 * p);
  y = m1 + fma(m2, set1(-0.5f), y);
  return fma(e, set1(0.693359375f), y);
}

inline F log(F x) {
  const M tiny = lt(x, set1(0x1p-126f));  // subnormal
  const F scaled = select(tiny, x * set1(0x1p23f), x);
  const I i = bits(scaled) - iset1(0x3f3504f3);  // from sqrt(1/2)
  const F e = to_float(sra<23>(i)) - select(tiny, set1(23.0f), zero());
  const F m = from_bits((i & iset1(0x7fffff)) + iset1(0x3f3504f3));
  F y = log_core(m - set1(1.0f), e);
  y = select(lt(x, set1(INFINITY)), y, x);  // inf, NaN
  y = select(eq(x, zero()), set1(-INFINITY), y);
  return select(lt(x, zero()), set1(NAN), y);
}

// log(1 + x) for x in [0, 1]
inline F log1p_unit(F x) {
  const M big = gt(x, set1(0.414213562f));
  const F one = set1(1.0f);
  return log_core(select(big, (x - one) * set1(0.5f), x), select(big, one, zero()));
}

inline F sigmoid(F x) { return set1(1.0f) / (set1(1.0f) + exp(-x)); }

#if defined(TIERCEL_ISA_AVX512)
// The polynomial of a's segment, one of 32 of the given width: a permutation of two registers looks its coefficients up, so there
// is neither an exponential nor a division. 0 <= a < 31.5 width.
template <int rows> inline F piecewise(const float (&table)[rows][32], float width, F a) {
  const F magic = set1(12582912.0f);
  const F z = fma(a, set1(1.0f / width), magic);
  const F u = fnma(z - magic, set1(width), a);
  const auto coefficient = [&](int i) { return F{_mm512_permutex2var_ps(load(table[i]).v, bits(z).v, load(table[i] + 16).v)}; };
  F p = coefficient(rows - 1);
#pragma GCC unroll 8
  for (int i = rows - 2; i >= 0; --i) p = fma(p, u, coefficient(i));
  return p;
}

inline F tanh(F x) {
  const F a = min(set1(9.3f), abs(x));
  return with_sign(min(set1(1.0f), a * piecewise(kTanhTable, kTanhWidth, a)), x);
}
// x Phi(x) = max(x, 0) - |x| Phi(-|x|)
inline F gelu_erf(F x) {
  const F a = min(set1(6.39f), abs(x));
  return fnma(a, piecewise(kGeluTable, kGeluWidth, a), max(zero(), x));
}
#else
// (e^2x - 1) / (e^2x + 1) through expm1, which keeps the relative accuracy near zero.
inline F tanh(F x) {
  const F a = abs(x);
  const F e = expm1(min(set1(20.0f), a + a));
  return with_sign(e / (e + set1(2.0f)), x);
}

// x Phi(x) = max(x, 0) - |x| Phi(-|x|), where Q fits log Phi(-t): one path, no division, no cancellation for negative x.
inline F gelu_erf(F x) {
  const F t = min(set1(6.5f), abs(x));
  const F q = horner(t, -0x1.62e43p-1f, -0x1.98846ap-1f, -0x1.45f14ep-2f, -0x1.29dd1p-5f, 0x1.3c55dep-8f, -0x1.6909dcp-18f,
                     -0x1.95e1bap-13f, 0x1.c1cb98p-15f, -0x1.06e1e4p-17f, 0x1.516c6ap-21f, -0x1.74ebaep-26f);
  return fnma(t, exp_core(q), max(zero(), x));
}

#endif

// Below 0.85 x + x P(x^2), above 1 - e^Q(|x|), where Q fits log(erfc).
inline F erf(F x) {
  const F a = abs(x), z = x * x;
  const F p = horner(z, 0x1.06eba8p-3f, -0x1.81271cp-2f, 0x1.ce246cp-4f, -0x1.b72a84p-6f, 0x1.4b3c96p-8f, -0x1.4c02dap-11f);
  const F t = min(set1(4.0f), a);
  const F q = horner(t, -0x1.b65eb8p-14f, -0x1.20c89cp+0f, -0x1.45e5ccp-1f, -0x1.ac2376p-4f, 0x1.70f3fp-6f, -0x1.98aa38p-9f,
                     0x1.ab24d2p-13f);
  const F large = with_sign(set1(1.0f) - exp_core(q), x);
  return select(lt(a, set1(0.85f)), fma(x, p, x), select(is_nan(x), x, large));
}

// 0.5 x (1 + tanh(u)) = x / (1 + e^-2u), u = sqrt(2/pi) (x + 0.044715 x^3)
inline F gelu_tanh(F x) {
  const F t = max(set1(-15.0f), x);  // keeps -inf from giving NaN; the result is zero by then
  const F u = t * fma(t * t, set1(-0.0713548163f), set1(-1.59576912f));
  return t / (set1(1.0f) + exp(u));
}

// x / (1 + e^(slope x)); the limit at infinity, where the quotient is 0/0 or inf/inf, is zero.
inline F silu(F x, F slope) {
  const F e = exp(x * slope);
  return select(eq(e, set1(INFINITY)), zero(), x / (set1(1.0f) + e));
}
inline F silu(F x) { return silu(x, set1(-1.0f)); }
inline F softplus(F x) { return max(zero(), x) + log1p_unit(exp(-abs(x))); }

// x tanh(log(1 + e^x)) = x n / (n + 2), n = e^x (e^x + 2)
inline F mish(F x) {
  const F w = exp(min(set1(20.0f), x));
  const F n = w * (w + set1(2.0f));
  return max(set1(-104.0f), x) * (n / (n + set1(2.0f)));
}

// sin(x + quadrant pi/2)
inline F sin_quadrant(F x, int quadrant) {
  const F magic = set1(12582912.0f);
  const F z = fma(x, set1(0.636619772f), magic);
  const F n = z - magic;
  const F r = fnma(n, set1(-0x1.ee59dap-50f), fnma(n, set1(-0x1.777a5cp-25f), fnma(n, set1(0x1.921fb6p+0f), x)));
  const F r2 = r * r;
  const F s = fma(r * r2, horner(r2, -0x1.555546p-3f, 0x1.11075cp-7f, -0x1.994cd2p-13f), r);
  const F c = fma(r2 * r2, horner(r2, 0x1.55554ap-5f, -0x1.6c0c94p-10f, 0x1.9a03aap-16f), fma(r2, set1(-0.5f), set1(1.0f)));
  const I i = bits(z) + iset1(quadrant);
  const F y = select(ne(from_bits(shl<30>(i & iset1(1))), zero()), c, s);
  return from_bits(bits(y) ^ (shl<30>(i) & iset1(INT32_MIN)));
}
template <class G> inline F lanewise(F x, G g) {
  float v[kLanes];
  store(v, x);
  for (int i = 0; i < kLanes; ++i) v[i] = g(v[i]);
  return load(v);
}
// The reduction above needs a fused multiply-add and |x| < 2^16; the C library takes the rest.
inline F sin(F x) {
  if (!kFused || any(~lt(abs(x), set1(65536.0f)))) return lanewise(x, [](float v) { return sinf(v); });
  return sin_quadrant(x, 0);
}
inline F cos(F x) {
  if (!kFused || any(~lt(abs(x), set1(65536.0f)))) return lanewise(x, [](float v) { return cosf(v); });
  return sin_quadrant(x, 1);
}

// x^y by the C library, a lane at a time.
inline F pow(F x, F y) {
  float a[kLanes], b[kLanes];
  store(a, x);
  store(b, y);
  for (int i = 0; i < kLanes; ++i) a[i] = powf(a[i], b[i]);
  return load(a);
}

}  // namespace
}  // namespace tiercel::TIERCEL_ISA

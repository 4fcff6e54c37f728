// Vec out of the compiler's vector extensions: 4 lanes, for the baseline of any processor. No fused multiply-add.
#pragma once
#include <math.h>

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int kLanes = 4;
constexpr bool kFused = false;
typedef float float4 __attribute__((vector_size(16)));
typedef int32_t int4 __attribute__((vector_size(16)));
typedef uint32_t uint4 __attribute__((vector_size(16)));
struct F { float4 v; };
struct I { int4 v; };
struct M { int4 v; };

inline F load(const float* p) { float4 v; __builtin_memcpy(&v, p, 16); return {v}; }
inline F load(const float* p, int64_t n) {
  float4 v = {0, 0, 0, 0};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return {v};
}
inline F load(const float* p, int64_t n, F v) {
  for (int i = 0; i < n; ++i) v.v[i] = p[i];
  return v;
}
inline void store(float* p, F a) { __builtin_memcpy(p, &a.v, 16); }
inline void store(float* p, F a, int64_t n) { for (int i = 0; i < n; ++i) p[i] = a.v[i]; }
inline F set1(float x) { return {float4{x, x, x, x}}; }
inline F zero() { return {float4{0, 0, 0, 0}}; }
inline F operator+(F a, F b) { return {a.v + b.v}; }
inline F operator-(F a, F b) { return {a.v - b.v}; }
inline F operator*(F a, F b) { return {a.v * b.v}; }
inline F operator/(F a, F b) { return {a.v / b.v}; }
inline F operator-(F a) { return {-a.v}; }
inline F fma(F a, F b, F c) { return {a.v * b.v + c.v}; }
inline F fnma(F a, F b, F c) { return {c.v - a.v * b.v}; }
inline F select(M m, F a, F b) { return {(float4)((m.v & (int4)a.v) | (~m.v & (int4)b.v))}; }
inline M lt(F a, F b) { return {a.v < b.v}; }
inline M le(F a, F b) { return {a.v <= b.v}; }
inline M gt(F a, F b) { return {a.v > b.v}; }
inline M ge(F a, F b) { return {a.v >= b.v}; }
inline M eq(F a, F b) { return {a.v == b.v}; }
inline M ne(F a, F b) { return {a.v != b.v}; }
inline M is_nan(F a) { return {a.v != a.v}; }
inline F min(F a, F b) { return select(lt(a, b), a, b); }
inline F max(F a, F b) { return select(gt(a, b), a, b); }
inline F abs(F a) { return {(float4)((int4)a.v & 0x7fffffff)}; }
#define TIERCEL_LANEWISE(name, f) \
  inline F name(F a) { for (int i = 0; i < 4; ++i) a.v[i] = f(a.v[i]); return a; }
TIERCEL_LANEWISE(sqrt, __builtin_sqrtf)
TIERCEL_LANEWISE(round, __builtin_rintf)
TIERCEL_LANEWISE(floor, __builtin_floorf)
TIERCEL_LANEWISE(ceil, __builtin_ceilf)
TIERCEL_LANEWISE(trunc, __builtin_truncf)
#undef TIERCEL_LANEWISE
inline M operator&(M a, M b) { return {a.v & b.v}; }
inline M operator|(M a, M b) { return {a.v | b.v}; }
inline M operator~(M a) { return {~a.v}; }
inline bool any(M m) { return (m.v[0] | m.v[1] | m.v[2] | m.v[3]) != 0; }
inline bool all(M m) { return (m.v[0] & m.v[1] & m.v[2] & m.v[3]) != 0; }

// Out-of-range and NaN give INT32_MIN, as on x86.
inline I to_int(F a) {
  I r;
  for (int i = 0; i < 4; ++i)
    r.v[i] = a.v[i] >= -2147483648.0f && a.v[i] < 2147483648.0f ? (int32_t)__builtin_rintf(a.v[i]) : INT32_MIN;
  return r;
}
inline F to_float(I a) { return {__builtin_convertvector(a.v, float4)}; }
inline I bits(F a) { return {(int4)a.v}; }
inline F from_bits(I a) { return {(float4)a.v}; }
inline I iset1(int32_t x) { return {int4{x, x, x, x}}; }
inline I operator+(I a, I b) { return {(int4)((uint4)a.v + (uint4)b.v)}; }
inline I operator-(I a, I b) { return {(int4)((uint4)a.v - (uint4)b.v)}; }
inline I operator&(I a, I b) { return {a.v & b.v}; }
inline I operator|(I a, I b) { return {a.v | b.v}; }
inline I operator^(I a, I b) { return {a.v ^ b.v}; }
template <int n> inline I shl(I a) { return {(int4)((uint4)a.v << n)}; }
template <int n> inline I shr(I a) { return {(int4)((uint4)a.v >> n)}; }
template <int n> inline I sra(I a) { return {a.v >> n}; }

inline float sum(F a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
inline float hmax(F a) {
  const float x = a.v[0] > a.v[2] ? a.v[0] : a.v[2], y = a.v[1] > a.v[3] ? a.v[1] : a.v[3];
  return x > y ? x : y;
}
inline float hmin(F a) {
  const float x = a.v[0] < a.v[2] ? a.v[0] : a.v[2], y = a.v[1] < a.v[3] ? a.v[1] : a.v[3];
  return x < y ? x : y;
}

}  // namespace
}  // namespace tiercel::TIERCEL_ISA

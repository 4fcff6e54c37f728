// Vec out of the compiler's vector extensions: 4 lanes, for the baseline of any processor. No fused multiply-add.
#pragma once
#include <math.h>
#if defined(__SSE4_1__)
#include <smmintrin.h>
#endif

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
#if defined(__SSE4_1__)
inline F select(M m, F a, F b) { return {(float4)_mm_blendv_ps((__m128)b.v, (__m128)a.v, (__m128)m.v)}; }
inline F min(F a, F b) { return {(float4)_mm_min_ps((__m128)a.v, (__m128)b.v)}; }
inline F max(F a, F b) { return {(float4)_mm_max_ps((__m128)a.v, (__m128)b.v)}; }
#else
inline F select(M m, F a, F b) { return {(float4)((m.v & (int4)a.v) | (~m.v & (int4)b.v))}; }
inline F min(F a, F b) { return select(M{a.v < b.v}, a, b); }
inline F max(F a, F b) { return select(M{a.v > b.v}, a, b); }
#endif
inline M lt(F a, F b) { return {a.v < b.v}; }
inline M le(F a, F b) { return {a.v <= b.v}; }
inline M gt(F a, F b) { return {a.v > b.v}; }
inline M ge(F a, F b) { return {a.v >= b.v}; }
inline M eq(F a, F b) { return {a.v == b.v}; }
inline M ne(F a, F b) { return {a.v != b.v}; }
inline M is_nan(F a) { return {a.v != a.v}; }
inline F abs(F a) { return {(float4)((int4)a.v & 0x7fffffff)}; }
#if defined(__SSE4_1__)
inline F sqrt(F a) { return {(float4)_mm_sqrt_ps((__m128)a.v)}; }
inline F round(F a) { return {(float4)_mm_round_ps((__m128)a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline F floor(F a) { return {(float4)_mm_floor_ps((__m128)a.v)}; }
inline F ceil(F a) { return {(float4)_mm_ceil_ps((__m128)a.v)}; }
inline F trunc(F a) { return {(float4)_mm_round_ps((__m128)a.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)}; }
#else
#define TIERCEL_LANEWISE(name, f) \
  inline F name(F a) { for (int i = 0; i < 4; ++i) a.v[i] = f(a.v[i]); return a; }
TIERCEL_LANEWISE(sqrt, __builtin_sqrtf)
TIERCEL_LANEWISE(round, __builtin_rintf)
TIERCEL_LANEWISE(floor, __builtin_floorf)
TIERCEL_LANEWISE(ceil, __builtin_ceilf)
TIERCEL_LANEWISE(trunc, __builtin_truncf)
#undef TIERCEL_LANEWISE
#endif
inline M operator&(M a, M b) { return {a.v & b.v}; }
inline M operator|(M a, M b) { return {a.v | b.v}; }
inline M operator~(M a) { return {~a.v}; }
inline uint32_t lanes_of(M m) { return (m.v[0] & 1) | (m.v[1] & 2) | (m.v[2] & 4) | (m.v[3] & 8); }
inline bool any(M m) { return (m.v[0] | m.v[1] | m.v[2] | m.v[3]) != 0; }
inline bool all(M m) { return (m.v[0] & m.v[1] & m.v[2] & m.v[3]) != 0; }

#if defined(__SSE4_1__)
inline I to_int(F a) { return {(int4)_mm_cvtps_epi32((__m128)a.v)}; }
#else
inline I to_int(F a) {
  I r;
  for (int i = 0; i < 4; ++i)
    r.v[i] = a.v[i] >= -2147483648.0f && a.v[i] < 2147483648.0f ? (int32_t)__builtin_rintf(a.v[i]) : INT32_MIN;
  return r;
}
#endif
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

inline I operator*(I a, I b) { return {(int4)((uint4)a.v * (uint4)b.v)}; }
inline I iload(const int32_t* p) { int4 v; __builtin_memcpy(&v, p, 16); return {v}; }
inline void istore(int32_t* p, I a) { __builtin_memcpy(p, &a.v, 16); }
inline I iota() { return {int4{0, 1, 2, 3}}; }
inline M ieq(I a, I b) { return {a.v == b.v}; }
inline M igt(I a, I b) { return {a.v > b.v}; }
inline I select(M m, I a, I b) { return {(m.v & a.v) | (~m.v & b.v)}; }
inline F gather(const float* base, I i) { return {float4{base[i.v[0]], base[i.v[1]], base[i.v[2]], base[i.v[3]]}}; }
#if defined(__SSE4_1__)
inline F permute(F a, I i) {  // as bytes
  const int4 bytes = i.v * 0x04040404 + 0x03020100;
  return {(float4)_mm_shuffle_epi8((__m128i)a.v, (__m128i)bytes)};
}
#else
inline F permute(F a, I i) { return {float4{a.v[i.v[0]], a.v[i.v[1]], a.v[i.v[2]], a.v[i.v[3]]}}; }
#endif

inline I load_16bit(const uint16_t* p, int64_t n) {
  int4 v = {0, 0, 0, 0};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return {v};
}
inline void store_16bit(uint16_t* p, I a, int64_t n) { for (int i = 0; i < n; ++i) p[i] = (uint16_t)a.v[i]; }
// Half: the exponent moves by 112; subnormals through integers, which no flush-to-zero mode touches.
inline F from_f16(I h) {
  const I magnitude = h & iset1(0x7fff), exponent = h & iset1(0x7c00), sign = shl<16>(h & iset1(0x8000));
  const I normal = shl<13>(magnitude) + iset1(112 << 23), special = shl<13>(magnitude) | iset1(0x7f800000);
  const F subnormal = to_float(magnitude) * set1(0x1p-24f);
  const I r = select(ieq(exponent, iset1(0x7c00)), special, select(ieq(exponent, iset1(0)), bits(subnormal), normal));
  return from_bits(r | sign);
}
inline I to_f16(F a) {
  const I u = bits(a), magnitude = u & iset1(0x7fffffff), sign = shr<16>(u) & iset1(0x8000);
  const I normal = shr<13>(magnitude + iset1(0xfff) + (shr<13>(magnitude) & iset1(1)) - iset1(112 << 23));
  const I subnormal = bits(from_bits(magnitude) + set1(0.5f)) - iset1(0x3f000000);
  I r = select(igt(iset1(0x38800000), magnitude), subnormal, normal);
  r = select(igt(magnitude, iset1(0x477fefff)), iset1(0x7c00), r);
  return select(igt(magnitude, iset1(0x7f800000)), iset1(0x7e00), r) | sign;
}
inline F load_f16(const uint16_t* p) { return from_f16(load_16bit(p, 4)); }
inline F load_f16(const uint16_t* p, int64_t n) { return from_f16(load_16bit(p, n)); }
inline void store_f16(uint16_t* p, F a) { store_16bit(p, to_f16(a), 4); }
inline void store_f16(uint16_t* p, F a, int64_t n) { store_16bit(p, to_f16(a), n); }
inline F load_bf16(const uint16_t* p) { return from_bits(shl<16>(load_16bit(p, 4))); }
inline F load_bf16(const uint16_t* p, int64_t n) { return from_bits(shl<16>(load_16bit(p, n))); }
inline I to_bf16(F a) {
  const I u = bits(a), rounded = u + iset1(0x7fff) + (shr<16>(u) & iset1(1));
  return shr<16>(select(is_nan(a), u | iset1(0x400000), rounded));
}
inline void store_bf16(uint16_t* p, F a) { store_16bit(p, to_bf16(a), 4); }
inline void store_bf16(uint16_t* p, F a, int64_t n) { store_16bit(p, to_bf16(a), n); }

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

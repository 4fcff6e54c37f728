// Vec for AVX2 with FMA: 8 lanes; masks are registers of all-ones lanes.
#pragma once
#include <immintrin.h>

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int kLanes = 8;
constexpr bool kFused = true;
struct F { __m256 v; };
struct I { __m256i v; };
struct M { __m256 v; };

inline __m256i first(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

inline F load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline F load(const float* p, int64_t n) { return {_mm256_maskload_ps(p, first(n))}; }
inline F load(const float* p, int64_t n, F v) {
  const __m256i m = first(n);
  return {_mm256_blendv_ps(v.v, _mm256_maskload_ps(p, m), _mm256_castsi256_ps(m))};
}
inline void store(float* p, F a) { _mm256_storeu_ps(p, a.v); }
inline void store(float* p, F a, int64_t n) { _mm256_maskstore_ps(p, first(n), a.v); }
inline F set1(float x) { return {_mm256_set1_ps(x)}; }
inline F zero() { return {_mm256_setzero_ps()}; }
inline F operator+(F a, F b) { return {_mm256_add_ps(a.v, b.v)}; }
inline F operator-(F a, F b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline F operator*(F a, F b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline F operator/(F a, F b) { return {_mm256_div_ps(a.v, b.v)}; }
inline F operator-(F a) { return {_mm256_xor_ps(a.v, _mm256_set1_ps(-0.0f))}; }
inline F fma(F a, F b, F c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline F fnma(F a, F b, F c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }
inline F min(F a, F b) { return {_mm256_min_ps(a.v, b.v)}; }
inline F max(F a, F b) { return {_mm256_max_ps(a.v, b.v)}; }
inline F abs(F a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
inline F sqrt(F a) { return {_mm256_sqrt_ps(a.v)}; }
inline F round(F a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline F floor(F a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
inline F ceil(F a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)}; }
inline F trunc(F a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)}; }

inline M lt(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
inline M le(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LE_OQ)}; }
inline M gt(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
inline M ge(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
inline M eq(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)}; }
inline M ne(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_NEQ_UQ)}; }
inline M is_nan(F a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }
inline F select(M m, F a, F b) { return {_mm256_blendv_ps(b.v, a.v, m.v)}; }
inline M operator&(M a, M b) { return {_mm256_and_ps(a.v, b.v)}; }
inline M operator|(M a, M b) { return {_mm256_or_ps(a.v, b.v)}; }
inline M operator~(M a) { return {_mm256_xor_ps(a.v, _mm256_castsi256_ps(_mm256_set1_epi32(-1)))}; }
inline uint32_t lanes_of(M m) { return static_cast<uint32_t>(_mm256_movemask_ps(m.v)); }
inline bool any(M m) { return _mm256_movemask_ps(m.v) != 0; }
inline bool all(M m) { return _mm256_movemask_ps(m.v) == 0xff; }

inline I to_int(F a) { return {_mm256_cvtps_epi32(a.v)}; }
inline F to_float(I a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline I bits(F a) { return {_mm256_castps_si256(a.v)}; }
inline F from_bits(I a) { return {_mm256_castsi256_ps(a.v)}; }
inline I iset1(int32_t x) { return {_mm256_set1_epi32(x)}; }
inline I operator+(I a, I b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline I operator-(I a, I b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline I operator&(I a, I b) { return {_mm256_and_si256(a.v, b.v)}; }
inline I operator|(I a, I b) { return {_mm256_or_si256(a.v, b.v)}; }
inline I operator^(I a, I b) { return {_mm256_xor_si256(a.v, b.v)}; }
template <int n> inline I shl(I a) { return {_mm256_slli_epi32(a.v, n)}; }
template <int n> inline I shr(I a) { return {_mm256_srli_epi32(a.v, n)}; }
template <int n> inline I sra(I a) { return {_mm256_srai_epi32(a.v, n)}; }

inline I operator*(I a, I b) { return {_mm256_mullo_epi32(a.v, b.v)}; }
inline I iload(const int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline void istore(int32_t* p, I a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v); }
inline I iota() { return {_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)}; }
inline M ieq(I a, I b) { return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(a.v, b.v))}; }
inline M igt(I a, I b) { return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(a.v, b.v))}; }
inline I select(M m, I a, I b) { return {_mm256_blendv_epi8(b.v, a.v, _mm256_castps_si256(m.v))}; }
inline F gather(const float* base, I index) { return {_mm256_i32gather_ps(base, index.v, 4)}; }
inline F permute(F a, I index) { return {_mm256_permutevar8x32_ps(a.v, index.v)}; }

inline __m128i load_16bit(const uint16_t* p, int64_t n) {
  uint16_t v[8] = {};
  __builtin_memcpy(v, p, static_cast<size_t>(n) * 2);
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(v));
}
inline void store_16bit(uint16_t* p, __m128i a, int64_t n) {
  uint16_t v[8];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(v), a);
  __builtin_memcpy(p, v, static_cast<size_t>(n) * 2);
}
inline F load_f16(const uint16_t* p) { return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}; }
inline F load_f16(const uint16_t* p, int64_t n) { return {_mm256_cvtph_ps(load_16bit(p, n))}; }
inline __m128i to_f16(F a) { return _mm256_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline void store_f16(uint16_t* p, F a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_f16(a)); }
inline void store_f16(uint16_t* p, F a, int64_t n) { store_16bit(p, to_f16(a), n); }
inline F from_bf16(__m128i h) { return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16))}; }
inline F load_bf16(const uint16_t* p) { return from_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
inline F load_bf16(const uint16_t* p, int64_t n) { return from_bf16(load_16bit(p, n)); }
inline __m128i to_bf16(F a) {
  const I u = bits(a), rounded = u + iset1(0x7fff) + (shr<16>(u) & iset1(1));
  const __m256i h = shr<16>(select(is_nan(a), u | iset1(0x400000), rounded)).v;
  return _mm_packus_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
}
inline void store_bf16(uint16_t* p, F a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), to_bf16(a)); }
inline void store_bf16(uint16_t* p, F a, int64_t n) { store_16bit(p, to_bf16(a), n); }

inline float sum(F a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float hmax(F a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}
inline float hmin(F a) {
  __m128 s = _mm_min_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_min_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_min_ss(s, _mm_movehdup_ps(s)));
}

}  // namespace
}  // namespace tiercel::TIERCEL_ISA

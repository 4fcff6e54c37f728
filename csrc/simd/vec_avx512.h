// Vec for AVX-512: 16 lanes, mask registers.
#pragma once
#include <immintrin.h>

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int kLanes = 16;
constexpr bool kFused = true;
struct F { __m512 v; };
struct I { __m512i v; };
struct M { __mmask16 v; };

inline __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }

inline F load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F load(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
inline F load(const float* p, int64_t n, F v) { return {_mm512_mask_loadu_ps(v.v, first(n), p)}; }
inline void store(float* p, F a) { _mm512_storeu_ps(p, a.v); }
inline void store(float* p, F a, int64_t n) { _mm512_mask_storeu_ps(p, first(n), a.v); }
inline F set1(float x) { return {_mm512_set1_ps(x)}; }
inline F zero() { return {_mm512_setzero_ps()}; }
inline F operator+(F a, F b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F operator-(F a, F b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F operator*(F a, F b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F operator/(F a, F b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F operator-(F a) { return {_mm512_xor_ps(a.v, _mm512_set1_ps(-0.0f))}; }
inline F fma(F a, F b, F c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F fnma(F a, F b, F c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }
inline F min(F a, F b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F max(F a, F b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F abs(F a) { return {_mm512_abs_ps(a.v)}; }
inline F sqrt(F a) { return {_mm512_sqrt_ps(a.v)}; }
inline F round(F a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline F floor(F a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)}; }
inline F ceil(F a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC)}; }
inline F trunc(F a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC)}; }

inline M lt(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline M le(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ)}; }
inline M gt(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)}; }
inline M ge(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ)}; }
inline M eq(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)}; }
inline M ne(F a, F b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_NEQ_UQ)}; }
inline M is_nan(F a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
inline F select(M m, F a, F b) { return {_mm512_mask_blend_ps(m.v, b.v, a.v)}; }
inline M operator&(M a, M b) { return {static_cast<__mmask16>(a.v & b.v)}; }
inline M operator|(M a, M b) { return {static_cast<__mmask16>(a.v | b.v)}; }
inline M operator~(M a) { return {static_cast<__mmask16>(~a.v)}; }
inline uint32_t lanes_of(M m) { return m.v; }
inline bool any(M m) { return m.v != 0; }
inline bool all(M m) { return m.v == 0xffff; }

inline I to_int(F a) { return {_mm512_cvtps_epi32(a.v)}; }
inline F to_float(I a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline I bits(F a) { return {_mm512_castps_si512(a.v)}; }
inline F from_bits(I a) { return {_mm512_castsi512_ps(a.v)}; }
inline I iset1(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline I operator+(I a, I b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I operator-(I a, I b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline I operator&(I a, I b) { return {_mm512_and_si512(a.v, b.v)}; }
inline I operator|(I a, I b) { return {_mm512_or_si512(a.v, b.v)}; }
inline I operator^(I a, I b) { return {_mm512_xor_si512(a.v, b.v)}; }
template <int n> inline I shl(I a) { return {_mm512_slli_epi32(a.v, n)}; }
template <int n> inline I shr(I a) { return {_mm512_srli_epi32(a.v, n)}; }
template <int n> inline I sra(I a) { return {_mm512_srai_epi32(a.v, n)}; }

inline I operator*(I a, I b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
inline I iload(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline void istore(int32_t* p, I a) { _mm512_storeu_si512(p, a.v); }
inline I iota() { return {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)}; }
inline M ieq(I a, I b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
inline M igt(I a, I b) { return {_mm512_cmpgt_epi32_mask(a.v, b.v)}; }
inline I select(M m, I a, I b) { return {_mm512_mask_blend_epi32(m.v, b.v, a.v)}; }
inline F gather(const float* base, I index) { return {_mm512_i32gather_ps(index.v, base, 4)}; }
inline F permute(F a, I index) { return {_mm512_permutexvar_ps(index.v, a.v)}; }

inline F load_f16(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }
inline F load_f16(const uint16_t* p, int64_t n) { return {_mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first(n), p))}; }
inline __m256i to_f16(F a) { return _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline void store_f16(uint16_t* p, F a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_f16(a)); }
inline void store_f16(uint16_t* p, F a, int64_t n) { _mm256_mask_storeu_epi16(p, first(n), to_f16(a)); }
inline F from_bf16(__m256i h) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16))}; }
inline F load_bf16(const uint16_t* p) { return from_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
inline F load_bf16(const uint16_t* p, int64_t n) { return from_bf16(_mm256_maskz_loadu_epi16(first(n), p)); }
inline __m256i to_bf16(F a) {  // by integers: vcvtneps2bf16 would flush subnormals
  const I u = bits(a), rounded = u + iset1(0x7fff) + (shr<16>(u) & iset1(1));
  return _mm512_cvtepi32_epi16(shr<16>(select(is_nan(a), u | iset1(0x400000), rounded)).v);
}
inline void store_bf16(uint16_t* p, F a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16(a)); }
inline void store_bf16(uint16_t* p, F a, int64_t n) { _mm256_mask_storeu_epi16(p, first(n), to_bf16(a)); }

inline float sum(F a) { return _mm512_reduce_add_ps(a.v); }
inline float hmax(F a) { return _mm512_reduce_max_ps(a.v); }
inline float hmin(F a) { return _mm512_reduce_min_ps(a.v); }

}  // namespace
}  // namespace tiercel::TIERCEL_ISA

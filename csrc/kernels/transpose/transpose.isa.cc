// A tile of N x N elements (N of them in 16 bytes) goes through log2(N) rounds of interleaving, each of which zips row i with
// row i + N/2: after the last, register c holds column c. AVX2 and AVX-512 put 2 or 4 tiles that lie below one another
// into the 128-bit lanes of a register, so that a column leaves in one wide store and no lane is ever crossed.
#include "kernels/transpose/transpose.h"
#include "simd/vec.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tiercel::TIERCEL_ISA {
namespace {

// Elements of 1 to 16 bytes at any address: a run of small ones may travel as one.
#define TIERCEL_PACKED struct __attribute__((packed, may_alias))
TIERCEL_PACKED E1 { uint8_t v; };
TIERCEL_PACKED E2 { uint16_t v; };
TIERCEL_PACKED E4 { uint32_t v; };
TIERCEL_PACKED E8 { uint64_t v; };
TIERCEL_PACKED E16 { uint64_t v, w; };
template <int n> struct Bits {};

#if defined(TIERCEL_ISA_AVX512)
constexpr int kParts = 4;
typedef __m512i R;
inline R load_parts(const char* p, int64_t stride) {
  R r = _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  r = _mm512_inserti32x4(r, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + stride)), 1);
  r = _mm512_inserti32x4(r, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 2 * stride)), 2);
  return _mm512_inserti32x4(r, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 3 * stride)), 3);
}
inline void store_parts(char* p, R r) { _mm512_storeu_si512(p, r); }
#define TIERCEL_ZIP(bits) \
  inline R zip_low(R a, R b, Bits<bits>) { return _mm512_unpacklo_epi##bits(a, b); } \
  inline R zip_high(R a, R b, Bits<bits>) { return _mm512_unpackhi_epi##bits(a, b); }
#elif defined(TIERCEL_ISA_AVX2)
constexpr int kParts = 2;
typedef __m256i R;
inline R load_parts(const char* p, int64_t stride) {
  const __m256i r = _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm256_inserti128_si256(r, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + stride)), 1);
}
inline void store_parts(char* p, R r) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), r); }
#define TIERCEL_ZIP(bits) \
  inline R zip_low(R a, R b, Bits<bits>) { return _mm256_unpacklo_epi##bits(a, b); } \
  inline R zip_high(R a, R b, Bits<bits>) { return _mm256_unpackhi_epi##bits(a, b); }
#elif defined(__x86_64__)
constexpr int kParts = 1;
typedef __m128i R;
inline R load_parts(const char* p, int64_t) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
inline void store_parts(char* p, R r) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), r); }
#define TIERCEL_ZIP(bits) \
  inline R zip_low(R a, R b, Bits<bits>) { return _mm_unpacklo_epi##bits(a, b); } \
  inline R zip_high(R a, R b, Bits<bits>) { return _mm_unpackhi_epi##bits(a, b); }
#else
constexpr int kParts = 1;
typedef uint8_t R __attribute__((vector_size(16)));
inline R load_parts(const char* p, int64_t) { R r; __builtin_memcpy(&r, p, 16); return r; }
inline void store_parts(char* p, R r) { __builtin_memcpy(p, &r, 16); }
#if defined(TIERCEL_ISA_NEON)
#define TIERCEL_ZIP(bits)                                                                           \
  inline R zip_low(R a, R b, Bits<bits>) { return (R)vzip1q_u##bits((U##bits)a, (U##bits)b); }      \
  inline R zip_high(R a, R b, Bits<bits>) { return (R)vzip2q_u##bits((U##bits)a, (U##bits)b); }
typedef uint8x16_t U8;
typedef uint16x8_t U16;
typedef uint32x4_t U32;
typedef uint64x2_t U64;
#else
#define TIERCEL_ZIP(bits)                                                                      \
  inline R zip_low(R a, R b, Bits<bits>) { return zip<uint##bits##_t>(a, b, 0); }              \
  inline R zip_high(R a, R b, Bits<bits>) { return zip<uint##bits##_t>(a, b, 8 / sizeof(uint##bits##_t)); }
template <class T> inline R zip(R a, R b, int at) {
  constexpr int n = 16 / sizeof(T);
  T x[n], y[n], z[n];
  __builtin_memcpy(x, &a, 16);
  __builtin_memcpy(y, &b, 16);
  for (int i = 0; i < n / 2; ++i) { z[2 * i] = x[at + i]; z[2 * i + 1] = y[at + i]; }
  R r;
  __builtin_memcpy(&r, z, 16);
  return r;
}
#endif
#endif

TIERCEL_ZIP(8)
TIERCEL_ZIP(16)
TIERCEL_ZIP(32)
TIERCEL_ZIP(64)

// kParts * N rows by N columns.
template <int size> inline void tile(const char* in, int64_t in_stride, char* out, int64_t out_stride) {
  constexpr int n = 16 / size;
  R a[n], b[n];
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) a[i] = load_parts(in + i * in_stride, n * in_stride);
#pragma GCC unroll 4
  for (int round = 1; round < n; round *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < n / 2; ++i) {
      b[2 * i] = zip_low(a[i], a[i + n / 2], Bits<size * 8>());
      b[2 * i + 1] = zip_high(a[i], a[i + n / 2], Bits<size * 8>());
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) a[i] = b[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < n; ++i) store_parts(out + i * out_stride, a[i]);
}

template <class T>
inline void corner(const T* in, int64_t in_stride, T* out, int64_t out_stride, int64_t rows, int64_t cols) {
  if (rows < cols) {  // few rows (RGB planes to pixels): long reads, short strided writes
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) out[c * out_stride + r] = in[r * in_stride + c];
  } else {
    for (int64_t c = 0; c < cols; ++c)
      for (int64_t r = 0; r < rows; ++r) out[c * out_stride + r] = in[r * in_stride + c];
  }
}

template <class T>
void plane(const void* source, int64_t in_stride, void* target, int64_t out_stride, int64_t rows, int64_t cols) {
  const T* in = static_cast<const T*>(source);
  T* out = static_cast<T*>(target);
  constexpr int size = sizeof(T), width = 16 / size, height = width * kParts;
  if constexpr (size == 16) return corner(in, in_stride, out, out_stride, rows, cols);
  else {
    const int64_t whole_rows = rows / height * height, whole_cols = cols / width * width;
    for (int64_t r = 0; r < whole_rows; r += height)
      for (int64_t c = 0; c < whole_cols; c += width)
        tile<size>(reinterpret_cast<const char*>(in + r * in_stride + c), in_stride * size,
                   reinterpret_cast<char*>(out + c * out_stride + r), out_stride * size);
    if (whole_cols < cols)
      corner(in + whole_cols, in_stride, out + whole_cols * out_stride, out_stride, whole_rows, cols - whole_cols);
    if (whole_rows < rows)
      corner(in + whole_rows * in_stride, in_stride, out + whole_rows, out_stride, rows - whole_rows, cols);
  }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(TransposeKernels, transpose_kernels){
    {&plane<E1>, &plane<E2>, &plane<E4>, &plane<E8>, &plane<E16>}};

}  // namespace tiercel::TIERCEL_ISA

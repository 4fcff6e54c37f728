#include "kernels/gemm/plain.h"

#include "simd/vec.h"

namespace tiercel::TIERCEL_ISA {
namespace {

// A few registers of T across by kRows: the compiler makes vectors of the innermost loops.
template <class T> constexpr int kColumns = 4 * kLanes * 4 / static_cast<int>(sizeof(T));
constexpr int kRows = 4;

template <class T, int M> void rows(const PlainGemmArgs& g, int64_t i, int64_t j, int64_t n, const T* b, int64_t b_row) {
  constexpr int N = kColumns<T>;
  T acc[M][N];
  for (int r = 0; r < M; ++r)
    for (int x = 0; x < N; ++x) acc[r][x] = 0;
  const T* a = static_cast<const T*>(g.a) + i * g.a_row;
  for (int64_t k = 0; k < g.k; ++k, a += g.a_k, b += b_row)
    for (int r = 0; r < M; ++r) {
      const T y = a[r * g.a_row];
      for (int x = 0; x < N; ++x) acc[r][x] += y * b[x];
    }
  for (int r = 0; r < M; ++r) {
    T* c = static_cast<T*>(g.c) + (i + r) * g.c_row + j;
    for (int64_t x = 0; x < n; ++x) c[x] = acc[r][x];
  }
}

template <class T> void gemm_of(const PlainGemmArgs& g) {
  constexpr int N = kColumns<T>;
  constexpr int64_t kDepth = 128;
  T panel[kDepth * N];  // of B, brought into rows of N with zeros beyond n
  for (int64_t j = 0; j < g.n; j += N) {
    const int64_t n = g.n - j < N ? g.n - j : N;
    const T* b = static_cast<const T*>(g.b) + j * g.b_col;
    if (g.b_col == 1 && n == N) {
      int64_t i = 0;
      for (; i + kRows <= g.m; i += kRows) rows<T, kRows>(g, i, j, n, b, g.b_k);
      for (; i < g.m; ++i) rows<T, 1>(g, i, j, n, b, g.b_k);
      continue;
    }
    for (int64_t i = 0; i < g.m; ++i)
      for (int64_t x = 0; x < n; ++x) static_cast<T*>(g.c)[i * g.c_row + j + x] = 0;
    for (int64_t k0 = 0; k0 < g.k; k0 += kDepth) {
      const int64_t depth = g.k - k0 < kDepth ? g.k - k0 : kDepth;
      for (int64_t k = 0; k < depth; ++k)
        for (int64_t x = 0; x < N; ++x) panel[k * N + x] = x < n ? b[(k0 + k) * g.b_k + x * g.b_col] : T(0);
      for (int64_t i = 0; i < g.m; ++i) {
        const T* a = static_cast<const T*>(g.a) + i * g.a_row + k0 * g.a_k;
        T* c = static_cast<T*>(g.c) + i * g.c_row + j;
        T acc[N];
        for (int64_t x = 0; x < N; ++x) acc[x] = x < n ? c[x] : T(0);
        for (int64_t k = 0; k < depth; ++k) {
          const T y = a[k * g.a_k];
          for (int x = 0; x < N; ++x) acc[x] += y * panel[k * N + x];
        }
        for (int64_t x = 0; x < n; ++x) c[x] = acc[x];
      }
    }
  }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(PlainGemmKernels, plain_gemm){&gemm_of<double>, &gemm_of<uint32_t>, &gemm_of<uint64_t>};

}  // namespace tiercel::TIERCEL_ISA

// Rows of a tensor written, or combined, at places that a list gives: the inner loops of the Scatter operators.
#pragma once
#include <cstdint>

#include "base/dtype.h"
#include "kernels/dispatch.h"

namespace tiercel {

enum class Scatter : uint8_t { kNone, kAdd, kMul, kMax, kMin };

// y[to[i] + k] = y[to[i] + k] (+) x[from[i] + k] for k < width, row after row for i < n: where rows meet, in their order. Everything counts in
// elements; x and y do not overlap.
using ScatterFn = void (*)(const void* x, const int64_t* from, void* y, const int64_t* to, int64_t n, int64_t width);

inline constexpr int kScatterSizes = 5;  // 1, 2, 4, 8, 16 bytes

inline constexpr int64_t kMixedRow = -1;

// Of indices, int32 or int64; negative ones count from the end of `extent` places.
template <class Index> struct IndexKernels {
  // Of n rows of `width` indices: place[r] is what all of a row name, or kMixedRow. False when any index is outside.
  bool (*rows)(const Index* index, int64_t n, int64_t width, int64_t extent, int64_t* place);
  bool (*outside)(const Index* index, int64_t n, int64_t extent);  // is any not in [-extent, extent)?
  // to[k] = base + k * step + (the place that index[k] names) * stride
  void (*places)(const Index* index, int64_t n, int64_t extent, int64_t stride, int64_t base, int64_t step, int64_t* to);
};

struct ScatterKernels {
  ScatterFn copy[kScatterSizes];  // by log2 of the element's bytes
  ScatterFn f32[4], f64[4];       // Scatter::kAdd on; max and min: NaN when either is, y where they are equal
  ScatterFn wrapping[4][2];       // integers of 1 to 8 bytes: sums and products wrap
  ScatterFn order_signed[4][2], order_unsigned[4][2];  // their maxima and minima
  ScatterFn logical[2];           // bools: or, and
  IndexKernels<int32_t> narrow;
  IndexKernels<int64_t> wide;
};
TIERCEL_KERNEL_TABLE(ScatterKernels, scatter_kernels)

template <class Index> const IndexKernels<Index>& index_kernels(const ScatterKernels& k) {
  if constexpr (sizeof(Index) == 4) return k.narrow;
  else return k.wide;
}

// The function for f32, f64, integers of whole bytes and bool; null for other types, and for kNone, which copies elements of any type.
ScatterFn scatter_fn(const ScatterKernels& kernels, Scatter f, DType t);

namespace reference {
// Of float or double.
template <class T> void scatter(Scatter f, const T* x, const int64_t* from, T* y, const int64_t* to, int64_t n, int64_t width) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0; k < width; ++k) {
      T& a = y[to[i] + k];
      const T b = x[from[i] + k];
      if (f == Scatter::kNone) a = b;
      else if (f == Scatter::kAdd) a = a + b;
      else if (f == Scatter::kMul) a = a * b;
      else if (a != a || b != b) a = a + b;
      else if (f == Scatter::kMax ? b > a : b < a) a = b;
    }
}
}  // namespace reference

}  // namespace tiercel

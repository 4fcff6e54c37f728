#include "kernels/quantize/quantize.h"
#include "simd/vec.h"

namespace tiercel::TIERCEL_ISA {
namespace {

// Simple loops: the compiler vectorises the widening and narrowing.
template <class T> void dequantize(const T* x, int64_t n, float zero, float scale, float* y) {
  for (int64_t i = 0; i < n; ++i) y[i] = (static_cast<float>(x[i]) - zero) * scale;
}

template <class T, int kLow, int kHigh> void quantize_to(const float* x, int64_t n, float zero, float scale, T* y) {
  constexpr int kTile = 256;
  const F s = set1(scale), z = set1(zero), low = set1(kLow), high = set1(kHigh);
  float t[kTile];
  for (int64_t i = 0; i < n; i += kTile) {
    const int64_t m = n - i < kTile ? n - i : kTile;
    for (int64_t j = 0; j < m; j += kLanes) {
      const F v = round((m - j < kLanes ? load(x + i + j, m - j) : load(x + i + j)) / s) + z;
      store(t + j, min(max(v, low), high));  // max gives `low` for NaN
    }
    for (int64_t j = 0; j < m; ++j) y[i + j] = static_cast<T>(static_cast<int32_t>(t[j]));
  }
}

void add_products(const int16_t* a, const int16_t* b, int64_t k, int64_t n, int64_t stride, int32_t* c) {
  constexpr int kTile = 64;
  for (int64_t j = 0; j < n; j += kTile) {
    if (n - j >= kTile) {
      uint32_t acc[kTile];
      for (int t = 0; t < kTile; ++t) acc[t] = static_cast<uint32_t>(c[j + t]);
      for (int64_t i = 0; i < k; ++i) {
        const int32_t v = a[i];
        const int16_t* row = b + i * stride + j;
        for (int t = 0; t < kTile; ++t) acc[t] += static_cast<uint32_t>(v * row[t]);
      }
      for (int t = 0; t < kTile; ++t) c[j + t] = static_cast<int32_t>(acc[t]);
    } else {
      for (int64_t i = 0; i < k; ++i)
        for (int64_t t = j; t < n; ++t)
          c[t] = static_cast<int32_t>(static_cast<uint32_t>(c[t]) + static_cast<uint32_t>(a[i] * b[i * stride + t]));
    }
  }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(QuantizeKernels, quantize){&dequantize<uint8_t>, &dequantize<int8_t>, &quantize_to<uint8_t, 0, 255>,
                                                   &quantize_to<int8_t, -128, 127>, &add_products};

}  // namespace tiercel::TIERCEL_ISA

// Bytes to and from f32 by a scale and a zero point, and products of small integers.
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

struct QuantizeKernels {
  // y[i] = (x[i] - zero) scale
  void (*dequantize_u8)(const uint8_t* x, int64_t n, float zero, float scale, float* y);
  void (*dequantize_s8)(const int8_t* x, int64_t n, float zero, float scale, float* y);
  // y[i] = x[i] / scale rounded to nearest even, plus zero, held within the type; NaN gives its least value
  void (*quantize_u8)(const float* x, int64_t n, float zero, float scale, uint8_t* y);
  void (*quantize_s8)(const float* x, int64_t n, float zero, float scale, int8_t* y);
  // c[j] += sum over i < k of a[i] b[i * stride + j], j < n; wraps around
  void (*add_products)(const int16_t* a, const int16_t* b, int64_t k, int64_t n, int64_t stride, int32_t* c);
};
TIERCEL_KERNEL_TABLE(QuantizeKernels, quantize)

namespace reference {
float dequantize(int32_t x, float zero, float scale);
int32_t quantize(float x, float zero, float scale, int32_t low, int32_t high);
}  // namespace reference

}  // namespace tiercel

// Rows of 16-bit floats to and from f32, rounded to nearest even.
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

struct HalfKernels {
  void (*f16_to_f32)(const uint16_t* x, float* y, int64_t n);
  void (*f32_to_f16)(const float* x, uint16_t* y, int64_t n);
  void (*bf16_to_f32)(const uint16_t* x, float* y, int64_t n);
  void (*f32_to_bf16)(const float* x, uint16_t* y, int64_t n);
};
TIERCEL_KERNEL_TABLE(HalfKernels, half)

}  // namespace tiercel

#include "kernels/cast/half.h"
#include "simd/vec.h"

namespace tiercel::TIERCEL_ISA {
namespace {

void f16_to_f32(const uint16_t* x, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load_f16(x + i));
  if (i < n) store(y + i, load_f16(x + i, n - i), n - i);
}
void f32_to_f16(const float* x, uint16_t* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_f16(y + i, load(x + i));
  if (i < n) store_f16(y + i, load(x + i, n - i), n - i);
}
void bf16_to_f32(const uint16_t* x, float* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, load_bf16(x + i));
  if (i < n) store(y + i, load_bf16(x + i, n - i), n - i);
}
void f32_to_bf16(const float* x, uint16_t* y, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store_bf16(y + i, load(x + i));
  if (i < n) store_bf16(y + i, load(x + i, n - i), n - i);
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(HalfKernels, half){&f16_to_f32, &f32_to_f16, &bf16_to_f32, &f32_to_bf16};

}  // namespace tiercel::TIERCEL_ISA

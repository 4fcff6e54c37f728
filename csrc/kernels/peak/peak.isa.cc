#include "kernels/peak/peak.h"
#include "simd/vec.h"

namespace tiercel::TIERCEL_ISA {
namespace {

double fma_f32(int64_t rounds, float* sink) {
  constexpr int kChains = kPeakChains;
  F acc[kChains];
  for (int i = 0; i < kChains; ++i) acc[i] = set1(static_cast<float>(i));
  const F a = set1(0.999f), b = set1(0.001f);
  for (int64_t r = 0; r < rounds; ++r)
#pragma GCC unroll 12
    for (int i = 0; i < kChains; ++i) acc[i] = fma(acc[i], a, b);
  F s = zero();
  for (int i = 0; i < kChains; ++i) s = s + acc[i];
  *sink = sum(s);
  return 2.0 * kLanes * kChains * static_cast<double>(rounds);
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(PeakKernels, peak){&fma_f32};

}  // namespace tiercel::TIERCEL_ISA

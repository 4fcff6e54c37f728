#include "kernels/roi_align/roi_align.h"

#include "simd/vec.h"

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int kBlock = 16, kWide = kBlock / kLanes;  // registers of a block

void block(const float* x, const RoiAxis& rows, int64_t height, const RoiAxis& columns, int64_t width, float* y) {
  for (int64_t i = 0; i < height; ++i)
    for (int64_t j = 0; j < width; ++j, y += kBlock) {
      F acc[kWide];
      for (int v = 0; v < kWide; ++v) acc[v] = zero();
      for (int32_t r = rows.begin[i]; r < rows.begin[i + 1]; ++r) {
        const float* const row = x + int64_t{rows.at[r]} * kBlock;
        for (int32_t c = columns.begin[j]; c < columns.begin[j + 1]; ++c) {
          const F weight = set1(rows.weight[r] * columns.weight[c]);
          const float* const pixel = row + int64_t{columns.at[c]} * kBlock;
          for (int v = 0; v < kWide; ++v) acc[v] = fma(weight, load(pixel + v * kLanes), acc[v]);
        }
      }
      for (int v = 0; v < kWide; ++v) store(y + v * kLanes, acc[v]);
    }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(RoiAlignKernels, roi_align){&block};

}  // namespace tiercel::TIERCEL_ISA

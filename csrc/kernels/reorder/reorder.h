// Between channel planes (NCHW) and blocks of 16 channels (NCHW16c), for one block of one image.
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

struct ReorderKernels {
  // y[i 16 + c] = c < channels ? x[c plane + i] : 0, for pixels i in [0, n)
  void (*to_blocked)(const float* x, int64_t plane, int channels, int64_t n, float* y);
  // y[c plane + i] = x[i 16 + c], for c < channels
  void (*to_plain)(const float* x, int64_t n, float* y, int64_t plane, int channels);
};
TIERCEL_KERNEL_TABLE(ReorderKernels, reorder)

}  // namespace tiercel

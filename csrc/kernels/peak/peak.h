// The yardstick of every kernel bench: how fast this core multiplies and adds when nothing else is asked of it.
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

struct PeakKernels {
  // Runs `rounds` of independent fused multiply-adds on registers alone; returns the FLOPs done. `sink` keeps them alive.
  double (*fma_f32)(int64_t rounds, float* sink);
};
TIERCEL_KERNEL_TABLE(PeakKernels, peak)

}  // namespace tiercel

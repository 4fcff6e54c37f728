// The yardstick of every kernel bench: how fast this core multiplies and adds when nothing else is asked of it.
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

// Twelve chains hide the latency of a fused multiply-add (4-5 cycles) on two ports.
constexpr int kPeakChains = 12;

struct PeakKernels {
  // Runs `rounds` of independent fused multiply-adds on registers alone; returns the FLOPs done
  // (2 * lanes * kPeakChains * rounds). `sink` keeps them alive.
  double (*fma_f32)(int64_t rounds, float* sink);
};
TIERCEL_KERNEL_TABLE(PeakKernels, peak)

}  // namespace tiercel

#include "kernels/reorder/reorder.h"

#include "simd/transpose.h"

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int kBlock = 16;

void to_blocked(const float* x, int64_t plane, int channels, int64_t n, float* y) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t m = n - i < kLanes ? n - i : kLanes;
#pragma GCC unroll 4
    for (int c = 0; c < kBlock; c += kLanes) {
      F r[kLanes];
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) {
        const float* const p = x + (c + l) * plane + i;
        r[l] = c + l >= channels ? zero() : m == kLanes ? load(p) : load(p, m);
      }
      transpose(r);
      if (m == kLanes) {
#pragma GCC unroll 16
        for (int l = 0; l < kLanes; ++l) store(y + (i + l) * kBlock + c, r[l]);
      } else {
#pragma GCC unroll 16
        for (int l = 0; l < kLanes; ++l)
          if (l < m) store(y + (i + l) * kBlock + c, r[l]);
      }
    }
  }
}

void to_plain(const float* x, int64_t n, float* y, int64_t plane, int channels) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const int64_t m = n - i < kLanes ? n - i : kLanes;
#pragma GCC unroll 4
    for (int c = 0; c < kBlock; c += kLanes) {
      if (c >= channels) break;
      F r[kLanes];
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) r[l] = l < m ? load(x + (i + l) * kBlock + c) : zero();
      transpose(r);
#pragma GCC unroll 16
      for (int l = 0; l < kLanes; ++l) {
        if (c + l >= channels) break;
        float* const p = y + (c + l) * plane + i;
        if (m == kLanes) store(p, r[l]);
        else store(p, r[l], m);
      }
    }
  }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(ReorderKernels, reorder){&to_blocked, &to_plain};

}  // namespace tiercel::TIERCEL_ISA

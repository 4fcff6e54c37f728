// Convolution of images that lie plain (NCHW), of few channels: stems. The same task as in conv.h, on tiles that are runs of an output
// row: with the stride known to the compiler, a pixel is a fixed distance from the first. Rows of the kernel that lie outside the image
// are left out, and a run that reaches over an end of its row reads a copy with zeros beside it.
#pragma once
#include "kernels/conv/conv.h"

namespace tiercel {

struct PlainKernels {
  // Output pixels [begin, end), as ConvKernels::run: for shapes of which plain_serves.
  void (*run)(const ConvShape& shape, const ConvTask& task, int64_t begin, int64_t end);
};
TIERCEL_KERNEL_TABLE(PlainKernels, conv_plain)

inline constexpr int64_t kPlainReach = 64;   // columns that a kernel spans, at most
inline constexpr int64_t kPlainTerms = 512;  // products of a sum

// `channels` as many as the task reads; for shapes with a regular kernel.
inline bool plain_serves(const ConvShape& s, int64_t channels) {
  const int64_t stride = s.stride[2];
  return s.plain && s.kernel[2] > 0 && (stride == 1 || stride == 2 || stride == 4) &&
         (s.kernel[2] - 1) * s.dilation[2] < kPlainReach && s.taps * channels <= kPlainTerms;
}

}  // namespace tiercel

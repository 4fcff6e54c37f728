// One axis of a separable resize: every output element is a weighted sum of `taps` input elements. Plain layout.
#pragma once
#include <cstdint>

#include "kernels/copy/copy.h"
#include "kernels/dispatch.h"

namespace tiercel {

struct ResizeKernels {
  // The axis is innermost: out[i] = sum_t weight[t * n + i] * in[index[t * n + i]] for i < n.
  void (*gather_f32)(const float* in, const int32_t* index, const float* weight, int64_t taps, float* out, int64_t n);
  // The axis lies outside rows of n elements: with k = t * stride,
  // out[j] = sum_t weight[k] * in[(index[k] - first) * n + j]; `first` is the row at `in`.
  void (*rows_f32)(const float* in, int64_t first, const int32_t* index, const float* weight, int64_t stride, int64_t taps,
                   float* out, int64_t n);
  // The axis lies outside short rows of `width` elements, as the channel blocks of NCHW16c: for i < n, j < width,
  // out[i * width + j] = sum_t weight[t * n + i] * in[index[t * n + i] * width + j]
  void (*columns_f32)(const float* in, const int32_t* index, const float* weight, int64_t taps, float* out, int64_t n, int64_t width);
  // Nearest, axis innermost: out[i] = in[index[i]] for i < n; tables by log2 of the element size.
  void (*pick[kCopySizes])(const void* in, const int32_t* index, void* out, int64_t n);
};
TIERCEL_KERNEL_TABLE(ResizeKernels, resize_kernels)

namespace reference {
void resize_gather_f32(const float* in, const int32_t* index, const float* weight, int64_t taps, float* out, int64_t n);
void resize_rows_f32(const float* in, int64_t first, const int32_t* index, const float* weight, int64_t stride, int64_t taps,
                     float* out, int64_t n);
}  // namespace reference

}  // namespace tiercel

// Transposition of a plane: out[c, r] = in[r, c]. Element sizes as in copy.h: tables indexed by log2 of the bytes.
#pragma once
#include <cstdint>

#include "kernels/copy/copy.h"
#include "kernels/dispatch.h"

namespace tiercel {

struct TransposeKernels {
  // out[c * out_stride + r] = in[r * in_stride + c] for r < rows, c < cols; strides in elements.
  void (*plane[kCopySizes])(const void* in, int64_t in_stride, void* out, int64_t out_stride, int64_t rows, int64_t cols);
};
TIERCEL_KERNEL_TABLE(TransposeKernels, transpose_kernels)

namespace reference {
void transpose_plane(const void* in, int64_t in_stride, void* out, int64_t out_stride, int64_t rows, int64_t cols,
                     int64_t size);
}  // namespace reference

}  // namespace tiercel

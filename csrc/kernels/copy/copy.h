// Copies between strided views: the inner loops of Slice, Concat, Split, Expand, Tile, Pad and every Transpose that is not a
// swap of the two innermost axes. Elements are bytes alone: tables are indexed by log2 of the element size (1 to 16 bytes).
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

inline constexpr int kCopySizes = 5;  // 1, 2, 4, 8, 16 bytes

struct CopyKernels {
  // out[r * out_stride + i] = in[r * in_stride + i] for r < rows, i < bytes; strides in bytes.
  void (*rows)(const void* in, int64_t in_stride, void* out, int64_t out_stride, int64_t rows, int64_t bytes);
  // out[i] = *value for i < n.
  void (*fill[kCopySizes])(const void* value, void* out, int64_t n);
  // out[r * out_row + c * out_col] = in[r * in_row + c * in_col]; strides in elements, any sign, 0 repeats.
  void (*strided[kCopySizes])(const void* in, int64_t in_row, int64_t in_col, void* out, int64_t out_row,
                              int64_t out_col, int64_t rows, int64_t cols);
};
TIERCEL_KERNEL_TABLE(CopyKernels, copy_kernels)

namespace reference {
void strided_copy(const void* in, int64_t in_row, int64_t in_col, void* out, int64_t out_row, int64_t out_col,
                  int64_t rows, int64_t cols, int64_t size);
}  // namespace reference

}  // namespace tiercel

#include "kernels/transpose/transpose.h"

namespace tiercel::reference {

void transpose_plane(const void* in, int64_t in_stride, void* out, int64_t out_stride, int64_t rows, int64_t cols,
                     int64_t size) {
  strided_copy(in, in_stride, 1, out, 1, out_stride, rows, cols, size);
}

}  // namespace tiercel::reference

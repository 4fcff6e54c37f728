#include "kernels/transpose/transpose.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(TransposeKernels, transpose_kernels)
}  // namespace tiercel

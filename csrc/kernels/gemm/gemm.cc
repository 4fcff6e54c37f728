#include "kernels/gemm/gemm.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(GemmKernels, gemm)
}  // namespace tiercel

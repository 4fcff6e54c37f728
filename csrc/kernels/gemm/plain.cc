#include "kernels/gemm/plain.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(PlainGemmKernels, plain_gemm)
}  // namespace tiercel

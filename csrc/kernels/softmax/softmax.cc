#include "kernels/softmax/softmax.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(SoftmaxKernels, softmax)
}  // namespace tiercel

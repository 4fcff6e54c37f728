#include "kernels/softmax/softmax_grad.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(SoftmaxGradKernels, softmax_grad)
}  // namespace tiercel

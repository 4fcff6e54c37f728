#include "kernels/conv/depthwise.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(DepthwiseKernels, depthwise)
}  // namespace tiercel

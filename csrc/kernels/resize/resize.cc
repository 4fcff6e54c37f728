#include "kernels/resize/resize.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(ResizeKernels, resize_kernels)
}  // namespace tiercel

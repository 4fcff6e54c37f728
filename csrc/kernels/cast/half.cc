#include "kernels/cast/half.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(HalfKernels, half)
}  // namespace tiercel

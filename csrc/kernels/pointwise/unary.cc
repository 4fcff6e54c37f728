#include "kernels/pointwise/unary.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(UnaryKernels, unary)
}  // namespace tiercel

#include "kernels/optimizer/optimizer.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(OptimizerKernels, optimizer)
}  // namespace tiercel

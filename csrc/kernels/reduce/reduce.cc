#include "kernels/reduce/reduce.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(ReduceKernels, reduce)
}  // namespace tiercel

#include "kernels/copy/copy.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(CopyKernels, copy_kernels)
}  // namespace tiercel

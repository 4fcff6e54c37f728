#include "kernels/reorder/reorder.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(ReorderKernels, reorder)
}  // namespace tiercel

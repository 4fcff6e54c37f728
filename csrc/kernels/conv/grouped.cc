#include "kernels/conv/grouped.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(GroupedKernels, grouped)
}  // namespace tiercel

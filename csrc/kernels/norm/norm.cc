#include "kernels/norm/norm.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(NormKernels, norm)
}  // namespace tiercel

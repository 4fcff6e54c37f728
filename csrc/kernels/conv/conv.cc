#include "kernels/conv/conv.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(ConvKernels, conv)
}  // namespace tiercel

#include "kernels/conv/plain.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(PlainKernels, conv_plain)
}  // namespace tiercel

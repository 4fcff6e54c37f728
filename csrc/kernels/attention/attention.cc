#include "kernels/attention/attention.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(AttentionKernels, attention)
}  // namespace tiercel

#include "kernels/recurrent/recurrent.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(RecurrentKernels, recurrent)
}  // namespace tiercel

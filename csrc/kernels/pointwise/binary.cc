#include "kernels/pointwise/binary.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(BinaryKernels, binary)
}  // namespace tiercel

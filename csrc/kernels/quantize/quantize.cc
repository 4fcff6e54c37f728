#include "kernels/quantize/quantize.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(QuantizeKernels, quantize)
}  // namespace tiercel

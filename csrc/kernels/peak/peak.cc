#include "kernels/peak/peak.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(PeakKernels, peak)
}  // namespace tiercel

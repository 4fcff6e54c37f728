#include "kernels/roi_align/roi_align.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(RoiAlignKernels, roi_align)
}  // namespace tiercel

#include "kernels/pool/pool.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(PoolKernels, pool)
}  // namespace tiercel

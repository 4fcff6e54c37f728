// How Softmax and the losses cut columns into tasks.
#pragma once
#include <algorithm>

#include "kernels/softmax/softmax.h"

namespace tiercel {

// Columns of a task: so many that its n rows, passed three times, stay in cache.
inline int64_t softmax_strip(int64_t n) { return std::clamp<int64_t>(65536 / std::max<int64_t>(n, 1) / 64 * 64, 64, kSoftmaxStrip); }

}  // namespace tiercel

// C arguments as tensors.
#pragma once
#include "base/tensor.h"
#include "tiercel.h"

namespace tiercel::capi {

Shape shape_of(int32_t rank, const int64_t* dims);
DType dtype_of(int32_t number);
// The caller's buffer, not owned. Throws kInvalidArgument for a wrong dtype, rank, extent or pointer.
Tensor view_of(const tiercel_arg& arg);
void check_index(size_t index, size_t count);

}  // namespace tiercel::capi

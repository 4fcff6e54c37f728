#include "kernels/scatter/scatter.h"

namespace tiercel {

TIERCEL_KERNEL_DISPATCH(ScatterKernels, scatter_kernels)

ScatterFn scatter_fn(const ScatterKernels& k, Scatter f, DType t) {
  if (f == Scatter::kNone) return nullptr;
  const int at = static_cast<int>(f) - 1;
  const bool order = f == Scatter::kMax || f == Scatter::kMin;
  const auto integer = [&](int log, const ScatterFn (&ordered)[4][2]) { return order ? ordered[log][f == Scatter::kMin] : k.wrapping[log][at]; };
  switch (t) {
    case DType::kFloat: return k.f32[at];
    case DType::kDouble: return k.f64[at];
    case DType::kInt8: return integer(0, k.order_signed);
    case DType::kInt16: return integer(1, k.order_signed);
    case DType::kInt32: return integer(2, k.order_signed);
    case DType::kInt64: return integer(3, k.order_signed);
    case DType::kUInt8: return integer(0, k.order_unsigned);
    case DType::kUInt16: return integer(1, k.order_unsigned);
    case DType::kUInt32: return integer(2, k.order_unsigned);
    case DType::kUInt64: return integer(3, k.order_unsigned);
    case DType::kBool: return k.logical[f == Scatter::kMul || f == Scatter::kMin];
    default: return nullptr;
  }
}

}  // namespace tiercel

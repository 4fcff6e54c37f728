// Master weights: those of float16 and bfloat16 are kept as floats while they are trained, so that small updates are not rounded away.
#pragma once
#include "base/tensor.h"

namespace tiercel {

// The type in which a weight of type t is trained.
constexpr DType master_type(DType t) { return t == DType::kFloat16 || t == DType::kBFloat16 ? DType::kFloat : t; }
constexpr bool is_float_type(DType t) { return t == DType::kDouble || master_type(t) == DType::kFloat; }

// The elements of `from`, of its type or of a narrower one, as those of `to`, which is there.
void copy_widened(const Tensor& from, const Tensor& to);
// A copy: floats in the type t, rounded to nearest where it is narrower.
Tensor narrowed(const Tensor& from, DType t);

}  // namespace tiercel

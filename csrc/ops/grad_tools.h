// Small graphs that gradient rules are made of: extents, running numbers, constants of a shape that may be known only as the model runs.
#pragma once
#include "ops/grad.h"

namespace tiercel::grad_tools {

inline Value* integer(GraphWriter& w, int64_t v) { return w.constant(Tensor::from_ints(DType::kInt64, Shape{}, &v)); }
inline Value* cast(GraphWriter& w, Value* v, DType t) { return w.dtype(v) == t ? v : w.op("Cast", {v}, {{"to", static_cast<int64_t>(t)}}); }
// Extents [from, to) of v, as a 1-D tensor; extent `axis` (not negative) as a scalar.
inline Value* extents(GraphWriter& w, Value* v, int64_t from, int64_t to) { return w.op("Shape", {v}, {{"start", from}, {"end", to}}); }
inline Value* extent(GraphWriter& w, Value* v, int64_t axis) { return w.op("Squeeze", {extents(w, v, axis, axis + 1)}); }
// 0, 1, ..., n - 1
inline Value* count_up(GraphWriter& w, Value* n) { return w.op("Range", {integer(w, 0), n, integer(w, 1)}); }
inline Value* zeros_like(GraphWriter& w, Value* v) { return w.expand_like(w.scalar_like(0, v), v); }
inline Value* sum_all(GraphWriter& w, Value* v) { return w.op("ReduceSum", {v}, {{"keepdims", int64_t{0}}}); }
inline Value* unsqueeze(GraphWriter& w, Value* v, const std::vector<int64_t>& axes) {
  return axes.empty() ? v : w.op("Unsqueeze", {v, w.ints(axes)});
}
// v where the condition holds, 0 elsewhere.
inline Value* only_where(GraphWriter& w, Value* condition, Value* v) { return w.op("Where", {condition, v, w.scalar_like(0, v)}); }
// Zeros of a shape, to which the slices of dy are added at the indices along the axis: Gather backwards.
inline Value* gather_back(GraphWriter& w, Value* dy, Value* indices, Value* shape, int64_t axis) {
  return w.op("GatherGrad", {dy, indices, shape}, {{"axis", axis}}, kTiercelDomain);
}

}  // namespace tiercel::grad_tools

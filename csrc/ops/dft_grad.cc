// Gradients of DFT and STFT, which are linear: of a transform the one with the other sign, of a cut or padding the other, of overlapping frames their sum.
#include "ops/grad_tools.h"

namespace tiercel {
namespace {

using namespace grad_tools;

// v with `extent` (a scalar) elements along the axis: zeros follow, or the last ones go.
Value* fit(GraphWriter& w, Value* v, Value* extent_wanted, int64_t axis) {
  Value* const more = w.op("Reshape", {w.sub(extent_wanted, extent(w, v, axis)), w.ints({1})});
  return w.op("Pad", {v, w.op("Concat", {w.ints({0}), more}, {{"axis", int64_t{0}}}), nullptr, w.ints({axis})});
}
// The real part alone, of numbers whose parts are the last axis, where `like` has no other.
Value* parts_as(GraphWriter& w, Value* v, Value* like, int64_t rank) {
  return w.op("Slice", {v, w.ints({0}), extents(w, like, rank - 1, rank), w.ints({rank - 1})});
}
Value* dft(GraphWriter& w, Value* v, Value* length, int64_t axis, bool inverse, bool onesided) {
  return w.op("DFT", {v, length, integer(w, axis)}, {{"inverse", int64_t{inverse}}, {"onesided", int64_t{onesided}}});
}

void grad_dft(GradContext& c) {
  GraphWriter& w = c.w;
  Value* const x = c.x(0);
  const int rank = c.rank(x);
  int64_t at = c.node.attr_int("axis", 1);
  if (c.node.opset >= 20) at = c.has(2) ? c.ints(2, "axis").at(0) : -2;
  const int axis = c.axis(at, rank);
  const bool inverse = c.node.attr_int("inverse", 0) != 0, onesided = c.node.attr_int("onesided", 0) != 0;
  const DType t = w.dtype(x);
  Value* n = nullptr;  // the length of the transform
  if (c.has(1)) n = w.op("Reshape", {cast(w, c.x(1), DType::kInt64), w.ints({})});
  else n = extent(w, inverse && onesided ? c.y() : x, axis);
  Value* dx = nullptr;
  if (!inverse) {  // the conjugate transform, not divided by n; what onesided left out has no gradient
    dx = w.mul(dft(w, c.dy(), n, axis, true, false), cast(w, n, t));
  } else {
    dx = w.div(dft(w, c.dy(), n, axis, false, onesided), cast(w, n, t));
    if (onesided) {  // each number but the first and, for an even n, the middle one stands for two
      Value* const k = count_up(w, extent(w, dx, axis));
      Value* const single = w.op("Equal", {w.op("Mod", {w.mul(k, integer(w, 2)), n}), integer(w, 0)});
      std::vector<int64_t> shape(static_cast<size_t>(rank), 1);
      shape[static_cast<size_t>(axis)] = -1;
      dx = w.mul(dx, w.op("Reshape", {w.op("Where", {single, w.scalar(1, t), w.scalar(2, t)}), w.ints(shape)}));
    }
  }
  c.set(0, parts_as(w, fit(w, dx, extent(w, x, axis), axis), x, rank));
}

void grad_stft(GradContext& c) {
  GraphWriter& w = c.w;
  Value *const x = c.x(0), *const window = c.x(2);
  const int rank = c.rank(x);
  Value* n = nullptr;
  if (c.has(3)) n = w.op("Reshape", {cast(w, c.x(3), DType::kInt64), w.ints({})});
  else n = extent(w, c.has(2) ? window : x, c.has(2) ? 0 : 1);
  Value* const hop = w.op("Reshape", {cast(w, c.x(1), DType::kInt64), w.ints({})});
  // at[frame, sample]: where a frame's samples stand in the signal
  Value* const starts = w.mul(count_up(w, extent(w, c.y(), 1)), hop);
  Value* const at = w.add(unsqueeze(w, starts, {1}), unsqueeze(w, count_up(w, n), {0}));
  Value* signal = rank == 3 ? x : unsqueeze(w, x, {2});
  Value* frames = w.mul(dft(w, c.dy(), n, 2, true, false), cast(w, n, w.dtype(x)));  // [batch, frame, sample, part]
  frames = parts_as(w, frames, w.op("Unsqueeze", {signal, w.ints({0})}), 4);
  if (c.wants(0)) {
    Value* const weighted = c.has(2) ? w.mul(frames, unsqueeze(w, window, {1})) : frames;
    c.set(0, w.reshape_like(gather_back(w, weighted, at, w.shape_of(signal), 1), x));
  }
  if (c.wants(2)) {
    Value* const product = w.mul(frames, w.op("Gather", {signal, at}, {{"axis", int64_t{1}}}));
    c.set(2, w.op("ReduceSum", {product, w.ints({0, 1, 3})}, {{"keepdims", int64_t{0}}}));
  }
}

const GradRegistration grads({{"DFT", "", grad_dft}, {"STFT", "", grad_stft}});

}  // namespace
}  // namespace tiercel

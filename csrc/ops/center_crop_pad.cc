// CenterCropPad: axes cut around their middle, or padded with zeros on both sides, to the extents asked for.
#include "ops/movement.h"

namespace tiercel {
namespace {

std::vector<int> axes_of(const Node& node, int rank) {
  std::vector<int> axes;
  if (!node.has("axes")) {
    for (int i = 0; i < rank; ++i) axes.push_back(i);
    return axes;
  }
  bool seen[kMaxRank] = {};
  for (int64_t a : node.attr_ints("axes")) {
    const int axis = normalize_axis(a, rank);
    if (axis < 0 || seen[axis]) fail(Code::kInvalidGraph, node.label(), ": axis ", a, " is outside the rank ", rank, " or stands twice");
    seen[axis] = true;
    axes.push_back(axis);
  }
  return axes;
}

void infer(InferContext& ctx) {
  ctx.input(0);
  ctx.input(1);
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  Shape r = ctx.shape(0);
  const auto axes = axes_of(ctx.node, r.rank());
  const auto extents = small_ints(ctx, 1);
  if (extents) ctx.check(extents->size() == axes.size(), "the shape has ", extents->size(), " entries for ", axes.size(), " axes");
  for (size_t i = 0; i < axes.size(); ++i) {
    const Dim d = extents ? (*extents)[i] : ctx.fresh();
    ctx.check(is_symbol(d) || d >= 0, "extent ", d, " is negative");
    r[axes[i]] = d;
  }
  if (r.known()) check_fits(ctx, ctx.dtype(0), r);
  ctx.set_output(0, ctx.dtype(0), r);
}

void prepare(PrepareContext& ctx) {
  const Shape &s = ctx.shape(0), &out = ctx.out_shape(0);
  if (s == out) return ctx.alias(0, 0);
  const Element e(ctx.dtype(0));
  const Strides from = strides_of(s), to = strides_of(out);
  std::vector<StridedCopy::Axis> axes;
  int64_t first_in = 0, first_out = 0;
  bool pads = false;
  for (int i = 0; i < s.rank(); ++i) {
    const auto k = static_cast<size_t>(i);
    axes.push_back({std::min(s[i], out[i]), from[k], to[k]});
    if (s[i] > out[i]) first_in += (s[i] - out[i]) / 2 * from[k];
    else first_out += (out[i] - s[i]) / 2 * to[k];
    pads = pads || out[i] > s[i];
  }
  Tensor zero(ctx.dtype(0), {});
  if (!e.string) std::memset(zero.data(), 0, static_cast<size_t>(zero.bytes()));
  move_cost(ctx);
  ctx.run([=, copy = StridedCopy(e, axes), n = out.count()](const Args& a, Worker& w) {
    if (pads) {
      w.parallel_for(n, move_grain(e.size), [&](int64_t b, int64_t end) { fill_elements(e, offset(a.out(0), b, e), zero.data(), end - b); });
      w.barrier();
    }
    if (copy.tasks()) copy.run(offset(a.in(0), first_in, e), offset(a.out(0), first_out, e), w);
  });
}

const OpRegistration rows({{"CenterCropPad", "", 18, infer, sub_byte<prepare>}});

}  // namespace
}  // namespace tiercel

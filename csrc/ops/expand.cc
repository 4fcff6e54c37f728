// Expand: the input broadcast to a shape (which may itself broadcast to the input's).
#include "ops/grad.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  ctx.input(0);
  ctx.input(1);
  ctx.check(!ctx.ranked(1) || ctx.shape(1).rank() == 1, "the target shape should be a 1-D tensor");
  const DType dtype = ctx.dtype(0);
  const auto dims = small_ints(ctx, 1);
  const auto n = length_of(ctx, 1);
  if (!ctx.ranked(0) || !n) return ctx.set_output(0, Type::tensor(dtype));
  ctx.check(*n <= kMaxRank, "a tensor of rank ", *n, " is not supported");
  const Shape& s = ctx.shape(0);
  if (!dims) return ctx.set_output(0, dtype, fresh_shape(ctx, std::max(s.rank(), static_cast<int>(*n))));
  const Shape target(*dims);
  for (Dim d : target) ctx.check(is_symbol(d) || d >= 0, "extent ", d, " in the target shape ", target, " is negative");
  const Shape r = broadcast_shapes(ctx, s, target);
  if (r.known()) check_fits(ctx, dtype, r);
  ctx.set_output(0, dtype, r);
  if (r.rank() > 1 || !r.known() || r.count() > kMaxKnownInts) return;
  if (const auto v = small_ints(ctx, 0)) {
    if (v->size() == 1) ctx.set_ints(0, std::vector<Dim>(static_cast<size_t>(r.count()), (*v)[0]));
    else if (static_cast<int64_t>(v->size()) == r.count()) ctx.set_ints(0, *v);
  }
}

void prepare(PrepareContext& ctx) {
  const Shape &s = ctx.shape(0), &out = ctx.out_shape(0);
  if (out.count() == s.count()) return ctx.alias(0, 0);
  const Strides in = strides_of(s), to = strides_of(out);
  const Element e(ctx.dtype(0));
  const int skip = out.rank() - s.rank();
  std::vector<StridedCopy::Axis> axes;
  for (int i = 0; i < out.rank(); ++i) {
    const bool repeats = i < skip || s[i - skip] == 1;
    axes.push_back({out[i], repeats ? 0 : in[static_cast<size_t>(i - skip)], to[static_cast<size_t>(i)]});
  }
  move_cost(ctx);
  ctx.run([copy = StridedCopy(e, axes)](const Args& a, Worker& w) { copy.run(a.in(0), a.out(0), w); });
}

const OpRegistration rows({{"Expand", "", 8, infer, sub_byte<prepare>}});

const GradRegistration grads({{"Expand", "", [](GradContext& c) { c.set_summed(0, c.dy()); }}});

}  // namespace
}  // namespace tiercel

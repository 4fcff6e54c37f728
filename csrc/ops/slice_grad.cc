// ai.tiercel.SliceGrad (dy, starts, ends, axes?, steps?, shape): dy where Slice took its elements from a tensor of that shape, zeros elsewhere.
#include "ops/movement.h"
#include "ops/numeric.h"
#include "ops/slice.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  const auto ints = ctx.ints(5);
  ctx.set_output(0, ints ? Type::tensor(ctx.dtype(0), Shape{std::span<const Dim>(*ints)}) : Type::tensor(ctx.dtype(0)));
}

void prepare(PrepareContext& ctx) {
  const Element e(ctx.dtype(0));
  const Shape whole = ctx.out_shape(0);
  const SliceWalk walk = slice_walk(ctx, whole, ctx.shape(0));
  std::vector<StridedCopy::Axis> axes = walk.axes;
  for (StridedCopy::Axis& a : axes) std::swap(a.in, a.out);
  move_cost(ctx);
  ctx.run([=, n = whole.count(), copy = StridedCopy(e, axes)](const Args& a, Worker& w) {
    w.parallel_for(n, move_grain(e.size), [&](int64_t b, int64_t end) {
      std::memset(offset(a.out(0), b, e), 0, static_cast<size_t>((end - b) * e.size));
    });
    w.barrier();
    copy.run(a.in(0), offset(a.out(0), walk.first, e), w);
  });
}

const OpRegistration rows({{"SliceGrad", kTiercelDomain, 1, infer, prepare}});

}  // namespace
}  // namespace tiercel

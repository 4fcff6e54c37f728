// ai.tiercel.SumTo (x, shape): x summed over the axes along which `shape` broadcasts to it. What gradients of broadcast operands are made of.
#include "ops/grad.h"
#include "ops/reduce.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.check(ctx.dtype(1) == DType::kInt64, "the shape should be int64");
  const auto ints = ctx.ints(1);
  if (!ints) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  const Shape to{std::span<const Dim>(*ints)};
  if (ctx.ranked(0)) {
    const Shape& from = ctx.shape(0);
    ctx.check(to.rank() <= from.rank(), "the shape ", to.str(), " does not broadcast to ", from.str());
    for (int i = 0; i < to.rank(); ++i) {
      const Dim a = to[i], b = from[from.rank() - to.rank() + i];
      ctx.check(a == 1 || a == b || is_symbol(a) || is_symbol(b), "the shape ", to.str(), " does not broadcast to ", from.str());
    }
  }
  ctx.set_output(0, ctx.dtype(0), to);
}

void prepare(PrepareContext& ctx) {
  const Shape from = ctx.shape(0), to = ctx.out_shape(0);
  bool reduce[kMaxRank] = {};
  bool any = false;
  for (int i = 0; i < from.rank(); ++i) {
    const int k = i - (from.rank() - to.rank());
    reduce[i] = k < 0 || (to[k] == 1 && from[i] != 1);
    any |= reduce[i] && from[i] != 1;
  }
  if (!any) return ctx.alias(0, 0);
  if (ctx.dtype(0) == DType::kFloat) {
    const FloatReduction reduction(Reduction::kSum, from, reduce);
    ctx.workspace(reduction.workspace());
    ctx.cost(reduction.work(), 4 * reduction.work());
    return ctx.run([=](const Args& a, Worker& w) { reduction.run(a.in<float>(0), a.out<float>(0), a.workspace(), w); });
  }
  const ReduceView v(from, reduce);
  ctx.cost(2 * static_cast<double>(from.count()), 8 * static_cast<double>(from.count()));
  ctx.run([=](const Args& a, Worker& w) {
    const auto offset = [](const std::vector<ReduceView::Axis>& axes, int64_t i) {
      int64_t at = 0;
      for (auto axis = axes.rbegin(); axis != axes.rend(); ++axis) {
        at += i % axis->extent * axis->stride;
        i /= axis->extent;
      }
      return at;
    };
    w.parallel_for(v.outputs, grain_for(v.count), [&](int64_t b, int64_t e) {
      for (int64_t o = b; o < e; ++o) {
        double sum = 0;
        for (int64_t i = 0; i < v.count; ++i) sum += a.in<double>(0)[offset(v.kept, o) + offset(v.reduced, i)];
        a.out<double>(0)[o] = sum;
      }
    });
  });
}

const OpRegistration rows({{"SumTo", kTiercelDomain, 1, infer, half_as_float<prepare>}});
const GradRegistration grads({{"SumTo", kTiercelDomain, [](GradContext& c) { c.set(0, c.w.expand_like(c.dy(), c.x(0))); }}});

}  // namespace
}  // namespace tiercel

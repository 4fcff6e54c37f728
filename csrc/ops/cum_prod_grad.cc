// ai.tiercel.CumProdGrad (dy, x, axis), from the attributes of CumProd. Without division, so that zeros are no special case:
//   dx_i = (x_0 ... x_{i-1}) s_i,  s_i = dy_i + x_{i+1} s_{i+1};  of an exclusive one  s_i = dy_{i+1} + x_{i+1} s_{i+1}
#include "ops/grad.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.check(ctx.dtype(1) == ctx.dtype(0), "dy and x should have one type");
  ctx.input(2);
  ctx.check(ctx.dtype(2) == DType::kInt32 || ctx.dtype(2) == DType::kInt64, "the axis should be int32 or int64");
  ctx.set_output(0, ctx.type(1));
}

template <class T> void make(PrepareContext& ctx) {
  const bool exclusive = ctx.node.attr_int("exclusive", 0) != 0, reverse = ctx.node.attr_int("reverse", 0) != 0;
  const bool wide = ctx.dtype(2) == DType::kInt64;
  const Shape shape = ctx.shape(1);
  if (!(shape == ctx.shape(0)) || ctx.shape(2).count() != 1) ctx.fail("dy and x should have one shape, the axis should be one number");
  ctx.cost(6 * static_cast<double>(shape.count()), 3 * static_cast<double>(shape.count()) * sizeof(T));
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    const int64_t given = wide ? *a.in<int64_t>(2) : *a.in<int32_t>(2);
    const int axis = normalize_axis(given, shape.rank());
    if (axis < 0) fail(Code::kInvalidArgument, label, ": axis ", given, " is outside a shape of rank ", shape.rank());
    const AxisView v(shape, axis);
    w.parallel_for(v.outer * v.inner, grain_for(v.n), [&](int64_t b, int64_t e) {
      for (int64_t line = b; line < e; ++line) {
        const int64_t base = line / v.inner * v.n * v.inner + line % v.inner;
        const auto at = [&](int64_t i) { return base + (reverse ? v.n - 1 - i : i) * v.inner; };
        double s = 0, before = 1;
        for (int64_t i = v.n - 1; i >= 0; --i) {
          const bool last = i + 1 == v.n;
          const double next = last ? 0 : static_cast<double>(a.in<T>(1)[at(i + 1)]) * s;
          s = exclusive ? (last ? 0 : static_cast<double>(a.in<T>(0)[at(i + 1)])) + next : static_cast<double>(a.in<T>(0)[at(i)]) + next;
          a.out<T>(0)[at(i)] = static_cast<T>(s);
        }
        for (int64_t i = 0; i < v.n; ++i) {
          a.out<T>(0)[at(i)] = static_cast<T>(before * static_cast<double>(a.out<T>(0)[at(i)]));
          before *= static_cast<double>(a.in<T>(1)[at(i)]);
        }
      }
    });
  });
}

void prepare(PrepareContext& ctx) { ctx.dtype(0) == DType::kDouble ? make<double>(ctx) : make<float>(ctx); }

const OpRegistration rows({{"CumProdGrad", kTiercelDomain, 1, infer, half_as_float<prepare>}});
const GradRegistration grads({{"CumProd", "", [](GradContext& c) {
  c.set(0, c.w.op("CumProdGrad", {c.dy(), c.x(0), c.x(1)},
                  {{"exclusive", c.node.attr_int("exclusive", 0)}, {"reverse", c.node.attr_int("reverse", 0)}}, kTiercelDomain));
}}});

}  // namespace
}  // namespace tiercel

// Softmax, LogSoftmax. Below opset 13 the axes from `axis` on are one; from 13 on `axis` alone is normalised.
#include "kernels/softmax/softmax.h"

#include "ops/grad.h"
#include "ops/numeric.h"
#include "ops/softmax_strip.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.set_output(0, ctx.type(0));
  if (!ctx.ranked(0)) return;
  const int rank = ctx.shape(0).rank();
  if (rank || ctx.node.opset >= 13) ctx.axis(ctx.node.attr_int("axis", ctx.node.opset < 13 ? 1 : -1), std::max(rank, 1));
}

AxisView view_of(const PrepareContext& ctx) {
  const Shape& s = ctx.shape(0);
  if (!s.rank()) return AxisView(Shape{1}, 0);
  const int axis = normalize_axis(ctx.node.attr_int("axis", ctx.node.opset < 13 ? 1 : -1), s.rank());
  AxisView v(s, axis);
  if (ctx.node.opset < 13) {
    v.n *= v.inner;
    v.inner = 1;
  }
  return v;
}

void softmax_double(const double* x, int64_t n, int64_t stride, bool log, double* y) {
  double m = -INFINITY, s = 0;
  for (int64_t i = 0; i < n; ++i) m = std::isnan(x[i * stride]) ? NAN : std::max(m, x[i * stride]);
  for (int64_t i = 0; i < n; ++i) s += std::exp(x[i * stride] - m);
  for (int64_t i = 0; i < n; ++i) {
    const double d = x[i * stride] - m;
    y[i * stride] = log ? d - std::log(s) : std::exp(d) / s;
  }
}

template <bool kLog> void prepare(PrepareContext& ctx) {
  const AxisView v = view_of(ctx);
  const double count = static_cast<double>(ctx.shape(0).count());
  ctx.cost(25 * count, 2 * static_cast<double>(bytes_of(ctx.dtype(0), 1)) * count);
  ctx.inplace(0, 0);
  if (ctx.dtype(0) == DType::kDouble)
    return ctx.run([=](const Args& a, Worker& w) {
      w.parallel_for(v.outer * v.inner, grain_for(v.n), [&](int64_t b, int64_t e) {
        for (int64_t i = b; i < e; ++i) {
          const int64_t at = i / v.inner * v.n * v.inner + i % v.inner;
          softmax_double(a.in<double>(0) + at, v.n, v.inner, kLog, a.out<double>(0) + at);
        }
      });
    });
  if (v.inner == 1)
    return ctx.run([=](const Args& a, Worker& w) {
      w.parallel_for(v.outer, grain_for(v.n, 8192), [&](int64_t b, int64_t e) {
        softmax().rows[kLog](a.in<float>(0) + b * v.n, e - b, v.n, a.out<float>(0) + b * v.n);
      });
    });
  const int64_t strip = softmax_strip(v.n), strips = ceil_div(v.inner, strip);
  ctx.run([=](const Args& a, Worker& w) {
    w.parallel_for(v.outer * strips, grain_for(v.n * std::min(strip, v.inner), 8192), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const int64_t c = i % strips * strip, at = i / strips * v.n * v.inner + c;
        softmax().columns[kLog](a.in<float>(0) + at, v.n, v.inner, std::min(strip, v.inner - c), a.out<float>(0) + at);
      }
    });
  });
}

const OpRegistration rows({
    {"Softmax", "", 1, infer, half_as_float<prepare<false>>},
    {"LogSoftmax", "", 1, infer, half_as_float<prepare<true>>},
});

template <bool kLog> void grad(GradContext& c) {
  AttributeList attributes{{"axis", c.node.attr_int("axis", c.node.opset < 13 ? 1 : -1)}, {"flat", int64_t{c.node.opset < 13}}};
  c.set(0, c.w.op(kLog ? "LogSoftmaxGrad" : "SoftmaxGrad", {c.dy(), c.y()}, std::move(attributes), kTiercelDomain));
}
const GradRegistration grads({{"Softmax", "", grad<false>}, {"LogSoftmax", "", grad<true>}});

}  // namespace
}  // namespace tiercel

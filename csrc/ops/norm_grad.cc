// What goes back through a normalisation.
//   ai.tiercel.LayerNormGrad (dy, x, scale?) -> dx, dscale, dbias   rows of the axes from `axis` on; rms = 1: without the mean; epsilon
//   ai.tiercel.BatchNormGrad (dy, x, scale, mean?, var?) -> dx, dscale, dbias   channels are axis 1; with mean and var: they are constants
// dscale and dbias have the shape of scale ([n] where it is left out). Sums are cut by shape, so no result depends on the threads.
#include "kernels/norm/norm_grad.h"

#include "kernels/norm/norm.h"
#include "ops/image_norm.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

// ---- LayerNormGrad

void infer_layer(InferContext& ctx) {
  check_real(ctx, 0);
  for (int i : {1, 2}) if (ctx.has_input(i)) ctx.check(ctx.dtype(i) == ctx.dtype(0), "all inputs should have one type");
  const Type& x = ctx.type(1);
  ctx.set_output(0, x);
  Type stat = Type::tensor(ctx.dtype(0));
  if (ctx.has_input(2)) {
    stat = ctx.type(2);
  } else if (x.ranked) {
    const int axis = ctx.axis(ctx.node.attr_int("axis", -1), x.shape.rank());
    stat = Type::tensor(ctx.dtype(0), Shape{x.shape.span().subspan(static_cast<size_t>(axis))});
  }
  ctx.set_output(1, stat);
  ctx.set_output(2, stat);
}

template <class T> void make_layer(PrepareContext& ctx) {
  const Shape& x = ctx.shape(1);
  const int axis = normalize_axis(ctx.node.attr_int("axis", -1), x.rank());
  const int64_t rows = x.count(0, axis), n = x.count(axis, x.rank());
  if (!(ctx.shape(0) == x)) ctx.fail("dy and x should have one shape");
  if (ctx.has_input(2) && ctx.shape(2).count() != n) ctx.fail("the scale should have ", n, " elements: the normalised ones");
  const bool rms = ctx.node.attr_int("rms", 0) != 0, sums = ctx.has_output(1) || ctx.has_output(2);
  const double epsilon = ctx.node.attr_float("epsilon", 1e-5f);
  const int64_t parts = sums ? std::clamp<int64_t>(rows / 8, 1, 16) : std::clamp<int64_t>(rows, 1, 64), stride = round_up(n, 16);
  ctx.workspace(sums ? 2 * parts * stride * static_cast<int64_t>(sizeof(T)) : 0);
  ctx.cost(16 * static_cast<double>(rows * n), 3 * static_cast<double>(sizeof(T)) * static_cast<double>(rows * n));
  ctx.inplace(0, 0);
  ctx.run([=](const Args& a, Worker& w) {
    T* const partial = a.workspace<T>();
    w.parallel_for(parts, 1, [&](int64_t b, int64_t e) {
      for (int64_t part = b; part < e; ++part) {
        LayerNormGrad<T> g;
        g.scale = a.in<T>(2);
        g.n = n, g.rms = rms, g.epsilon = epsilon;
        if (sums) {
          g.dscale = partial + 2 * part * stride;
          g.dbias = g.dscale + stride;
          std::fill_n(g.dscale, 2 * stride, T(0));
        }
        const int64_t first = rows * part / parts;
        g.dy = a.in<T>(0) + first * n, g.x = a.in<T>(1) + first * n, g.dx = a.out<T>(0) + first * n;
        layer_norm_grad(g, rows * (part + 1) / parts - first);
      }
    });
    if (!sums) return;
    w.barrier();
    w.parallel_for(n, 2048, [&](int64_t b, int64_t e) {
      for (int i : {0, 1}) {
        T* const y = a.out<T>(1 + i);
        if (!y) continue;
        std::fill(y + b, y + e, T(0));
        for (int64_t part = 0; part < parts; ++part)
          for (int64_t k = b; k < e; ++k) y[k] += partial[(2 * part + i) * stride + k];
      }
    });
  });
}

void prepare_layer(PrepareContext& ctx) {
  if (ctx.dtype(0) == DType::kDouble) make_layer<double>(ctx);
  else make_layer<float>(ctx);
}

// ---- BatchNormGrad

void infer_batch(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.check(ctx.num_inputs() >= 3 && ctx.has_input(3) == ctx.has_input(4), "takes dy, x, scale and both or none of mean and var");
  for (int i = 1; i < 5; ++i) if (ctx.has_input(i)) ctx.check(ctx.dtype(i) == ctx.dtype(0), "all inputs should have one type");
  ctx.set_output(0, ctx.type(1));
  ctx.set_output(1, ctx.type(2));
  ctx.set_output(2, ctx.type(2));
}

void plane_moments(const float* x, int64_t n, double* mean, double* m2) { norm().moments(x, n, mean, m2); }
void plane_moments(const double* x, int64_t n, double* mean, double* m2) {
  Moments m;
  for (int64_t i = 0; i < n; ++i) m.add(1, x[i], 0);
  *mean = m.mean, *m2 = m.m2;
}

template <class T> void make_batch(PrepareContext& ctx) {
  const Shape& x = ctx.shape(1);
  const ChannelView v(x, Layout::kPlain);
  if (!(ctx.shape(0) == x)) ctx.fail("dy and x should have one shape");
  for (int i = 2; i < 5; ++i) if (ctx.has_input(i) && ctx.shape(i).count() != v.channels) ctx.fail("input ", i, " should have ", v.channels, " elements");
  const double epsilon = ctx.node.attr_float("epsilon", 1e-5f);
  const bool fixed = ctx.has_input(3);
  const double count = static_cast<double>(x.count());
  ctx.cost(12 * count, 5 * static_cast<double>(sizeof(T)) * count);
  ctx.run([=](const Args& a, Worker& w) {
    w.parallel_for(v.channels, grain_for(v.batch * v.space), [&](int64_t b, int64_t e) {
      for (int64_t c = b; c < e; ++c) {
        const auto at = [&](int64_t n) { return (n * v.channels + c) * v.space; };
        Moments m;
        if (!fixed)
          for (int64_t n = 0; n < v.batch; ++n) {
            double mean, m2;
            plane_moments(a.in<T>(1) + at(n), v.space, &mean, &m2);
            m.add(static_cast<double>(v.space), mean, m2);
          }
        const double mean = fixed ? static_cast<double>(a.in<T>(3)[c]) : m.mean, var = fixed ? static_cast<double>(a.in<T>(4)[c]) : m.variance();
        const double rstd = 1 / std::sqrt(var + epsilon), scale = static_cast<double>(a.in<T>(2)[c]), total = static_cast<double>(v.batch * v.space);
        double sums[2] = {0, 0};  // of dy and of dy (x - mean)
        for (int64_t n = 0; n < v.batch; ++n) add_channel_sums(a.in<T>(0) + at(n), a.in<T>(1) + at(n), v.space, static_cast<T>(mean), sums);
        if (T* y = a.out<T>(1)) y[c] = static_cast<T>(sums[1] * rstd);
        if (T* y = a.out<T>(2)) y[c] = static_cast<T>(sums[0]);
        if (!a.out<T>(0)) continue;
        // dx = scale rstd (dy - mean dy - xc rstd^2 mean(dy xc))
        const double by = scale * rstd, slope = fixed ? 0 : -by * rstd * rstd * sums[1] / total;
        const double shift = fixed ? 0 : -by * sums[0] / total;
        for (int64_t n = 0; n < v.batch; ++n)
          channel_grad(a.in<T>(0) + at(n), a.in<T>(1) + at(n), v.space, static_cast<T>(by), static_cast<T>(slope), static_cast<T>(mean),
                       static_cast<T>(shift), a.out<T>(0) + at(n));
      }
    });
  });
}

void prepare_batch(PrepareContext& ctx) {
  if (ctx.shape(1).count() == 0) ctx.fail("there is nothing to normalise: x is empty");
  if (ctx.dtype(0) == DType::kDouble) make_batch<double>(ctx);
  else make_batch<float>(ctx);
}

const OpRegistration rows({
    {"LayerNormGrad", kTiercelDomain, 1, infer_layer, half_as_float<prepare_layer>},
    {"BatchNormGrad", kTiercelDomain, 1, infer_batch, half_as_float<prepare_batch>},
});

}  // namespace
}  // namespace tiercel

// What goes back through a softmax; `axis` and `flat` (1: the axes from it on are one) as the forward had them.
//   ai.tiercel.SoftmaxGrad (dy, y)      y (dy - sum dy y)
//   ai.tiercel.LogSoftmaxGrad (dy, y)   dy - exp(y) sum dy
//   ai.tiercel.CrossEntropyGrad (dy, x, target, weight?)   of the loss's input, from x: the log-softmax of it (softmax = 1) or itself (0)
#include "kernels/softmax/softmax_grad.h"

#include "kernels/pointwise/unary.h"
#include "kernels/softmax/grad_reference.h"
#include "ops/elementwise.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.check(ctx.dtype(1) == ctx.dtype(0), "dy and y should have one type");
  const Type& t = ctx.type(ctx.ranked(1) ? 1 : 0);
  if (t.ranked && t.shape.rank()) ctx.axis(ctx.node.attr_int("axis", -1), t.shape.rank());
  ctx.set_output(0, t);
}

template <class T, bool kLog> void run_plain(const Args& a, Worker& w, const AxisView& v) {
  w.parallel_for(v.outer * v.inner, grain_for(8 * v.n), [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const int64_t at = i / v.inner * v.n * v.inner + i % v.inner;
      const T *dy = a.in<T>(0) + at, *y = a.in<T>(1) + at;
      reference::softmax_grad(dy, y, v.n, v.inner, kLog, a.out<T>(0) + at);
    }
  });
}

template <bool kLog> void prepare(PrepareContext& ctx) {
  if (!(ctx.shape(0) == ctx.shape(1))) ctx.fail("dy and y should have one shape");
  const Shape s = ctx.shape(0).rank() ? ctx.shape(0) : Shape{1};
  AxisView v(s, normalize_axis(ctx.node.attr_int("axis", -1), s.rank()));
  if (ctx.node.attr_int("flat", 0)) {
    v.n *= v.inner;
    v.inner = 1;
  }
  const double count = static_cast<double>(s.count());
  ctx.cost((kLog ? 20 : 6) * count, 12 * count);
  ctx.inplace(0, 0);
  ctx.inplace(0, 1);
  if (ctx.dtype(0) == DType::kDouble) return ctx.run([=](const Args& a, Worker& w) { run_plain<double, kLog>(a, w, v); });
  if (v.inner != 1) return ctx.run([=](const Args& a, Worker& w) { run_plain<float, kLog>(a, w, v); });
  ctx.run([=](const Args& a, Worker& w) {
    w.parallel_for(v.outer, grain_for(v.n, 8192), [&](int64_t b, int64_t e) {
      softmax_grad().rows[kLog](a.in<float>(0) + b * v.n, a.in<float>(1) + b * v.n, e - b, v.n, a.out<float>(0) + b * v.n);
    });
  });
}

// ---- CrossEntropyGrad

void infer_loss(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.check(ctx.dtype(1) == ctx.dtype(0), "dy and x should have one type");
  ctx.check(ctx.dtype(2) == DType::kInt64 || ctx.dtype(2) == DType::kInt32, "the target should be int32 or int64");
  ctx.check(!ctx.has_input(3) || ctx.dtype(3) == ctx.dtype(1), "the weights should have x's type");
  ctx.set_output(0, ctx.type(1));
}

template <class T, class Index> void make(PrepareContext& ctx) {
  if (ctx.shape(1).rank() < 2) ctx.fail("x should have two axes at least, has ", ctx.shape(1).rank());
  const AxisView v(ctx.shape(1), 1);
  if (ctx.has_input(3) && ctx.shape(3).count() != v.n) ctx.fail("there should be ", v.n, " weights, one a class, got ", ctx.shape(3).count());
  const std::string reduction = ctx.node.attr_string("reduction", "mean");
  const bool none = reduction == "none", mean = reduction == "mean", has_ignored = ctx.node.has("ignore_index");
  const bool softmax = ctx.node.attr_int("softmax", 1) != 0;
  const int64_t ignored = ctx.node.attr_int("ignore_index", 0), n = v.outer * v.inner;
  if (ctx.shape(2).count() != n || ctx.shape(0).count() != (none ? n : 1)) ctx.fail("dy or target does not fit x");
  const double count = static_cast<double>(n * v.n);
  ctx.cost(20 * count, 8 * count);
  ctx.run([=](const Args& a, Worker& w) {
    const T *x = a.in<T>(1), *weight = a.in<T>(3), *dy = a.in<T>(0);
    const Index* target = a.in<Index>(2);
    const auto weight_of = [&](int64_t i) -> double {
      const int64_t t = static_cast<int64_t>(target[i]);
      if ((has_ignored && t == ignored) || t < 0 || t >= v.n) return 0;  // the forward refuses those outside
      return weight ? static_cast<double>(weight[t]) : 1;
    };
    double total = static_cast<double>(n);
    if (!mean) {
      total = 1;
    } else if (weight || has_ignored) {
      total = 0;
      for (int64_t i = 0; i < n; ++i) total += weight_of(i);
    }
    const auto scale_of = [&](int64_t i) -> T {
      const double by = weight_of(i);
      return by == 0 ? T(0) : static_cast<T>(static_cast<double>(dy[none ? i : 0]) * by / total);
    };
    if constexpr (std::is_same_v<T, float>) {
      if (softmax && v.inner == 1) {  // of the log-softmax, whose result has the gradient -scale at the target and zeros
        w.parallel_for(n, grain_for(v.n, 8192), [&](int64_t b, int64_t e) {
          std::fill(a.out<float>(0) + b * v.n, a.out<float>(0) + e * v.n, 0.0f);
          for (int64_t i = b; i < e; ++i) {
            float* const to = a.out<float>(0) + i * v.n;
            if (weight_of(i) == 0) continue;
            to[target[i]] = -scale_of(i);
            softmax_grad().rows[1](to, x + i * v.n, 1, v.n, to);
          }
        });
        return;
      }
      if (softmax) {  // strips of columns
        constexpr int64_t kStrip = 256;
        const int64_t strips = ceil_div(v.inner, kStrip);
        w.parallel_for(v.outer * strips, 1, [&](int64_t task, int64_t) {
          const int64_t first = task / strips * v.inner + task % strips * kStrip, width = std::min(kStrip, v.inner - task % strips * kStrip);
          const int64_t at = task / strips * v.n * v.inner + task % strips * kStrip;
          float scale[kStrip];
          bool counts[kStrip];
          for (int64_t i = 0; i < width; ++i) { scale[i] = scale_of(first + i); counts[i] = weight_of(first + i) != 0; }
          for (int64_t c = 0; c < v.n; ++c) {
            float* const to = a.out<float>(0) + at + c * v.inner;
            unary().f32[static_cast<int>(Unary::kExp)](x + at + c * v.inner, to, width);
            for (int64_t i = 0; i < width; ++i) to[i] = counts[i] ? to[i] * scale[i] : 0.0f;
          }
          for (int64_t i = 0; i < width; ++i)
            if (counts[i]) a.out<float>(0)[at + static_cast<int64_t>(target[first + i]) * v.inner + i] -= scale[i];
        });
        return;
      }
    }
    w.parallel_for(n, grain_for(8 * v.n), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const double by = weight_of(i);
        const T scale = scale_of(i);
        const int64_t at = i / v.inner * v.n * v.inner + i % v.inner;
        T* to = a.out<T>(0) + at;
        if (softmax && by != 0) reference::scaled_exp(x + at, v.n, v.inner, scale, to);
        else for (int64_t c = 0; c < v.n; ++c) to[c * v.inner] = 0;
        if (by != 0) to[static_cast<int64_t>(target[i]) * v.inner] -= scale;
      }
    });
  });
}

void prepare_loss(PrepareContext& ctx) {
  const bool wide = ctx.dtype(2) == DType::kInt64;
  if (ctx.dtype(1) == DType::kDouble) return wide ? make<double, int64_t>(ctx) : make<double, int32_t>(ctx);
  return wide ? make<float, int64_t>(ctx) : make<float, int32_t>(ctx);
}

const OpRegistration rows({
    {"SoftmaxGrad", kTiercelDomain, 1, infer, half_as_float<prepare<false>>},
    {"LogSoftmaxGrad", kTiercelDomain, 1, infer, half_as_float<prepare<true>>},
    {"CrossEntropyGrad", kTiercelDomain, 1, infer_loss, half_as_float<prepare_loss>},
});

}  // namespace
}  // namespace tiercel

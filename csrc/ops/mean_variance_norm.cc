// MeanVarianceNormalization: y = (x - mean) / (sqrt(mean (x - mean)^2) + 1e-9) over the axes (0, 2, 3 when none are given).
#include "ops/grad.h"
#include "ops/image_norm.h"
#include "ops/reduce.h"

namespace tiercel {
namespace {

std::vector<int64_t> axes_of(const Node& node) { return node.attr_ints("axes", {0, 2, 3}); }

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.set_output(0, ctx.type(0));
  if (ctx.ranked(0)) for (int64_t a : axes_of(ctx.node)) ctx.axis(a, ctx.shape(0).rank());
}

template <class T> void run(const ReduceView& view, const T* x, T* y, Worker& w) {
  const auto offset = [](const std::vector<ReduceView::Axis>& axes, int64_t i) {
    int64_t at = 0;
    for (size_t k = axes.size(); k-- > 0;) {
      at += i % axes[k].extent * axes[k].stride;
      i /= axes[k].extent;
    }
    return at;
  };
  const ReduceView::Axis inner = view.reduced.empty() ? ReduceView::Axis{1, 0} : view.reduced.back();
  const std::vector<ReduceView::Axis> outer(view.reduced.begin(), view.reduced.end() - !view.reduced.empty());
  w.parallel_for(view.outputs, grain_for(view.count), [&](int64_t b, int64_t e) {
    for (int64_t o = b; o < e; ++o) {
      const int64_t base = offset(view.kept, o);
      const auto each = [&](auto f) {
        for (int64_t i = 0; i < view.count; i += inner.extent) {
          const int64_t at = base + offset(outer, i / inner.extent);
          for (int64_t k = 0; k < inner.extent; ++k) f(at + k * inner.stride);
        }
      };
      const double n = static_cast<double>(view.count);
      double mean = 0, square = 0;
      each([&](int64_t i) { mean += x[i]; });
      mean /= n;
      each([&](int64_t i) { square += (x[i] - mean) * (x[i] - mean); });
      const double scale = 1 / (std::sqrt(square / n) + 1e-9);
      each([&](int64_t i) { y[i] = static_cast<T>((x[i] - mean) * scale); });
    }
  });
}

void prepare(PrepareContext& ctx) {
  bool on[kMaxRank + 1] = {};
  for (int64_t a : axes_of(ctx.node)) on[normalize_axis(a, ctx.shape(0).rank())] = true;
  const ReduceView view(ctx.shape(0), on);
  const double count = static_cast<double>(ctx.shape(0).count());
  ctx.cost(8 * count, 2 * static_cast<double>(bytes_of(ctx.dtype(0), 1)) * count);
  ctx.inplace(0, 0);
  if (!view.outputs || !view.count) return ctx.run([](const Args&, Worker&) {});
  if (ctx.dtype(0) == DType::kDouble) return ctx.run([=](const Args& a, Worker& w) { run(view, a.in<double>(0), a.out<double>(0), w); });
  ctx.run([=](const Args& a, Worker& w) { run(view, a.in<float>(0), a.out<float>(0), w); });
}

const OpRegistration rows({{"MeanVarianceNormalization", "", 9, infer, half_as_float<prepare>}});

void grad(GradContext& c) {
  GraphWriter& w = c.w;
  Value* const axes = w.ints(axes_of(c.node));
  const auto mean = [&](Value* v) { return w.op("ReduceMean", {v, axes}, {{"keepdims", int64_t{1}}}); };
  Value* const centred = w.sub(c.x(0), mean(c.x(0)));
  Value* const deviation = w.op("Sqrt", {mean(w.mul(centred, centred))});
  Value* const divisor = w.shift(deviation, 1e-9);  // as the forward has it: never zero
  Value* const along = w.mul(mean(w.mul(c.dy(), c.y())), w.div(divisor, w.op("Max", {deviation, w.scalar_like(1e-30, deviation)})));
  c.set(0, w.div(w.sub(w.sub(c.dy(), mean(c.dy())), w.mul(c.y(), along)), divisor));
}
const GradRegistration grads({{"MeanVarianceNormalization", "", grad}});

}  // namespace
}  // namespace tiercel

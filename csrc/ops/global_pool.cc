// GlobalAveragePool, GlobalMaxPool, GlobalLpPool (ONNX): all spatial axes to extent 1.
#include <algorithm>

#include "kernels/pool/pool.h"
#include "kernels/pool/reference.h"
#include "ops/grad.h"
#include "ops/registry.h"

namespace tiercel {
namespace {

using reference::Pool;

void infer(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  ctx.check(ctx.type(0).is_tensor() && is_float(t) && bits_of(t) >= 16, "X should be float, double, float16 or bfloat16");
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(t));
  Shape out = ctx.shape(0);
  ctx.check(out.rank() >= 2, "X should have a batch and a channel axis");
  for (int a = 2; a < out.rank(); ++a) out[a] = 1;
  ctx.set_output(0, Type::tensor(t, out, ctx.type(0).layout));
}

template <class T> void prepare_reference(PrepareContext& ctx, const reference::PoolOptions& options) {
  const int64_t planes = ctx.out_shape(0).count(), plane = ctx.shape(0).count(2, ctx.shape(0).rank());
  ctx.run([=](const Args& args, Worker& worker) {
    const int64_t one = 1, zero = 0;
    const reference::PoolExtents e{1, &plane, &one, &plane, &one, &one, &zero, &zero};
    worker.parallel_for(planes, 1, [&](int64_t begin, int64_t end) {
      reference::pool(e, options, args.in<T>(0), args.out<T>(0), nullptr, begin, end);
    });
  });
  ctx.cost(20.0 * static_cast<double>(planes * plane), 8.0 * static_cast<double>(planes * plane));
}

template <Pool kind> void prepare(PrepareContext& ctx) {
  const Shape& x = ctx.shape(0);
  const int64_t plane = x.count(2, x.rank()), channels = x[1];
  if (ctx.out_shape(0).count() == 0) return ctx.run([](const Args&, Worker&) {});
  if (plane == 0) ctx.fail("X has no pixels to pool over");
  if (kind != Pool::kLp && ctx.dtype(0) == DType::kFloat) {
    const bool blocked = ctx.layout(0) == Layout::kBlocked;
    const int64_t width = blocked ? kChannelBlock : 1, blocks = ceil_div(channels, width), planes = x[0] * blocks;
    const int64_t grain = std::max<int64_t>(1, 32768 / (plane * width));
    ctx.cost(static_cast<double>(planes * plane * width), 4.0 * static_cast<double>(planes * plane * width));
    return ctx.run([=](const Args& args, Worker& worker) {
      worker.parallel_for(planes, grain, [&](int64_t i, int64_t end) {
        for (; i < end; ++i) {
          const float* const from = args.in<float>(0) + i * plane * width;
          float* const to = args.out<float>(0) + i * width;
          const int tail = static_cast<int>(std::min<int64_t>(kChannelBlock, channels - i % blocks * kChannelBlock));
          if (blocked) (kind == Pool::kMax ? pool().global_max_block : pool().global_mean_block)(from, plane, to, tail);
          else (kind == Pool::kMax ? pool().global_max_plane : pool().global_mean_plane)(from, plane, to);
        }
      });
    });
  }
  reference::PoolOptions options{kind};
  if (kind == Pool::kLp) options.p = ctx.node.opset < 2 ? ctx.node.attr_float("p", 2) : static_cast<double>(ctx.node.attr_int("p", 2));
  if (ctx.layout(0) != Layout::kPlain) ctx.fail("this pool has no blocked kernel");
  switch (ctx.dtype(0)) {
    case DType::kFloat: return prepare_reference<float>(ctx, options);
    case DType::kDouble: return prepare_reference<double>(ctx, options);
    case DType::kFloat16: return prepare_reference<Half>(ctx, options);
    case DType::kBFloat16: return prepare_reference<BFloat16>(ctx, options);
    default: ctx.fail("X has a type that this operator does not take");
  }
}

const OpRegistration rows({
    {"GlobalAveragePool", "", 1, infer, prepare<Pool::kMean>, nullptr, kAnyLayout},
    {"GlobalMaxPool", "", 1, infer, prepare<Pool::kMax>, nullptr, kAnyLayout},
    {"GlobalLpPool", "", 1, infer, prepare<Pool::kLp>},
});

void grad_mean(GradContext& c) { c.set(0, c.w.expand_like(c.w.times_ratio(c.dy(), c.y(), c.x(0)), c.x(0))); }
void grad_max(GradContext& c) {  // equal ones share
  GraphWriter& w = c.w;
  Value* const mask = w.op("Cast", {w.op("Equal", {c.x(0), c.y()})}, {{"to", static_cast<int64_t>(w.dtype(c.y()))}});
  c.set(0, w.mul(mask, w.div(c.dy(), w.op("SumTo", {mask, w.shape_of(c.y())}, {}, kTiercelDomain))));
}

const GradRegistration grads({{"GlobalAveragePool", "", grad_mean}, {"GlobalMaxPool", "", grad_max}});

}  // namespace
}  // namespace tiercel

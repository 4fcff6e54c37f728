// ai.tiercel.Dropout (x, ratio, step): x with elements put to zero with probability `ratio`, the others divided by 1 - ratio. Which ones: a
// function of the attribute `seed`, the step and the element's place, so that the gradient draws the same ones again and a resumed run the
// ones that it would have drawn.
#include "ops/elementwise.h"
#include "ops/grad.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

// SplitMix64's finaliser (Steele, Lea, Flood 2014).
inline uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.check(is_real(ctx.dtype(1)), "the ratio should be a scalar of floats");
  ctx.check(ctx.dtype(2) == DType::kInt64, "the step should be int64");
  ctx.set_output(0, ctx.type(0));
}

template <class T> void make(PrepareContext& ctx) {
  const uint64_t seed = mix(static_cast<uint64_t>(ctx.node.attr_int("seed", 0)) + 0x9e3779b97f4a7c15u);
  const bool wide = ctx.dtype(1) == DType::kDouble;
  if (ctx.shape(1).count() != 1 || ctx.shape(2).count() != 1) ctx.fail("ratio and step should be scalars");
  ctx.inplace(0, 0);
  run_elementwise(ctx, ctx.shape(0).count(), 8, [=](const Args& a, int64_t b, int64_t e) {
    const double ratio = std::clamp(wide ? *a.in<double>(1) : static_cast<double>(*a.in<float>(1)), 0.0, 1.0);
    const uint64_t base = mix(seed ^ static_cast<uint64_t>(*a.in<int64_t>(2))), below = static_cast<uint64_t>(ratio * 0x1p32);
    const T scale = ratio < 1 ? static_cast<T>(1 / (1 - ratio)) : T(0);
    const T* x = a.in<T>(0);
    T* y = a.out<T>(0);
    for (int64_t i = b; i < e; ++i) y[i] = (mix(base + static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15u) >> 32) < below ? T(0) : x[i] * scale;
  });
}

void prepare(PrepareContext& ctx) {
  if (ctx.dtype(0) == DType::kDouble) make<double>(ctx);
  else make<float>(ctx);
}

void grad(GradContext& c) {
  c.set(0, c.w.op("Dropout", {c.dy(), c.x(1), c.x(2)}, {{"seed", c.node.attr_int("seed", 0)}}, kTiercelDomain));
}

const OpRegistration rows({{"Dropout", kTiercelDomain, 1, infer, prepare, nullptr, kRandom}});
const GradRegistration grads({{"Dropout", kTiercelDomain, grad}});

}  // namespace
}  // namespace tiercel

// Operators of the domain "toy": just enough to drive the runtime without the real ones.
#pragma once
#include "ops/registry.h"

namespace tiercel::toy {

inline void same(InferContext& ctx) { ctx.set_output(0, Type::tensor(ctx.dtype(0), ctx.shape(0))); }

// y = x + 1, in parallel chunks, over its input where it can
inline void prepare_increment(PrepareContext& ctx) {
  const int64_t n = ctx.shape(0).count();
  ctx.inplace(0, 0);
  ctx.cost(static_cast<double>(n), 8.0 * n);
  ctx.run([n](const Args& a, Worker& w) {
    const float* x = a.in<float>(0);
    float* y = a.out<float>(0);
    w.parallel_for(n, 256, [&](int64_t b, int64_t e) { for (int64_t i = b; i < e; ++i) y[i] = x[i] + 1; });
  });
}

// y = a + b by thread 0 alone
inline void prepare_sum(PrepareContext& ctx) {
  const int64_t n = ctx.shape(0).count();
  ctx.serial();
  ctx.run([n](const Args& a, Worker& w) {
    for (int64_t i = 0; i < n; ++i) a.out<float>(0)[i] = a.in<float>(0)[i] + a.in<float>(1)[i];
  });
}

// Throws from one chunk in the middle when x[0] is negative.
inline void prepare_fragile(PrepareContext& ctx) {
  const int64_t n = ctx.shape(0).count();
  ctx.cost(1e9, 1e9);
  ctx.run([n](const Args& a, Worker& w) {
    const float* x = a.in<float>(0);
    w.parallel_for(n, 16, [&](int64_t b, int64_t e) {
      if (x[0] < 0 && b >= n / 2) fail(Code::kRuntimeException, "fragile: chunk ", b);
      for (int64_t i = b; i < e; ++i) a.out<float>(0)[i] = x[i];
    });
    w.barrier();
  });
}

// The elements above zero: a shape that the data decide.
inline void infer_positive(InferContext& ctx) { ctx.set_output(0, ctx.dtype(0), Shape{ctx.fresh()}); }
inline void eval_positive(EvalContext& ctx, Worker&) {
  const Tensor& x = ctx.tensor(0);
  int64_t n = 0;
  for (int64_t i = 0; i < x.count(); ++i) n += x.as<float>()[i] > 0;
  Tensor y(DType::kFloat, Shape{n});
  for (int64_t i = 0, k = 0; i < x.count(); ++i) if (x.as<float>()[i] > 0) y.as<float>()[k++] = x.as<float>()[i];
  ctx.set(0, y);
}

// Runs attribute "body" on x as many times as `times` says.
inline void infer_repeat(InferContext& ctx) { ctx.set_output(0, Type::tensor(ctx.dtype(0), ctx.shape(0))); }
inline void eval_repeat(EvalContext& ctx, Worker& w) {
  const Graph* body = ctx.node.attr_graph("body");
  const int64_t times = ctx.node.attr_int("times", 1);
  RuntimeValue x = ctx.value(0);
  for (int64_t i = 0; i < times; ++i) {
    auto out = ctx.bodies().run(*body, {x, ctx.value(1)}, w);
    if (w.index() == 0) x = out[0];
  }
  if (w.index() == 0) ctx.set(0, x);
}

inline void infer_flat(InferContext& ctx) { ctx.set_output(0, ctx.dtype(0), Shape{ctx.shape(0).known() ? ctx.shape(0).count() : ctx.fresh()}); }
inline void prepare_flat(PrepareContext& ctx) { ctx.alias(0, 0); }

static const OpRegistration rows({
    {"Increment", "toy", 1, same, prepare_increment},
    {"Sum", "toy", 1, same, prepare_sum},
    {"Fragile", "toy", 1, same, prepare_fragile},
    {"Positive", "toy", 1, infer_positive, nullptr, eval_positive},
    {"Repeat", "toy", 1, infer_repeat, nullptr, eval_repeat, kCollective},
    {"Flat", "toy", 1, infer_flat, prepare_flat},
});

}  // namespace tiercel::toy

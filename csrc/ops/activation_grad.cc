// ai.tiercel.ActivationGrad (dy, v): dy times the derivative of the activation in the attributes (ops/activation.h); v is its result or its
// argument (activation_grad_reads_result). And the rule of every operator that is an activation.
#include "kernels/pointwise/activation_grad.h"

#include "ops/activation.h"
#include "ops/elementwise.h"
#include "ops/grad.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.check(ctx.dtype(1) == ctx.dtype(0), "both inputs should have one type");
  if (ctx.ranked(0) && ctx.ranked(1)) ctx.check(ctx.shape(0).rank() == ctx.shape(1).rank(), "both inputs should have one shape");
  activation_of(ctx.node);
  ctx.set_output(0, ctx.type(ctx.ranked(0) ? 0 : 1));
}

void prepare(PrepareContext& ctx) {
  if (!(ctx.shape(0) == ctx.shape(1))) ctx.fail("both inputs should have one shape");
  const Activation a = activation_of(ctx.node);
  ctx.inplace(0, 0);
  ctx.inplace(0, 1);
  const bool cheap = activation_grad_reads_result(a) && a.kind != ActivationKind::kSoftplus;
  if (ctx.dtype(0) == DType::kDouble)
    return run_elementwise(ctx, ctx.shape(0).count(), 100, [a](const Args& args, int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) args.out<double>(0)[i] = reference::activation_grad(args.in<double>(0)[i], args.in<double>(1)[i], a);
    });
  run_elementwise(ctx, ctx.shape(0).count(), cheap ? 2 : 30, [a](const Args& args, int64_t b, int64_t e) {
    activation_grad().run(a, args.in<float>(0) + b, args.in<float>(1) + b, args.out<float>(0) + b, e - b);
  });
}

void grad(GradContext& c) {
  const auto a = as_activation(c.node);
  c.check(a.has_value(), "this form of the activation has none");
  Value* dx = c.w.op("ActivationGrad", {c.dy(), activation_grad_reads_result(*a) ? c.y() : c.x(0)}, {}, kTiercelDomain);
  set_activation(*dx->producer, *a);
  c.set(0, dx);
}

// Clip: to where the value is what it was. Bounds that are no constants have gradients of their own.
void grad_clip(GradContext& c) {
  if (as_activation(c.node) && !c.wants(1) && !c.wants(2)) return grad(c);
  GraphWriter& w = c.w;
  Value *x = c.x(0), *dy = c.dy(), *zero = w.scalar_like(0, x);
  // Where the bounds cross the upper one is the result.
  Value *inside = nullptr, *raised = x;
  if (c.has(1)) {
    Value* below = w.op("Less", {x, c.x(1)});
    inside = w.op("Not", {below});
    if (c.has(2)) {
      below = w.op("And", {below, w.op("LessOrEqual", {c.x(1), c.x(2)})});
      raised = w.op("Max", {x, c.x(1)});
    }
    if (c.wants(1)) c.set_summed(1, w.op("Where", {below, dy, zero}));
  }
  if (c.has(2)) {
    if (c.wants(2)) c.set_summed(2, w.op("Where", {w.op("Greater", {raised, c.x(2)}), dy, zero}));
    Value* const in = w.op("Not", {w.op("Greater", {x, c.x(2)})});
    inside = inside ? w.op("And", {inside, in}) : in;
  }
  c.set(0, inside ? w.op("Where", {inside, dy, zero}) : dy);
}

const OpRegistration rows({{"ActivationGrad", kTiercelDomain, 1, infer, half_as_float<prepare>}});

const GradRegistration grads({
    {"Relu", "", grad}, {"LeakyRelu", "", grad}, {"Elu", "", grad}, {"Celu", "", grad}, {"Selu", "", grad}, {"ThresholdedRelu", "", grad},
    {"Softplus", "", grad}, {"Softsign", "", grad}, {"HardSigmoid", "", grad}, {"HardSwish", "", grad}, {"Gelu", "", grad},
    {"Mish", "", grad}, {"Swish", "", grad}, {"Silu", kTiercelDomain, grad}, {"Gelu", kMicrosoftDomain, grad},
    {"QuickGelu", kMicrosoftDomain, grad}, {"Sigmoid", "", grad}, {"Tanh", "", grad}, {"Clip", "", grad_clip},
});

}  // namespace
}  // namespace tiercel

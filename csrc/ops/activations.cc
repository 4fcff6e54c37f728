// Activation functions as operators of their own.
#include <cmath>

#include "kernels/pointwise/binary.h"
#include "kernels/pointwise/unary.h"
#include "ops/activation.h"
#include "ops/grad.h"
#include "ops/map.h"

namespace tiercel {
namespace {

void infer_activation(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  const bool ok = is_arithmetic(t) && (is_float(t) || (ctx.node.op_type == "Relu" && is_signed(t)));
  check_dtype(ctx, 0, ok, "a tensor of floats");
  if (ctx.node.op_type == "Gelu" && ctx.node.domain.empty()) {
    const std::string kind = ctx.node.attr_string("approximate", "none");
    ctx.check(kind == "none" || kind == "tanh", "approximate should be \"none\" or \"tanh\", got \"", kind, "\"");
  }
  infer_same(ctx);
  if (ctx.node.op_type == "Relu")
    carry_ints(ctx, [&](const auto& v) { return is_symbol(v[0]) ? ctx.fresh() : std::max<Dim>(v[0], 0); });
}

double flops_of(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::kNone: case ActivationKind::kRelu: case ActivationKind::kLeakyRelu: case ActivationKind::kClip:
    case ActivationKind::kHardSigmoid: case ActivationKind::kHardSwish: case ActivationKind::kThresholdedRelu:
    case ActivationKind::kAffine: return 2;
    case ActivationKind::kSoftsign: return 5;
    default: return 25;
  }
}

void map_activation(PrepareContext& ctx, const Activation& a) {
  const DType t = compute_dtype(ctx.dtype(0));
  if (t == DType::kFloat)
    return map_elements(ctx, t, flops_of(a.kind), !keeps_zero(a), [a](const void* x, void* y, int64_t n) {
      unary().activate(a, static_cast<const float*>(x), static_cast<float*>(y), n);
    });
  if (t == DType::kDouble)
    return map_elements(ctx, t, 100, false, [a](const void* x, void* y, int64_t n) {
      for (int64_t i = 0; i < n; ++i) static_cast<double*>(y)[i] = reference::activate(static_cast<const double*>(x)[i], a);
    });
  // Relu of integers: the larger of x and zero
  map_elements(ctx, t, 1, false, [f = binary_fn(Binary::kMax, t), bytes = element_bytes(t)](const void* x, void* y, int64_t n) {
    static constexpr char zeros[kTileBytes] = {};
    for (int64_t i = 0; i < n; i += kTile)
      f(static_cast<const char*>(x) + i * bytes, zeros, static_cast<char*>(y) + i * bytes, std::min(kTile, n - i));
  });
}

void prepare_activation(PrepareContext& ctx) {
  const auto a = as_activation(ctx.node);
  if (!a) ctx.fail("this form of the activation is not supported");
  map_activation(ctx, *a);
}

void prepare_old_selu(PrepareContext& ctx) {  // opset 1 had shorter defaults
  map_activation(ctx, {ActivationKind::kSelu, ctx.node.attr_float("alpha", 1.6732f), ctx.node.attr_float("gamma", 1.0507f)});
}

// ---- Shrink: x < -lambd: x + bias, x > lambd: x - bias, else 0 ---------------------------------------------------------

void infer_shrink(InferContext& ctx) {
  check_dtype(ctx, 0, is_arithmetic(ctx.dtype(0)), "a numeric tensor");
  infer_same(ctx);
}

template <class T> void shrink(const void* px, void* py, int64_t n, T lambd, T bias) {
  const T* x = static_cast<const T*>(px);
  T* y = static_cast<T*>(py);
  for (int64_t i = 0; i < n; ++i) y[i] = x[i] < -lambd ? x[i] + bias : x[i] > lambd ? x[i] - bias : 0;
}

void prepare_shrink(PrepareContext& ctx) {
  const float lambd = ctx.node.attr_float("lambd", 0.5f), bias = ctx.node.attr_float("bias", 0);
  const DType t = compute_dtype(ctx.dtype(0));
  if (t == DType::kFloat)
    return map_elements(ctx, t, 4, lambd < 0, [=](const void* x, void* y, int64_t n) { shrink<float>(x, y, n, lambd, bias); });
  map_elements(ctx, DType::kDouble, 4, false, [=](const void* x, void* y, int64_t n) { shrink<double>(x, y, n, lambd, bias); });
}

#define TIERCEL_ROW(name, domain, since) {#name, domain, since, infer_activation, prepare_activation, nullptr, kAnyLayout}
static const OpRegistration rows({
    TIERCEL_ROW(Relu, "", 1), TIERCEL_ROW(LeakyRelu, "", 1), TIERCEL_ROW(Elu, "", 1), TIERCEL_ROW(Celu, "", 12),
    {"Selu", "", 1, infer_activation, prepare_old_selu, nullptr, kAnyLayout}, TIERCEL_ROW(Selu, "", 6),
    TIERCEL_ROW(ThresholdedRelu, "", 1), TIERCEL_ROW(Softplus, "", 1), TIERCEL_ROW(Softsign, "", 1),
    TIERCEL_ROW(HardSigmoid, "", 1), TIERCEL_ROW(HardSwish, "", 14), TIERCEL_ROW(Gelu, "", 20), TIERCEL_ROW(Mish, "", 18),
    TIERCEL_ROW(Swish, "", 24),
    TIERCEL_ROW(Silu, kTiercelDomain, 1), TIERCEL_ROW(Gelu, kMicrosoftDomain, 1), TIERCEL_ROW(QuickGelu, kMicrosoftDomain, 1),
    {"Shrink", "", 9, infer_shrink, prepare_shrink, nullptr, kAnyLayout},
});
#undef TIERCEL_ROW

static const GradRegistration grads({{"Shrink", "", [](GradContext& c) {
  Value* const inside = c.w.op("LessOrEqual", {c.w.op("Abs", {c.x(0)}), c.w.scalar_like(static_cast<double>(c.node.attr_float("lambd", 0.5f)), c.x(0))});
  c.set(0, c.w.op("Where", {inside, c.w.scalar_like(0, c.dy()), c.dy()}));
}}});

}  // namespace
}  // namespace tiercel

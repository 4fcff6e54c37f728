// Arithmetic of two inputs: Add, Sub, Mul, Div, Mod, Pow, PRelu. Integers wrap; division truncates; x / 0 and x mod 0 are 0.
#include "ops/combine.h"
#include "ops/grad.h"

namespace tiercel {
namespace {

// Known integers: an element of the result, where a and b may be symbols.
template <Binary B> Dim combine_dims(InferContext& ctx, DType t, Dim a, Dim b) {
  const bool numbers = !is_symbol(a) && !is_symbol(b);
  if constexpr (B == Binary::kAdd) {
    if (a == 0) return b;
    if (b == 0) return a;
    if (numbers) return known(ctx, t, __int128{a} + b);
    return t == DType::kInt64 ? ctx.symbols().plus(a, b) : ctx.fresh();
  } else if constexpr (B == Binary::kSub) {
    if (b == 0) return a;
    if (a == b) return 0;
    if (t == DType::kInt64 && is_symbol(a) && !is_symbol(b) && b != INT64_MIN) return ctx.symbols().plus(a, -b);
    return numbers ? known(ctx, t, __int128{a} - b) : ctx.fresh();
  } else if constexpr (B == Binary::kMul) {
    if (a == 0 || b == 0) return 0;
    if (a == 1) return b;
    if (b == 1) return a;
    return numbers ? known(ctx, t, __int128{a} * b) : ctx.fresh();
  } else if constexpr (B == Binary::kDiv) {
    if (b == 1) return a;
    return numbers ? (b == 0 ? 0 : known(ctx, t, __int128{a} / b)) : ctx.fresh();
  } else if constexpr (B == Binary::kMod) {
    if (!numbers) return ctx.fresh();
    if (b == 0) return 0;
    const Dim r = b == -1 ? 0 : a % b;
    return r != 0 && !ctx.node.attr_int("fmod", 0) && (r < 0) != (b < 0) ? r + b : r;
  } else if constexpr (B == Binary::kPow) {
    if (b == 1) return a;
    return numbers && b >= 0 && b <= 2 ? known(ctx, t, b == 0 ? __int128{1} : __int128{a} * a) : ctx.fresh();
  } else {
    return ctx.fresh();
  }
}

template <Binary B> void infer_arithmetic(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  check_dtype(ctx, 0, is_arithmetic(t), "a numeric tensor");
  check_dtype(ctx, 1, is_arithmetic(ctx.dtype(1)), "a numeric tensor");
  infer_broadcast(ctx, t, B == Binary::kPow);
  if (is_integer(t) && is_integer(ctx.dtype(1)))
    carry_ints(ctx, [&](const auto& v) { return combine_dims<B>(ctx, t, v[0], v[1]); });
}

Combination arithmetic(PrepareContext& ctx, Binary f) {
  const DType t = compute_dtype(ctx.dtype(0));
  Combination c;
  c.first = c.second = c.result = t;
  c.vectors = binary_fn(f, t);
  if (!c.vectors) ctx.fail("not defined for tensor(", dtype_name(t), ")");
  if (t == DType::kFloat && static_cast<int>(f) < kNumVectorBinary) c.pairs = binary().f32[static_cast<int>(f)];
  return c;
}

template <Binary B> void prepare_arithmetic(PrepareContext& ctx) {
  Combination c = arithmetic(ctx, B);
  if (B == Binary::kDiv) c.flops = 4;
  if (B == Binary::kDiv) c.pads[1] = 1;
  // With a scalar operand (0 + s) or two blocked ones (0 / 0) the padding would not stay zero.
  c.keeps_zero = (B == Binary::kAdd || B == Binary::kSub || B == Binary::kMul) && ctx.shape(0).rank() > 0 && ctx.shape(1).rank() > 0 &&
                 ctx.shape(0).count() != 1 && ctx.shape(1).count() != 1;
  combine_elements(ctx, c);
}

void prepare_mod(PrepareContext& ctx) {
  Combination c = arithmetic(ctx, ctx.node.attr_int("fmod", 0) ? Binary::kFmod : Binary::kMod);
  c.flops = 20;
  c.keeps_zero = false;
  combine_elements(ctx, c);
}

// x^y has x's type. Computed in f32 for the floats up to f32, in integers when both are, else in f64.
void prepare_pow(PrepareContext& ctx) {
  const DType x = ctx.dtype(0), y = ctx.dtype(1);
  const auto small = [](DType t) { return t == DType::kFloat || t == DType::kFloat16 || t == DType::kBFloat16 || bits_of(t) <= 16; };
  const DType t = is_integer(x) && is_integer(y) ? (x == y ? x : DType::kInt64) : !is_integer(x) && small(x) && small(y) ? DType::kFloat : DType::kDouble;
  Combination c;
  c.first = c.second = c.result = t;
  c.vectors = binary_fn(Binary::kPow, t);
  if (t == DType::kFloat) c.pairs = binary().f32[static_cast<int>(Binary::kPow)];
  // A scalar exponent in f32 keeps the fast path for squares and roots.
  const Tensor* e = ctx.constant(1);
  const bool square = e && e->count() == 1 && is_arithmetic(e->dtype()) && (e->doubles()[0] == 2 || e->doubles()[0] == 0.5);
  if (square && !is_integer(x) && small(x)) {
    c.first = c.second = c.result = DType::kFloat;
    c.pairs = binary().f32[static_cast<int>(Binary::kPow)];
  }
  c.flops = square ? 2 : 60;
  c.keeps_zero = false;
  combine_elements(ctx, c);
}

// ---- PRelu: x < 0 ? slope x : x -----------------------------------------------------------------------------------------

// Before opset 7 the slope is one value or one for each channel; since then it broadcasts to x.
Shape slope_shape(const Node& node, const Shape& x, const Shape& slope) {
  if (node.opset >= 7 || slope.rank() != 1 || x.rank() < 2 || slope[0] == 1) return slope;
  Shape s = slope;
  while (s.rank() < x.rank() - 1) s.push_back(1);
  return s;
}

void infer_prelu(InferContext& ctx) {
  check_dtype(ctx, 0, is_arithmetic(ctx.dtype(0)), "a numeric tensor");
  if (ctx.dtype(0) != ctx.dtype(1)) ctx.fail("both inputs should have the same type");
  if (ctx.ranked(0) && ctx.ranked(1)) {
    const Shape slope = slope_shape(ctx.node, ctx.shape(0), ctx.shape(1));
    const Shape out = broadcast_shapes(ctx, ctx.shape(0), slope);
    ctx.check(out.rank() == ctx.shape(0).rank(), "the slope should broadcast to the input");
    for (int i = 0; i < out.rank(); ++i)
      ctx.check(out[i] == ctx.shape(0)[i] || is_symbol(out[i]) || is_symbol(ctx.shape(0)[i]), "the slope should broadcast to the input");
    if (ctx.type(0).layout == Layout::kBlocked)
      ctx.check(ctx.node.opset >= 7 && blocked_operand(ctx.type(1), ctx.shape(0)).has_value(), "this slope does not work in the blocked layout");
    else ctx.check(ctx.type(1).layout == Layout::kPlain, "a blocked slope needs a blocked input");
  }
  infer_same(ctx);
}

void prepare_prelu(PrepareContext& ctx) {
  Combination c = arithmetic(ctx, Binary::kPRelu);
  c.flops = 2;
  c.second_shape = slope_shape(ctx.node, ctx.shape(0), ctx.shape(1));
  combine_elements(ctx, c);
}

#define TIERCEL_ROW(name, since) \
  {#name, "", since, infer_arithmetic<Binary::k##name>, prepare_arithmetic<Binary::k##name>, nullptr, kAnyLayout}
static const OpRegistration rows({
    TIERCEL_ROW(Add, 1), TIERCEL_ROW(Sub, 1), TIERCEL_ROW(Mul, 1), TIERCEL_ROW(Div, 1),
    {"Mod", "", 10, infer_arithmetic<Binary::kMod>, prepare_mod},
    {"Pow", "", 1, infer_arithmetic<Binary::kPow>, prepare_pow, nullptr, kAnyLayout},
    {"PRelu", "", 1, infer_prelu, prepare_prelu, nullptr, kAnyLayout},
});
#undef TIERCEL_ROW

// ---- Gradients ----------------------------------------------------------------------------------------------------------

// Before opset 7 the second operand may be placed by an attribute: its gradient is then that of what it was placed as.
void check_placed(GradContext& c) { c.check(c.node.opset >= 7 || !c.node.has("axis"), "operands placed by `axis` (opset 6 and below) have none"); }

void grad_add(GradContext& c) {
  check_placed(c);
  c.set_summed(0, c.dy());
  c.set_summed(1, c.dy());
}
void grad_sub(GradContext& c) {
  check_placed(c);
  c.set_summed(0, c.dy());
  if (c.wants(1)) c.set(1, c.w.neg(c.w.sum_to(c.dy(), c.x(1))));
}
void grad_mul(GradContext& c) {
  check_placed(c);
  if (c.wants(0)) c.set_summed(0, c.w.mul(c.dy(), c.x(1)));
  if (c.wants(1)) c.set_summed(1, c.w.mul(c.dy(), c.x(0)));
}
void grad_div(GradContext& c) {
  check_placed(c);
  Value* const each = c.w.div(c.dy(), c.x(1));
  c.set_summed(0, each);
  if (c.wants(1)) c.set_summed(1, c.w.neg(c.w.mul(each, c.y())));
}
// y = a - q b with a constant whole q
void grad_mod(GradContext& c) {
  c.set_summed(0, c.dy());
  if (c.wants(1)) c.set_summed(1, c.w.mul(c.dy(), c.w.div(c.w.sub(c.y(), c.x(0)), c.x(1))));
}
void grad_pow(GradContext& c) {
  check_placed(c);
  GraphWriter& w = c.w;
  Value *a = c.x(0), *b = c.x(1), *dy = c.dy();
  if (w.dtype(b) != w.dtype(a)) b = w.op("Cast", {b}, {{"to", static_cast<int64_t>(w.dtype(a))}});
  if (c.wants(0)) {
    const Tensor* e = w.info(c.x(1)).constant;
    if (e && e->count() == 1 && e->doubles()[0] != 0) {
      const double p = e->doubles()[0];
      c.set_summed(0, w.mul(dy, w.scale(p == 2 ? a : w.op("Pow", {a, w.scalar_like(p - 1, a)}), p)));
    } else {  // 0 to the power 0 is 1, and stays so
      Value* const slope = w.mul(b, w.op("Pow", {a, w.shift(b, -1)}));
      c.set_summed(0, w.mul(dy, w.op("Where", {w.op("Equal", {b, w.scalar_like(0, b)}), w.scalar_like(0, a), slope})));
    }
  }
  if (c.wants(1)) {  // 0 to a power is 0, and stays so
    Value* const zero = w.scalar_like(0, a);
    c.set_summed(1, w.mul(dy, w.op("Where", {w.op("Equal", {a, zero}), zero, w.mul(c.y(), w.op("Log", {a}))})));
  }
}
void grad_prelu(GradContext& c) {
  GraphWriter& w = c.w;
  Value *x = c.x(0), *slope = c.x(1), *zero = w.scalar_like(0, x), *below = w.op("Less", {x, zero});
  // A slope for each channel, before operands broadcast.
  if (c.node.opset < 7 && c.rank(x) > 2 && c.rank(slope) == 1 && w.shape(slope)[0] != 1) {
    std::vector<int64_t> shape(static_cast<size_t>(c.rank(x)) - 1, 1);
    shape[0] = -1;
    slope = w.op("Reshape", {slope, w.ints(shape)});
  }
  if (c.wants(0)) c.set(0, w.mul(c.dy(), w.op("Where", {below, slope, w.scalar_like(1, x)})));
  if (c.wants(1)) c.set(1, w.reshape_like(w.sum_to(w.op("Where", {below, w.mul(c.dy(), x), zero}), slope), c.x(1)));
}

const GradRegistration grads({
    {"Add", "", grad_add}, {"Sub", "", grad_sub}, {"Mul", "", grad_mul}, {"Div", "", grad_div}, {"Mod", "", grad_mod},
    {"Pow", "", grad_pow}, {"PRelu", "", grad_prelu},
});

}  // namespace
}  // namespace tiercel

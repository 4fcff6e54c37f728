// One-input elementwise operators: mathematics, IsNaN, IsInf, Not, BitwiseNot.
#include <cmath>
#include <cstring>

#include "kernels/pointwise/unary.h"
#include "ops/grad.h"
#include "ops/map.h"

namespace tiercel {
namespace {

bool is_real_float(DType t) { return is_arithmetic(t) && is_float(t); }

template <Unary U> void infer_math(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  if constexpr (U == Unary::kAbs || U == Unary::kNeg || U == Unary::kSign || U == Unary::kErf)
    check_dtype(ctx, 0, is_arithmetic(t), "a numeric tensor");
  else
    check_dtype(ctx, 0, is_real_float(t), "a tensor of float16, bfloat16, float or double");
  infer_same(ctx);
  if constexpr (U == Unary::kAbs) carry_ints(ctx, [&](const auto& v) { return is_symbol(v[0]) ? ctx.fresh() : known(ctx, t, v[0] < 0 ? -v[0] : v[0]); });
  if constexpr (U == Unary::kNeg) carry_ints(ctx, [&](const auto& v) { return is_symbol(v[0]) ? ctx.fresh() : known(ctx, t, -v[0]); });
  if constexpr (U == Unary::kSign) carry_ints(ctx, [&](const auto& v) { return is_symbol(v[0]) ? ctx.fresh() : Dim{(v[0] > 0) - (v[0] < 0)}; });
}

double flops_of(Unary f) {
  switch (f) {
    case Unary::kAbs: case Unary::kNeg: case Unary::kFloor: case Unary::kCeil: case Unary::kRound: case Unary::kSign: case Unary::kSquare: return 1;
    case Unary::kSqrt: case Unary::kReciprocal: return 4;
    case Unary::kTan: case Unary::kAsin: case Unary::kAcos: case Unary::kAtan: case Unary::kSinh: case Unary::kCosh:
    case Unary::kAsinh: case Unary::kAcosh: case Unary::kAtanh: return 100;
    default: return 20;
  }
}

template <Unary U> void prepare_math(PrepareContext& ctx) {
  const DType t = ctx.dtype(0);
  DType compute = compute_dtype(t);
  UnaryFn f = unary_fn(U, compute);
  if (!f) f = unary_fn(U, compute = DType::kFloat);  // Erf of integers
  map_elements(ctx, compute, flops_of(U), !(reference::unary(U, 0) == 0), [f](const void* x, void* y, int64_t n) { f(x, y, n); });
}

// ---- Tests and bits --------------------------------------------------------------------------------------------------

void infer_test(InferContext& ctx) {
  check_dtype(ctx, 0, is_float(ctx.dtype(0)), "a tensor of floats");
  Type t = ctx.type(0);
  t.dtype = DType::kBool;
  ctx.check(t.layout == Layout::kPlain, "the blocked layout is not supported");
  ctx.set_output(0, t);
}

template <class F> void prepare_test(PrepareContext& ctx, F test) {
  const DType t = ctx.dtype(0), compute = t == DType::kDouble ? t : DType::kFloat;
  map_elements(ctx, compute, 1, false, [test, wide = compute == DType::kDouble](const void* x, void* py, int64_t n) {
    bool* y = static_cast<bool*>(py);
    if (wide) for (int64_t i = 0; i < n; ++i) y[i] = test(static_cast<const double*>(x)[i]);
    else for (int64_t i = 0; i < n; ++i) y[i] = test(static_cast<const float*>(x)[i]);
  });
}

void prepare_is_nan(PrepareContext& ctx) {
  prepare_test(ctx, [](auto v) { return v != v; });
}

void prepare_is_inf(PrepareContext& ctx) {
  const bool negative = ctx.node.attr_int("detect_negative", 1) != 0, positive = ctx.node.attr_int("detect_positive", 1) != 0;
  prepare_test(ctx, [=](auto v) {
    constexpr auto inf = std::numeric_limits<decltype(v)>::infinity();
    return (positive && v == inf) || (negative && v == -inf);
  });
}

void infer_not(InferContext& ctx) {
  check_dtype(ctx, 0, ctx.dtype(0) == DType::kBool, "tensor(bool)");
  ctx.check(ctx.type(0).layout == Layout::kPlain, "the blocked layout is not supported");
  infer_same(ctx);
  carry_ints(ctx, [&](const auto& v) { return is_symbol(v[0]) ? ctx.fresh() : Dim{v[0] == 0}; });
}
void prepare_not(PrepareContext& ctx) {
  map_elements(ctx, DType::kBool, 1, false, [](const void* px, void* py, int64_t n) {
    const uint8_t* x = static_cast<const uint8_t*>(px);
    uint8_t* y = static_cast<uint8_t*>(py);
    for (int64_t i = 0; i < n; ++i) y[i] = x[i] == 0;
  });
}

void infer_bitwise_not(InferContext& ctx) {
  check_dtype(ctx, 0, is_integer(ctx.dtype(0)) && is_arithmetic(ctx.dtype(0)), "an integer tensor");
  infer_same(ctx);
  carry_ints(ctx, [&](const auto& v) {
    return is_symbol(v[0]) || !is_signed(ctx.dtype(0)) ? ctx.fresh() : known(ctx, ctx.dtype(0), ~v[0]);
  });
}
void prepare_bitwise_not(PrepareContext& ctx) {
  const int bytes = element_bytes(ctx.dtype(0));
  map_elements(ctx, ctx.dtype(0), 1, false, [bytes](const void* px, void* py, int64_t n) {
    const uint8_t* x = static_cast<const uint8_t*>(px);
    uint8_t* y = static_cast<uint8_t*>(py);
    for (int64_t i = 0; i < n * bytes; ++i) y[i] = static_cast<uint8_t>(~x[i]);
  });
}

#define TIERCEL_ROW(name, since) {#name, "", since, infer_math<Unary::k##name>, prepare_math<Unary::k##name>, nullptr, kAnyLayout}
static const OpRegistration rows({
    TIERCEL_ROW(Abs, 1), TIERCEL_ROW(Neg, 1), TIERCEL_ROW(Exp, 1), TIERCEL_ROW(Log, 1), TIERCEL_ROW(Sqrt, 1),
    TIERCEL_ROW(Reciprocal, 1), TIERCEL_ROW(Floor, 1), TIERCEL_ROW(Ceil, 1), TIERCEL_ROW(Round, 11), TIERCEL_ROW(Sign, 9),
    TIERCEL_ROW(Sin, 7), TIERCEL_ROW(Cos, 7), TIERCEL_ROW(Tan, 7), TIERCEL_ROW(Asin, 7), TIERCEL_ROW(Acos, 7),
    TIERCEL_ROW(Atan, 7), TIERCEL_ROW(Sinh, 9), TIERCEL_ROW(Cosh, 9), TIERCEL_ROW(Asinh, 9), TIERCEL_ROW(Acosh, 9),
    TIERCEL_ROW(Atanh, 9), TIERCEL_ROW(Erf, 9), TIERCEL_ROW(Tanh, 1), TIERCEL_ROW(Sigmoid, 1),
    {"IsNaN", "", 9, infer_test, prepare_is_nan},
    {"IsInf", "", 10, infer_test, prepare_is_inf},
    {"Not", "", 1, infer_not, prepare_not},
    {"BitwiseNot", "", 18, infer_bitwise_not, prepare_bitwise_not},
});
#undef TIERCEL_ROW

// ---- Gradients: dy times the derivative ----------------------------------------------------------------------------------

// f(writer, x, y) gives the derivative.
template <class F> void grad_times(GradContext& c, F f) { c.set(0, c.w.mul(c.dy(), f(c.w, c.x(0), c.y()))); }
template <class F> void grad_over(GradContext& c, F f) { c.set(0, c.w.div(c.dy(), f(c.w, c.x(0), c.y()))); }
using W = GraphWriter;

static const GradRegistration grads({
    {"Abs", "", [](GradContext& c) { grad_times(c, [](W& w, Value* x, Value*) { return w.op("Sign", {x}); }); }},
    {"Neg", "", [](GradContext& c) { c.set(0, c.w.neg(c.dy())); }},
    {"Exp", "", [](GradContext& c) { grad_times(c, [](W&, Value*, Value* y) { return y; }); }},
    {"Log", "", [](GradContext& c) { grad_over(c, [](W&, Value* x, Value*) { return x; }); }},
    {"Sqrt", "", [](GradContext& c) { grad_over(c, [](W& w, Value*, Value* y) { return w.scale(y, 2); }); }},
    {"Reciprocal", "", [](GradContext& c) { grad_times(c, [](W& w, Value*, Value* y) { return w.neg(w.mul(y, y)); }); }},
    {"Sin", "", [](GradContext& c) { grad_times(c, [](W& w, Value* x, Value*) { return w.op("Cos", {x}); }); }},
    {"Cos", "", [](GradContext& c) { grad_times(c, [](W& w, Value* x, Value*) { return w.neg(w.op("Sin", {x})); }); }},
    {"Tan", "", [](GradContext& c) { grad_times(c, [](W& w, Value*, Value* y) { return w.shift(w.mul(y, y), 1); }); }},
    {"Asin", "", [](GradContext& c) { grad_over(c, [](W& w, Value* x, Value*) { return w.op("Sqrt", {w.shift(w.neg(w.mul(x, x)), 1)}); }); }},
    {"Acos", "", [](GradContext& c) { grad_over(c, [](W& w, Value* x, Value*) { return w.neg(w.op("Sqrt", {w.shift(w.neg(w.mul(x, x)), 1)})); }); }},
    {"Atan", "", [](GradContext& c) { grad_over(c, [](W& w, Value* x, Value*) { return w.shift(w.mul(x, x), 1); }); }},
    {"Sinh", "", [](GradContext& c) { grad_times(c, [](W& w, Value* x, Value*) { return w.op("Cosh", {x}); }); }},
    {"Cosh", "", [](GradContext& c) { grad_times(c, [](W& w, Value* x, Value*) { return w.op("Sinh", {x}); }); }},
    {"Asinh", "", [](GradContext& c) { grad_over(c, [](W& w, Value* x, Value*) { return w.op("Sqrt", {w.shift(w.mul(x, x), 1)}); }); }},
    {"Acosh", "", [](GradContext& c) { grad_over(c, [](W& w, Value* x, Value*) { return w.op("Sqrt", {w.shift(w.mul(x, x), -1)}); }); }},
    {"Atanh", "", [](GradContext& c) { grad_over(c, [](W& w, Value* x, Value*) { return w.shift(w.neg(w.mul(x, x)), 1); }); }},
    {"Erf", "", [](GradContext& c) {
       grad_times(c, [](W& w, Value* x, Value*) { return w.scale(w.op("Exp", {w.neg(w.mul(x, x))}), 1.12837916709551257390); });
     }},
    {"Floor", "", nullptr}, {"Ceil", "", nullptr}, {"Round", "", nullptr}, {"Sign", "", nullptr}, {"IsNaN", "", nullptr}, {"IsInf", "", nullptr},
    {"Not", "", nullptr}, {"BitwiseNot", "", nullptr},
});

}  // namespace
}  // namespace tiercel

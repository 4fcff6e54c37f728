// CumSum, CumProd: running sums and products along an axis, which is an input and may be computed while the model runs.
#include "ops/grad.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  ctx.check(is_real(t) || (is_integer(t) && bits_of(t) >= 8), "does not take ", dtype_name(t));
  ctx.input(1);
  ctx.check(ctx.dtype(1) == DType::kInt32 || ctx.dtype(1) == DType::kInt64, "the axis should be int32 or int64, got ", dtype_name(ctx.dtype(1)));
  ctx.set_output(0, ctx.type(0));
  if (!ctx.ranked(0)) return;
  if (const auto axis = ctx.ints(1)) {
    ctx.check(axis->size() == 1, "the axis should be one number, got ", axis->size());
    if (!is_symbol((*axis)[0])) ctx.axis((*axis)[0], ctx.shape(0).rank());
  }
}

template <class T> using Wrapping = std::conditional_t<std::is_floating_point_v<T>, T, uint64_t>;  // overflow wraps around

template <class T, bool kProd> void scan(const T* x, T* y, const AxisView& v, bool exclusive, bool reverse, Worker& w) {
  using U = Wrapping<T>;
  constexpr int64_t kColumns = 64;
  const auto step = [](U acc, T value) {
    if constexpr (kProd) return static_cast<U>(acc * static_cast<U>(value));
    else return static_cast<U>(acc + static_cast<U>(value));
  };
  const int64_t strips = ceil_div(v.inner, kColumns);
  w.parallel_for(v.outer * strips, grain_for(v.n * std::min(kColumns, v.inner)), [&](int64_t b, int64_t e) {
    for (int64_t s = b; s < e; ++s) {
      const int64_t c = s % strips * kColumns, cols = std::min(kColumns, v.inner - c), base = s / strips * v.n * v.inner + c;
      U acc[kColumns];
      std::fill_n(acc, kColumns, kProd ? U{1} : U{0});
      for (int64_t i = 0; i < v.n; ++i) {
        const int64_t at = base + (reverse ? v.n - 1 - i : i) * v.inner;
        for (int64_t k = 0; k < cols; ++k) {
          const U next = step(acc[k], x[at + k]);
          y[at + k] = static_cast<T>(exclusive ? acc[k] : next);
          acc[k] = next;
        }
      }
    }
  });
}

template <bool kProd> void prepare(PrepareContext& ctx) {
  const bool exclusive = ctx.node.attr_int("exclusive", 0) != 0, reverse = ctx.node.attr_int("reverse", 0) != 0;
  const bool wide = ctx.dtype(1) == DType::kInt64;
  const Shape shape = ctx.shape(0);
  if (ctx.shape(1).count() != 1) ctx.fail("the axis should be one number");
  const double count = static_cast<double>(shape.count());
  ctx.cost(4 * count, 2 * static_cast<double>(bytes_of(ctx.dtype(0), 1)) * count);
  ctx.inplace(0, 0);
  const auto make = [&](auto tag) {
    using T = typename decltype(tag)::type;
    ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
      const int64_t given = wide ? *a.in<int64_t>(1) : *a.in<int32_t>(1);
      const int axis = normalize_axis(given, shape.rank());
      if (axis < 0) fail(Code::kInvalidArgument, label, ": axis ", given, " is outside a shape of rank ", shape.rank());
      scan<T, kProd>(a.in<T>(0), a.out<T>(0), AxisView(shape, axis), exclusive, reverse, w);
    });
  };
  if (ctx.dtype(0) == DType::kFloat) make(Tag<float>());
  else with_plain_type(ctx.dtype(0), make);
}

const OpRegistration rows({
    {"CumSum", "", 11, infer, half_as_float<prepare<false>>},
    {"CumProd", "", 26, infer, half_as_float<prepare<true>>},
});

const GradRegistration grads({{"CumSum", "", [](GradContext& c) {
  c.set(0, c.w.op("CumSum", {c.dy(), c.x(1)},
                  {{"exclusive", c.node.attr_int("exclusive", 0)}, {"reverse", int64_t{c.node.attr_int("reverse", 0) == 0}}}));
}}});

}  // namespace
}  // namespace tiercel

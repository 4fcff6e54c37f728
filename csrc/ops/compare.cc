// Comparisons: Equal, Greater, GreaterOrEqual, Less, LessOrEqual. Equal also of bools and strings.
#include "ops/combine.h"
#include "ops/grad.h"

namespace tiercel {
namespace {

template <Compare C> bool holds(Dim a, Dim b) {
  switch (C) {
    case Compare::kEqual: return a == b;
    case Compare::kLess: return a < b;
    case Compare::kLessOrEqual: return a <= b;
    case Compare::kGreater: return a > b;
    case Compare::kGreaterOrEqual: return a >= b;
  }
}

template <Compare C> void infer_compare(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  if (C == Compare::kEqual) check_dtype(ctx, 0, is_arithmetic(t) || t == DType::kBool || t == DType::kString, "a tensor of numbers, bool or string");
  else check_dtype(ctx, 0, is_arithmetic(t), "a numeric tensor");
  infer_broadcast(ctx, DType::kBool);
  if (is_integer(t) || t == DType::kBool)
    carry_ints(ctx, [&](const auto& v) {
      if (v[0] == v[1] || (!is_symbol(v[0]) && !is_symbol(v[1]))) return Dim{holds<C>(v[0], v[1])};
      // An extent against a negative number, as in Expand's "-1: leave it": the answer is that of 0.
      const auto below = [](Dim d) { return !is_symbol(d) && d < 0; };
      if (ctx.symbols().is_extent(v[0]) && below(v[1])) return Dim{holds<C>(0, v[1])};
      if (ctx.symbols().is_extent(v[1]) && below(v[0])) return Dim{holds<C>(v[0], 0)};
      return ctx.fresh();
    });
}

void compare_strings(PrepareContext& ctx) {
  const Loops loops(ctx.out_shape(0), {ctx.shape(0), aligned_operand(ctx.node, ctx.shape(0), ctx.shape(1))}, {0, 0});
  // Strings are not copied: the loops yield their places.
  ctx.serial();
  ctx.run([loops](const Args& args, Worker& worker) {
    if (worker.index() != 0) return;
    const std::string* a = args.in<std::string>(0);
    const std::string* b = args.in<std::string>(1);
    bool* y = args.out<bool>(0);
    loops.for_offsets([&](int64_t i, const int64_t* at) { y[i] = a[at[0]] == b[at[1]]; });
  });
}

template <Compare C> void prepare_compare(PrepareContext& ctx) {
  if (ctx.dtype(0) == DType::kString) return compare_strings(ctx);
  Combination c;
  c.first = c.second = compute_dtype(ctx.dtype(0));
  c.result = DType::kBool;
  c.vectors = compare_fn(C, c.first);
  combine_elements(ctx, c);
}

#define TIERCEL_ROW(name, since) {#name, "", since, infer_compare<Compare::k##name>, prepare_compare<Compare::k##name>}
static const OpRegistration rows({
    TIERCEL_ROW(Equal, 1), TIERCEL_ROW(Greater, 1), TIERCEL_ROW(Less, 1), TIERCEL_ROW(GreaterOrEqual, 12),
    TIERCEL_ROW(LessOrEqual, 12),
});
#undef TIERCEL_ROW

static const GradRegistration grads({
    {"Equal", "", nullptr}, {"Greater", "", nullptr}, {"Less", "", nullptr}, {"GreaterOrEqual", "", nullptr}, {"LessOrEqual", "", nullptr},
});

}  // namespace
}  // namespace tiercel

// ArgMax, ArgMin, Hardmax. A NaN counts as the largest and as the smallest, as in numpy.
#include "kernels/reduce/reduce.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void check_dtype(const InferContext& ctx) {
  const DType t = ctx.dtype(0);
  ctx.check(is_real(t) || (is_integer(t) && bits_of(t) >= 8), "does not take ", dtype_name(t));
}

void infer_arg(InferContext& ctx) {
  check_dtype(ctx);
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(DType::kInt64));
  Shape s = ctx.shape(0);
  const int axis = ctx.axis(ctx.node.attr_int("axis", 0), s.rank());
  ctx.check(s[axis] != 0, "axis ", axis, " is empty: there is no largest or smallest element");
  if (ctx.node.attr_int("keepdims", 1)) s[axis] = 1;
  else s.erase(axis);
  ctx.set_output(0, DType::kInt64, s);
}

template <class T> int64_t arg_plain(const T* x, int64_t n, int64_t stride, bool min, bool last) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    const T v = x[i * stride], b = x[best * stride];
    const bool v_nan = v != v, b_nan = b != b;
    const bool better = b_nan ? false : v_nan || (min ? v < b : v > b);
    if (better || (last && (v == b || (v_nan && b_nan)))) best = i;
  }
  return best;
}

// y[outer * inner] = indices along the axis
void arg_reduce(DType t, const AxisView& v, bool min, bool last, const void* data, int64_t* y, Worker& w) {
  if (t == DType::kFloat && v.n < (int64_t{1} << 31)) {
    const float* x = static_cast<const float*>(data);
    if (v.inner == 1) {
      w.parallel_for(v.outer, grain_for(v.n), [&](int64_t b, int64_t e) { reduce().arg_rows[min](x + b * v.n, e - b, v.n, v.n, last, y + b); });
      return;
    }
    constexpr int64_t kStrip = 512;
    const int64_t strips = ceil_div(v.inner, kStrip);
    w.parallel_for(v.outer * strips, grain_for(v.n * std::min(kStrip, v.inner)), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const int64_t c = i % strips * kStrip, o = i / strips;
        reduce().arg_columns[min](x + o * v.n * v.inner + c, v.n, v.inner, std::min(kStrip, v.inner - c), last, y + o * v.inner + c);
      }
    });
    return;
  }
  const auto run = [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* x = static_cast<const T*>(data);
    w.parallel_for(v.outer * v.inner, grain_for(v.n), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) y[i] = arg_plain(x + i / v.inner * v.n * v.inner + i % v.inner, v.n, v.inner, min, last);
    });
  };
  if (t == DType::kFloat) run(Tag<float>());
  else with_plain_type(t, run);
}

template <bool kMin> void prepare_arg(PrepareContext& ctx) {
  const Shape& s = ctx.shape(0);
  const AxisView v(s, normalize_axis(ctx.node.attr_int("axis", 0), s.rank()));
  if (!v.n && v.outer && v.inner) ctx.fail("the axis is empty: there is no largest or smallest element");
  const bool last = ctx.node.attr_int("select_last_index", 0) != 0;
  const double count = static_cast<double>(s.count());
  ctx.cost(2 * count, static_cast<double>(bytes_of(ctx.dtype(0), 1)) * count);
  ctx.run([=, t = ctx.dtype(0)](const Args& a, Worker& w) { arg_reduce(t, v, kMin, last, a.in(0), a.out<int64_t>(0), w); });
}

// ---- Hardmax: 1 at the first largest element, 0 elsewhere

void infer_hardmax(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.set_output(0, ctx.type(0));
  if (ctx.ranked(0)) ctx.axis(ctx.node.attr_int("axis", ctx.node.opset < 13 ? 1 : -1), std::max(ctx.shape(0).rank(), 1));
}

void prepare_hardmax(PrepareContext& ctx) {
  const Shape s = ctx.shape(0).rank() ? ctx.shape(0) : Shape{1};
  AxisView v(s, normalize_axis(ctx.node.attr_int("axis", ctx.node.opset < 13 ? 1 : -1), s.rank()));
  if (ctx.node.opset < 13) {
    v.n *= v.inner;
    v.inner = 1;
  }
  const int64_t results = v.outer * v.inner;
  if (!s.count()) return ctx.run([](const Args&, Worker&) {});
  ctx.workspace(8 * results);
  ctx.cost(2 * static_cast<double>(s.count()), 2 * static_cast<double>(bytes_of(ctx.dtype(0), s.count())));
  ctx.run([=, t = ctx.dtype(0)](const Args& a, Worker& w) {
    int64_t* best = a.workspace<int64_t>();
    arg_reduce(t, v, false, false, a.in(0), best, w);
    w.barrier();
    const auto put = [&](auto* y) {
      using T = std::remove_pointer_t<decltype(y)>;
      w.parallel_for(v.outer, grain_for(v.n * v.inner), [&](int64_t b, int64_t e) {
        std::fill(y + b * v.n * v.inner, y + e * v.n * v.inner, T{0});
        for (int64_t i = b * v.inner; i < e * v.inner; ++i) y[(i / v.inner * v.n + best[i]) * v.inner + i % v.inner] = 1;
      });
    };
    t == DType::kFloat ? put(a.out<float>(0)) : put(a.out<double>(0));
  });
}

const OpRegistration rows({
    {"ArgMax", "", 1, infer_arg, half_as_float<prepare_arg<false>>},
    {"ArgMin", "", 1, infer_arg, half_as_float<prepare_arg<true>>},
    {"Hardmax", "", 1, infer_hardmax, half_as_float<prepare_hardmax>},
});

}  // namespace
}  // namespace tiercel

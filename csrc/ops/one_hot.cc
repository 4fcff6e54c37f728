// OneHot: values[1] where the new axis meets the index, values[0] elsewhere; all values[0] for an index outside [-depth, depth).
#include "base/float_formats.h"
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  for (int i = 0; i < 3; ++i) ctx.input(i);
  for (int i : {0, 1})
    ctx.check(is_integer(ctx.dtype(i)) || is_real(ctx.dtype(i)), "indices and depth should be numbers");
  if (ctx.ranked(2)) {
    ctx.check(ctx.shape(2).rank() == 1, "values should be [off, on]");
    unify(ctx, ctx.shape(2)[0], 2, "the number of values and");
  }
  Dim depth = ctx.fresh();
  if (const Tensor* t = ctx.constant(1)) {
    ctx.check(t->count() == 1, "depth should be a scalar");
    const double d = t->doubles()[0];
    ctx.check(d >= 1 && d <= INT32_MAX, "depth is ", d, ": 1 at least is needed");
    depth = static_cast<Dim>(d);
  } else if (const auto v = small_ints(ctx, 1); v && v->size() == 1) {
    depth = (*v)[0];
  }
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(ctx.dtype(2)));
  Shape r = ctx.shape(0);
  const int axis = ctx.axis(ctx.node.attr_int("axis", -1), r.rank() + 1);
  r.insert(axis, depth);
  if (r.known()) check_fits(ctx, ctx.dtype(2), r);
  ctx.set_output(0, ctx.dtype(2), r);
}

// indices[i] of type T as a place in [0, depth), or -1.
template <class T> int64_t place(const void* indices, int64_t i, int64_t depth) {
  const T v = static_cast<const T*>(indices)[i];
  double d;
  if constexpr (std::is_integral_v<T>) {
    if (std::is_unsigned_v<T> ? static_cast<uint64_t>(v) >= static_cast<uint64_t>(depth) : static_cast<int64_t>(v) >= depth) return -1;
    const auto k = static_cast<int64_t>(v);
    return k >= 0 ? k : k >= -depth ? k + depth : -1;
  } else {
    if constexpr (std::is_floating_point_v<T>) d = v;
    else d = to_float(v);
    if (!(d >= static_cast<double>(-depth) && d < static_cast<double>(depth)) || d != std::floor(d)) return -1;
    return static_cast<int64_t>(d) + (d < 0 ? depth : 0);
  }
}

void prepare(PrepareContext& ctx) {
  const Shape& out = ctx.out_shape(0);
  const int axis = normalize_axis(ctx.node.attr_int("axis", -1), out.rank());
  const AxisSplit s(out, axis);
  const Element e(ctx.out_dtype(0));
  int64_t (*at)(const void*, int64_t, int64_t) = nullptr;
  if (!with_plain_type(ctx.dtype(0), [&](auto tag) { at = &place<typename decltype(tag)::type>; }))
    at = ctx.dtype(0) == DType::kFloat ? &place<float> : ctx.dtype(0) == DType::kFloat16 ? &place<Half> : &place<BFloat16>;
  ctx.cost(0, static_cast<double>(out.count() * e.size));
  ctx.run([=](const Args& a, Worker& w) {
    const void *off = a.in(2), *on = offset(a.in(2), 1, e);
    w.parallel_for(s.outer, move_grain(s.extent * s.inner * e.size), [&](int64_t b, int64_t end) {
      fill_elements(e, offset(a.out(0), b * s.extent * s.inner, e), off, (end - b) * s.extent * s.inner);
      for (int64_t i = b * s.inner; i < end * s.inner; ++i) {
        const int64_t k = at(a.in(0), i, s.extent);
        if (k >= 0) copy_elements(e, offset(a.out(0), (i / s.inner * s.extent + k) * s.inner + i % s.inner, e), on, 1);
      }
    });
  });
}

const OpRegistration rows({{"OneHot", "", 9, infer, prepare}});

}  // namespace
}  // namespace tiercel

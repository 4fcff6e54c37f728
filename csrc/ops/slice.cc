// Slice: x[start:end:step] along each given axis, as numpy has it.
#include "ops/grad.h"
#include "ops/movement.h"
#include "ops/slice.h"

namespace tiercel {
namespace {

struct Cut { int64_t start = 0, step = 1, length = 0; };

Cut cut_of(int64_t extent, int64_t start, int64_t end, int64_t step) {
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? extent : extent - 1;
  auto clamp = [&](int64_t v, int64_t least) { return std::clamp(v < 0 ? v + extent : v, least, std::max(least, high)); };
  Cut c;
  c.start = clamp(start, 0);
  c.step = step;
  const __int128 span = static_cast<__int128>(clamp(end, low)) - c.start, s = step;
  const __int128 n = s > 0 ? (span + s - 1) / s : (-span - s - 1) / -s;
  c.length = extent > 0 && n > 0 ? static_cast<int64_t>(n) : 0;
  return c;
}

// starts, ends, axes and steps, from attributes (opset 1) or inputs (10); nullopt: not known yet.
struct Spec {
  std::optional<std::vector<Dim>> starts, ends, steps;
  std::optional<std::vector<int64_t>> axes;
};

// Below opset 10 the numbers are attributes.
bool is_old(const Node& node) { return node.domain.empty() && node.opset < 10; }

// "From the far end" is often spelt INT64_MIN, which must not be taken for a symbol.
std::vector<Dim> numbers(std::vector<int64_t> v) {
  for (int64_t& x : v) x = std::max(x, INT64_MIN / 2);
  return v;
}

template <class Context> Spec spec_of(const Context& ctx) {
  Spec s;
  std::optional<std::vector<Dim>> axes;
  auto ints = [&](int i) -> std::optional<std::vector<Dim>> {
    if (const Tensor* t = ctx.constant(i)) return numbers(t->ints());
    return ctx.ints(i);
  };
  if (is_old(ctx.node)) {
    s.starts = numbers(ctx.node.attr_ints("starts"));
    s.ends = numbers(ctx.node.attr_ints("ends"));
    if (ctx.node.has("axes")) axes = ctx.node.attr_ints("axes");
  } else {
    s.starts = ints(1);
    s.ends = ints(2);
    if (ctx.has_input(3)) axes = ints(3);
    if (ctx.has_input(4)) s.steps = ints(4);
  }
  const bool has_axes = is_old(ctx.node) ? ctx.node.has("axes") : ctx.has_input(3);
  const bool has_steps = !is_old(ctx.node) && ctx.has_input(4);
  const size_t n = s.starts ? s.starts->size() : s.ends ? s.ends->size() : 0;
  if (!has_axes && (s.starts || s.ends)) {
    axes.emplace();
    for (size_t i = 0; i < n; ++i) axes->push_back(static_cast<int64_t>(i));
  }
  if (!has_steps) s.steps = std::vector<Dim>(axes ? axes->size() : n, 1);
  if (axes && std::none_of(axes->begin(), axes->end(), is_symbol)) s.axes = std::move(axes);
  return s;
}

void infer(InferContext& ctx) {
  ctx.input(0);
  if (!is_old(ctx.node)) { ctx.input(1); ctx.input(2); }
  else ctx.check(ctx.node.has("starts") && ctx.node.has("ends"), "attributes 'starts' and 'ends' are required");
  const DType dtype = ctx.dtype(0);
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(dtype));
  const Shape& shape = ctx.shape(0);
  const Spec spec = spec_of(ctx);
  if (!spec.axes) return ctx.set_output(0, dtype, fresh_shape(ctx, shape.rank()));
  const size_t n = spec.axes->size();
  for (const auto* v : {&spec.starts, &spec.ends, &spec.steps})
    ctx.check(!*v || (*v)->size() == n, "starts, ends, axes and steps should have one length");
  Shape r = shape;
  bool seen[kMaxRank] = {}, known = true;
  Cut cut;
  for (size_t i = 0; i < n; ++i) {
    const int axis = ctx.axis((*spec.axes)[i], shape.rank());
    ctx.check(!seen[axis], "axis ", axis, " is sliced twice");
    seen[axis] = true;
    auto value = [&](const std::optional<std::vector<Dim>>& v) { return v ? std::optional((*v)[i]) : std::nullopt; };
    const auto start = value(spec.starts), end = value(spec.ends), step = value(spec.steps);
    ctx.check(step != Dim{0}, "step 0 along axis ", axis);
    const Dim extent = shape[axis];
    if (start == Dim{0} && step == Dim{1} && end && (*end == extent || *end >= INT32_MAX) && is_symbol(extent)) continue;  // all of it
    if (is_symbol(extent) || !start || !end || !step || is_symbol(*start) || is_symbol(*end) || is_symbol(*step)) {
      r[axis] = extent == 0 ? 0 : ctx.fresh();
      known = false;
      continue;
    }
    cut = cut_of(extent, *start, *end, *step);
    r[axis] = cut.length;
  }
  ctx.set_output(0, dtype, r);
  if (shape.rank() != 1 || !known) return;
  if (const auto v = small_ints(ctx, 0)) {
    if (n == 0) return ctx.set_ints(0, *v);
    if (is_symbol(shape[0])) return;
    std::vector<Dim> some;
    for (int64_t i = 0; i < cut.length; ++i) some.push_back((*v)[static_cast<size_t>(cut.start + i * cut.step)]);
    ctx.set_ints(0, std::move(some));
  }
}

void prepare(PrepareContext& ctx) {
  const SliceWalk walk = slice_walk(ctx, ctx.shape(0), ctx.out_shape(0));
  if (walk.whole) return ctx.alias(0, 0);
  const Element e(ctx.dtype(0));
  move_cost(ctx);
  ctx.run([=, first = walk.first, copy = StridedCopy(e, walk.axes)](const Args& a, Worker& w) { copy.run(offset(a.in(0), first, e), a.out(0), w); });
}

const OpRegistration rows({{"Slice", "", 1, infer, sub_byte<prepare>}});

void grad(GradContext& c) {
  std::vector<Value*> in{c.dy(), c.x(1), c.x(2), c.x(3), c.x(4)};
  if (is_old(c.node)) {
    in = {c.dy(), c.w.ints(c.node.attr_ints("starts")), c.w.ints(c.node.attr_ints("ends")), nullptr, nullptr};
    if (c.node.has("axes")) in[3] = c.w.ints(c.node.attr_ints("axes"));
  }
  in.push_back(c.w.shape_of(c.x(0)));
  c.set(0, c.w.op("SliceGrad", in, {}, kTiercelDomain));
}
const GradRegistration grads({{"Slice", "", grad}});

}  // namespace

SliceWalk slice_walk(const PrepareContext& ctx, const Shape& shape, const Shape& out) {
  const Spec spec = spec_of(ctx);
  if (!spec.starts || !spec.ends || !spec.axes || !spec.steps) ctx.fail("starts, ends, axes and steps should be known by now");
  const Strides in_strides = strides_of(shape), out_strides = strides_of(out);
  SliceWalk walk;
  for (int i = 0; i < shape.rank(); ++i) walk.axes.push_back({out[i], in_strides[static_cast<size_t>(i)], out_strides[static_cast<size_t>(i)]});
  walk.whole = out == shape;
  for (size_t i = 0; i < spec.axes->size(); ++i) {
    const int axis = normalize_axis((*spec.axes)[i], shape.rank());
    const Cut cut = cut_of(shape[axis], (*spec.starts)[i], (*spec.ends)[i], (*spec.steps)[i]);
    if (cut.length) walk.first += cut.start * in_strides[static_cast<size_t>(axis)];
    if (cut.length > 1) walk.axes[static_cast<size_t>(axis)].in *= cut.step;
    walk.whole = walk.whole && (cut.step == 1 || cut.length <= 1);
  }
  return walk;
}

}  // namespace tiercel

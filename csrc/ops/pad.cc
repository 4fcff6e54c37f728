// Pad: elements added before and after each axis (or taken away, where a pad is negative). Modes as in numpy.pad: constant,
// reflect (the edge not repeated), edge, wrap.
#include "base/available_memory.h"
#include "base/float_formats.h"
#include "ops/grad_tools.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

struct Pads { std::vector<int64_t> before, after; };

template <class Context> std::optional<Pads> pads_of(const Context& ctx, int rank) {
  std::optional<std::vector<int64_t>> pads, axes;
  if (ctx.node.opset < 11) {
    pads = ctx.node.attr_ints(ctx.node.opset < 2 ? "paddings" : "pads");
  } else {
    pads = known_ints(ctx, 1);
    if (ctx.has_input(3)) {
      axes = known_ints(ctx, 3);
      if (!axes) return std::nullopt;
    }
  }
  if (!pads) return std::nullopt;
  Pads p{std::vector<int64_t>(static_cast<size_t>(rank)), std::vector<int64_t>(static_cast<size_t>(rank))};
  if (!axes) {
    axes.emplace();
    for (int i = 0; i < rank; ++i) axes->push_back(i);
  }
  const size_t n = axes->size();
  if (pads->size() != 2 * n) ctx.fail("pads has ", pads->size(), " entries for ", n, " axes: two an axis are needed");
  for (size_t i = 0; i < n; ++i) {
    const int axis = normalize_axis((*axes)[i], rank);
    if (axis < 0) ctx.fail("axis ", (*axes)[i], " is outside [", -rank, ", ", rank - 1, "]");
    p.before[static_cast<size_t>(axis)] = (*pads)[i];
    p.after[static_cast<size_t>(axis)] = (*pads)[n + i];
  }
  return p;
}

void infer(InferContext& ctx) {
  ctx.input(0);
  const std::string mode = ctx.node.attr_string("mode", "constant");
  ctx.check(mode == "constant" || mode == "reflect" || mode == "edge" || mode == "wrap", "mode '", mode, "' is not known");
  if (ctx.node.opset >= 11) ctx.input(1);
  if (ctx.has_input(2)) {
    ctx.check(ctx.dtype(2) == ctx.dtype(0), "the constant value should be of the data's type");
    ctx.check(!ctx.ranked(2) || !ctx.shape(2).known() || ctx.shape(2).count() == 1, "the constant value should be a scalar");
  }
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  const Shape& s = ctx.shape(0);
  const auto pads = pads_of(ctx, s.rank());
  if (!pads) return ctx.set_output(0, ctx.dtype(0), fresh_shape(ctx, s.rank()));
  Shape r = s;
  for (int i = 0; i < s.rank(); ++i) {
    const int64_t before = pads->before[static_cast<size_t>(i)], after = pads->after[static_cast<size_t>(i)];
    if (before == 0 && after == 0) continue;
    int64_t both;
    if (is_symbol(s[i])) { r[i] = __builtin_add_overflow(before, after, &both) ? ctx.fresh() : ctx.symbols().plus(s[i], both); continue; }
    ctx.check(!__builtin_add_overflow(s[i], before, &r[i]) && !__builtin_add_overflow(r[i], after, &r[i]), "the result is too large");
    ctx.check(r[i] >= 0, "pads ", before, " and ", after, " take away more than the extent ", s[i], " of axis ", i);
    ctx.check(mode == "constant" || s[i] > 0 || r[i] == 0, "mode '", mode, "' has nothing to repeat: axis ", i, " is empty");
  }
  if (r.known()) check_fits(ctx, ctx.dtype(0), r);
  const Layout layout = ctx.type(0).layout;
  ctx.check(layout == Layout::kPlain || r[1] == s[1], "the channels of a blocked tensor cannot be padded");
  ctx.set_output(0, Type::tensor(ctx.dtype(0), r, layout));
}

// The input index that output index i takes its value from, along an axis; -1: the constant.
int64_t source(const std::string& mode, int64_t i, int64_t extent) {
  if (i >= 0 && i < extent) return i;
  if (mode == "constant") return -1;
  if (mode == "edge") return i < 0 ? 0 : extent - 1;
  const int64_t period = mode == "wrap" ? extent : std::max<int64_t>(2 * (extent - 1), 1);
  const int64_t k = (i % period + period) % period;
  return k < extent ? k : period - k;
}

struct Segment { int64_t out, in, count; };  // of the innermost padded axis, in elements; in < 0: the constant

Tensor attribute_value(PrepareContext& ctx) {
  const float v = ctx.node.opset < 11 ? ctx.node.attr_float("value", 0) : 0;
  switch (ctx.dtype(0)) {
    case DType::kFloat16: return Tensor::of<Half>({}, {to_half(v)});
    case DType::kBFloat16: return Tensor::of<BFloat16>({}, {to_bfloat16(v)});
    case DType::kDouble: return Tensor::of<double>({}, {v});
    case DType::kFloat: return Tensor::of<float>({}, {v});
    default: break;
  }
  Tensor t(ctx.dtype(0), {});
  if (ctx.dtype(0) != DType::kString) std::memset(t.data(), 0, static_cast<size_t>(t.bytes()));
  return t;
}

void prepare(PrepareContext& ctx) {
  const Shape s = storage_shape(ctx.shape(0), ctx.layout(0)), out = storage_shape(ctx.out_shape(0), ctx.layout(0));
  auto pads = pads_of(ctx, ctx.shape(0).rank());
  if (!pads) ctx.fail("pads should be known by now");
  pads->before.push_back(0);  // the lanes of blocks
  pads->after.push_back(0);
  const std::string mode = ctx.node.attr_string("mode", "constant");
  int last = -1;  // the innermost padded axis; what lies inside it moves in one piece
  for (int i = 0; i < s.rank(); ++i)
    if (pads->before[static_cast<size_t>(i)] || pads->after[static_cast<size_t>(i)]) last = i;
  if (last < 0) return ctx.alias(0, 0);
  if (out.count() == 0) return ctx.run([](const Args&, Worker&) {});  // whose other extents may be anything
  const Element e(ctx.dtype(0));
  const int64_t inner = s.count(last + 1, s.rank());
  for (int i = 0; i <= last; ++i) require_memory(static_cast<size_t>(out[i]) * sizeof(int64_t));
  std::vector<std::vector<int64_t>> from(static_cast<size_t>(last + 1));  // source index of each output index, by axis
  for (int i = 0; i <= last; ++i)
    for (int64_t k = 0; k < out[i]; ++k) from[static_cast<size_t>(i)].push_back(source(mode, k - pads->before[static_cast<size_t>(i)], s[i]));
  std::vector<Segment> segments;
  for (int64_t k = 0; k < out[last]; ++k) {
    const int64_t in = from[static_cast<size_t>(last)][static_cast<size_t>(k)];
    if (!segments.empty()) {
      Segment& p = segments.back();
      if (in < 0 ? p.in < 0 : p.in >= 0 && p.in + p.count == in) { ++p.count; continue; }
    }
    segments.push_back({k, in, 1});
  }
  for (Segment& p : segments) { p.out *= inner; p.in *= inner; p.count *= inner; }
  const int64_t rows = out.count(0, last), width = out[last] * inner;
  const Strides strides = strides_of(s);
  const bool given = ctx.has_input(2);
  move_cost(ctx);
  ctx.run([=, value = attribute_value(ctx)](const Args& a, Worker& w) {
    const void* constant = given ? a.in(2) : value.data();
    w.parallel_for(rows, move_grain(width * e.size), [&](int64_t b, int64_t end) {
      for (int64_t r = b; r < end; ++r) {
        char* to = offset(a.out(0), r * width, e);
        int64_t base = 0, t = r;
        for (int k = last - 1; k >= 0 && base >= 0; --k) {
          const int64_t i = from[static_cast<size_t>(k)][static_cast<size_t>(t % out[k])];
          base = i < 0 ? -1 : base + i * strides[static_cast<size_t>(k)];
          t /= out[k];
        }
        if (base < 0) { fill_elements(e, to, constant, width); continue; }
        for (const Segment& p : segments) {
          if (p.in < 0) fill_elements(e, offset(to, p.out, e), constant, p.count);
          else copy_elements(e, offset(to, p.out, e), offset(a.in(0), base + p.in, e), p.count);
        }
      }
    });
  });
}

const OpRegistration rows({{"Pad", "", 1, infer, sub_byte<prepare>, nullptr, kAnyLayout}});

// constant: the part of dy that lies over the input, padding taken away again, and back where it was negative. Other modes: an axis at a time,
// dy is added where its elements came from, which a padded row of running numbers tells.
void grad(GradContext& c) {
  using namespace grad_tools;
  GraphWriter& w = c.w;
  Value *const x = c.x(0), *pads = nullptr, *axes = nullptr;
  const std::string mode = c.node.attr_string("mode", "constant");
  if (c.node.opset < 11) {
    pads = w.ints(c.node.attr_ints(c.node.opset < 2 ? "paddings" : "pads"));
  } else {
    pads = c.x(1);
    axes = c.x(3);
  }
  if (mode == "constant") {
    const auto padded = [&](Value* v, Value* by, Value* constant) { return w.op("Pad", {v, by, constant, axes}); };
    if (c.wants(0)) c.set(0, padded(c.dy(), w.neg(pads), nullptr));
    if (c.wants(2)) {  // all that is not the input's
      Value* const outside = padded(zeros_like(w, x), pads, w.scalar_like(1, x));
      c.set(2, w.reshape_like(sum_all(w, w.mul(c.dy(), outside)), c.x(2)));
    }
    return;
  }
  if (c.wants(2)) c.set(2, zeros_like(w, c.x(2)));
  if (!c.wants(0)) return;
  const int rank = c.rank(x);
  std::vector<int64_t> list;
  if (axes) {
    list = c.ints(3, "axes");
  } else {
    for (int64_t k = 0; k < rank; ++k) list.push_back(k);
  }
  const int64_t n = static_cast<int64_t>(list.size());
  const ValueInfo& known = w.info(pads);
  const std::vector<int64_t> numbers = known.constant ? known.constant->ints() : std::vector<int64_t>();
  Value* dx = c.dy();
  for (int64_t i = 0; i < n; ++i) {
    if (!numbers.empty() && numbers[static_cast<size_t>(i)] == 0 && numbers[static_cast<size_t>(n + i)] == 0) continue;
    const int axis = c.axis(list[static_cast<size_t>(i)], rank);
    Value* const from = w.op("Pad", {count_up(w, extent(w, x, axis)), w.op("Gather", {pads, w.ints({i, n + i})})}, {{"mode", mode}});
    Value* const shape = w.op("Concat", {extents(w, dx, 0, axis), extents(w, x, axis, axis + 1), extents(w, dx, axis + 1, rank)}, {{"axis", int64_t{0}}});
    dx = gather_back(w, dx, from, shape, axis);
  }
  c.set(0, dx);
}
const GradRegistration grads({{"Pad", "", grad}});

}  // namespace
}  // namespace tiercel

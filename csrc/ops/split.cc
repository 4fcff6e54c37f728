// Split: parts of the input along an axis.
#include "ops/grad.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

// The extents of the parts, where they are known. Elements may be symbols.
std::optional<std::vector<Dim>> parts_of(const InferContext& ctx, Dim extent) {
  const int n = ctx.num_outputs();
  const int version = ctx.node.opset;
  if (version < 13 && ctx.node.has("split")) {
    const auto sizes = ctx.node.attr_ints("split");
    for (int64_t p : sizes) ctx.check(p >= 0, "split size ", p, " is negative");  // numbers of a file, never symbols
    return sizes;
  }
  if ((version == 1 || version >= 13) && ctx.has_input(1)) {
    if (auto v = small_ints(ctx, 1)) return v;
    return std::nullopt;
  }
  if (is_symbol(extent)) return n == 1 ? std::optional(std::vector<Dim>{extent}) : std::nullopt;
  std::vector<Dim> parts;
  if (version >= 18) {
    const int64_t count = ctx.node.attr_int("num_outputs", n);
    ctx.check(count == n, "num_outputs is ", count, ", but the node has ", n, " outputs");
    const int64_t part = ceil_div(extent, n);
    for (int64_t left = extent, i = 0; i < n; ++i, left -= parts.back()) parts.push_back(std::min(part, left));
  } else {
    ctx.check(extent % n == 0, "extent ", extent, " does not split into ", n, " equal parts");
    parts.assign(static_cast<size_t>(n), extent / n);
  }
  return parts;
}

void infer(InferContext& ctx) {
  ctx.input(0);
  const int n = ctx.num_outputs();
  ctx.check(n > 0, "at least one output is required");
  if (!ctx.ranked(0)) {
    for (int i = 0; i < n; ++i) ctx.set_output(i, Type::tensor(ctx.dtype(0)));
    return;
  }
  const Shape& s = ctx.shape(0);
  const int axis = ctx.axis(ctx.node.attr_int("axis", 0), s.rank());
  const auto parts = parts_of(ctx, s[axis]);
  if (parts) {
    ctx.check(static_cast<int>(parts->size()) == n, parts->size(), " split sizes for ", n, " outputs");
    __int128 sum = 0;
    bool known = !is_symbol(s[axis]);
    for (Dim p : *parts) {
      if (is_symbol(p)) { known = false; continue; }
      ctx.check(p >= 0, "split size ", p, " is negative");
      sum += p;
    }
    ctx.check(!known || sum == s[axis], "the split sizes add up to ", static_cast<int64_t>(sum), ", not to the extent ", s[axis]);
  }
  const auto values = s.rank() == 1 ? small_ints(ctx, 0) : std::nullopt;
  size_t at = 0;
  bool located = parts.has_value();
  for (int i = 0; i < n; ++i) {
    Shape r = s;
    r[axis] = parts ? (*parts)[static_cast<size_t>(i)] : ctx.fresh();
    const Layout layout = ctx.type(0).layout;
    ctx.check(layout == Layout::kPlain || (ctx.dtype(0) == DType::kFloat && !is_symbol(r[1])), "parts of a blocked tensor should have known channels");
    ctx.output(i).type = Type::tensor(ctx.dtype(0), r, layout);  // of one left out, too: the parts after it begin where it ends
    located = located && !is_symbol(r[axis]);
    if (!located || !values) continue;
    const size_t end = at + static_cast<size_t>(r[axis]);
    if (end > values->size()) { located = false; continue; }
    ctx.set_ints(i, {values->begin() + static_cast<std::ptrdiff_t>(at), values->begin() + static_cast<std::ptrdiff_t>(end)});
    at = end;
  }
}

void prepare(PrepareContext& ctx) {
  const Layout layout = ctx.layout(0);
  const Shape s = storage_shape(ctx.shape(0), layout);
  const int axis = normalize_axis(ctx.node.attr_int("axis", 0), ctx.shape(0).rank()), n = ctx.num_outputs();
  if (n == 1 && ctx.has_output(0)) return ctx.alias(0, 0);
  const Element e(ctx.dtype(0));
  const int64_t outer = s.count(0, axis), inner = s.count(axis + 1, s.rank());
  move_cost(ctx);
  int64_t at = 0;
  if (layout == Layout::kBlocked && axis == 1) {
    RowCopies pieces(ctx.shape(0));
    for (int i = 0; i < n; at += ctx.out_shape(i++)[1])
      if (ctx.has_output(i)) pieces.add_channels(0, ctx.shape(0), at, i, ctx.out_shape(i), 0, ctx.out_shape(i)[1]);
    return ctx.run([pieces = std::move(pieces)](const Args& a, Worker& w) { pieces.run(a, w); });
  }
  CopyList copies;
  for (int i = 0; i < n; ++i) {
    const int64_t run = storage_shape(ctx.out_shape(i), layout)[axis] * inner;
    if (ctx.has_output(i)) copies.add(StridedCopy(e, {{outer, s[axis] * inner, run}, {run, 1, 1}}), 0, at, i, 0, e);
    at += run;
  }
  ctx.run([copies = std::move(copies)](const Args& a, Worker& w) { copies.run(a, w); });
}

const OpRegistration rows({{"Split", "", 1, infer, sub_byte<prepare>, nullptr, kAnyLayout}});

void grad(GradContext& c) {
  std::vector<Value*> parts;
  for (int i = 0; i < static_cast<int>(c.node.outputs.size()); ++i)
    parts.push_back(c.dy(i) ? c.dy(i) : c.w.expand_like(c.w.scalar_like(0, c.x(0)), c.made_output(i)));
  c.set(0, c.w.op("Concat", parts, {{"axis", c.node.attr_int("axis", 0)}}));
}
const GradRegistration grads({{"Split", "", grad}});

}  // namespace
}  // namespace tiercel

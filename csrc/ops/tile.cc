// Tile: the input repeated along each axis. Opset 6: repeats, an extent for each axis; opset 1: tiles along one axis.
#include "ops/grad.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

template <class Context> std::optional<std::vector<int64_t>> repeats_of(const Context& ctx, int rank) {
  const auto given = known_ints(ctx, 1);
  if (ctx.node.opset >= 6) return given;
  const auto axis = known_ints(ctx, 2);
  if (!given || !axis || given->size() != 1 || axis->size() != 1 || normalize_axis((*axis)[0], rank) < 0) return std::nullopt;
  std::vector<int64_t> repeats(static_cast<size_t>(rank), 1);
  repeats[static_cast<size_t>(normalize_axis((*axis)[0], rank))] = (*given)[0];
  return repeats;
}

void infer(InferContext& ctx) {
  ctx.input(0);
  ctx.input(1);
  const DType dtype = ctx.dtype(0);
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(dtype));
  const Shape& s = ctx.shape(0);
  const auto repeats = repeats_of(ctx, s.rank());
  Shape r = s;
  if (!repeats) {
    const auto v = ctx.node.opset >= 6 ? small_ints(ctx, 1) : std::nullopt;  // some may be symbols
    for (int i = 0; i < r.rank(); ++i) {
      const Dim n = v && static_cast<int>(v->size()) == r.rank() ? (*v)[static_cast<size_t>(i)] : ctx.fresh();
      if (n == 1) continue;
      r[i] = s[i] == 1 && is_symbol(n) ? n : s[i] >= 0 && n >= 0 && s[i] < INT32_MAX && n < INT32_MAX ? s[i] * n : ctx.fresh();
    }
    return ctx.set_output(0, dtype, r);
  }
  ctx.check(static_cast<int>(repeats->size()) == s.rank(), "repeats has ", repeats->size(), " entries for an input of rank ", s.rank());
  for (int i = 0; i < r.rank(); ++i) {
    const int64_t n = (*repeats)[static_cast<size_t>(i)];
    ctx.check(n >= 0, "repeat ", n, " along axis ", i, " is negative");
    if (is_symbol(s[i])) r[i] = n == 1 ? s[i] : n == 0 ? 0 : ctx.fresh();
    else ctx.check(!__builtin_mul_overflow(s[i], n, &r[i]), "the result is too large");
  }
  if (r.known()) check_fits(ctx, dtype, r);
  ctx.set_output(0, dtype, r);
  if (r.rank() != 1 || !r.known() || r[0] > kMaxKnownInts) return;
  if (const auto v = small_ints(ctx, 0)) {
    std::vector<Dim> all;
    for (int64_t i = 0; i < (*repeats)[0]; ++i) all.insert(all.end(), v->begin(), v->end());
    ctx.set_ints(0, std::move(all));
  }
}

void prepare(PrepareContext& ctx) {
  const Shape &s = ctx.shape(0), &out = ctx.out_shape(0);
  if (out == s) return ctx.alias(0, 0);
  const Strides in = strides_of(s), to = strides_of(out);
  const Element e(ctx.dtype(0));
  std::vector<StridedCopy::Axis> axes;
  for (int i = 0; i < s.rank(); ++i) {
    const auto k = static_cast<size_t>(i);
    axes.push_back({s[i] ? out[i] / s[i] : 0, 0, to[k] * s[i]});
    axes.push_back({s[i], in[k], to[k]});
  }
  move_cost(ctx);
  ctx.run([copy = StridedCopy(e, axes)](const Args& a, Worker& w) { copy.run(a.in(0), a.out(0), w); });
}

const OpRegistration rows({{"Tile", "", 1, infer, sub_byte<prepare>}});

// [r0 d0, r1 d1, ...] is [r0, d0, r1, d1, ...], summed over the repeats.
void grad(GradContext& c) {
  GraphWriter& w = c.w;
  c.check(c.node.opset >= 6, "opset ", c.node.opset, " has none");
  const int rank = c.rank(c.x(0));
  if (rank == 0) return c.set(0, c.dy());
  std::vector<int64_t> even;
  for (int i = 0; i < rank; ++i) even.push_back(2 * i);
  const auto column = [&](Value* v) { return w.op("Unsqueeze", {v, w.ints({1})}); };
  Value* const pairs = w.op("Concat", {column(c.x(1)), column(w.shape_of(c.x(0)))}, {{"axis", int64_t{1}}});
  Value* const split = w.op("Reshape", {c.dy(), w.op("Reshape", {pairs, w.ints({-1})})}, {{"allowzero", int64_t{1}}});
  c.set(0, w.reshape_like(w.op("ReduceSum", {split, w.ints(even)}, {{"keepdims", int64_t{0}}}), c.x(0)));
}
const GradRegistration grads({{"Tile", "", grad}});

}  // namespace
}  // namespace tiercel

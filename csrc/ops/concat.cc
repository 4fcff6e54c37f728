// Concat: inputs one after the other along an axis.
#include "ops/grad.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

constexpr int64_t kShortRow = 4 << 10;  // bytes: parts of shorter rows often share cache lines

int64_t axis_of(const Node& node) { return node.attr_int("axis", 1); }  // a default before opset 4 only

// Elements of shape vectors: unknown ones become fresh symbols, so that the known ones stay known.
void carry_ints(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  if (t != DType::kInt64 && t != DType::kInt32) return;
  std::vector<Dim> all;
  bool any = false;
  for (int i = 0; i < ctx.num_inputs(); ++i) {
    const auto n = length_of(ctx, i);
    if (!n || *n + static_cast<int64_t>(all.size()) > kMaxKnownInts) return;
    if (const auto v = small_ints(ctx, i)) {
      all.insert(all.end(), v->begin(), v->end());
      any = true;
    } else {
      for (int64_t k = 0; k < *n; ++k) all.push_back(ctx.fresh());
    }
  }
  if (any) ctx.set_ints(0, std::move(all));
}

void infer(InferContext& ctx) {
  ctx.check(ctx.num_inputs() > 0, "at least one input is required");
  ctx.check(ctx.node.opset < 4 || ctx.node.has("axis"), "attribute 'axis' is required");
  const DType dtype = ctx.dtype(0);
  int rank = -1;
  for (int i = 0; i < ctx.num_inputs(); ++i) {
    ctx.check(ctx.dtype(i) == dtype, "input ", i, " is ", ctx.type(i), ": all inputs should have one element type");
    if (!ctx.ranked(i)) continue;
    if (rank < 0) rank = ctx.shape(i).rank();
    ctx.check(ctx.shape(i).rank() == rank, "input ", i, " has rank ", ctx.shape(i).rank(), ", another has ", rank);
  }
  if (rank < 0) return ctx.set_output(0, Type::tensor(dtype));
  ctx.check(rank > 0, "scalars cannot be concatenated");
  const int axis = ctx.axis(axis_of(ctx.node), rank);
  Shape r;
  int64_t sum = 0;
  bool ranked = true;
  std::vector<Dim> symbols;  // extents along the axis that are not known
  for (int i = 0; i < ctx.num_inputs(); ++i) {
    if (!ctx.ranked(i)) { ranked = false; continue; }
    const Shape& s = ctx.shape(i);
    if (r.rank() == 0) r = s;
    for (int k = 0; k < rank; ++k)
      if (k != axis) r[k] = unify(ctx, r[k], s[k], "extents off the axis of Concat");
    if (is_symbol(s[axis])) symbols.push_back(s[axis]);
    else ctx.check(!__builtin_add_overflow(sum, s[axis], &sum), "the result is too large");
  }
  if (ctx.num_inputs() > 1) {
    r[axis] = ranked ? sum : ctx.fresh();
    for (const Dim d : symbols) if (ranked) r[axis] = ctx.symbols().plus(r[axis], d);  // the past and the new, in a decoder
  }
  Type y = Type::tensor(dtype, r);
  for (int i = 0; i < ctx.num_inputs(); ++i) if (ctx.type(i).layout == Layout::kBlocked) y.layout = Layout::kBlocked;
  for (int i = 0; i < ctx.num_inputs() && y.layout == Layout::kBlocked; ++i)
    ctx.check(ctx.type(i).layout == y.layout && dtype == DType::kFloat && !is_symbol(ctx.shape(i)[1]), "blocked parts should all be blocked");
  ctx.set_output(0, y);
  if (rank == 1) carry_ints(ctx);
}

void prepare(PrepareContext& ctx) {
  if (ctx.num_inputs() == 1) return ctx.alias(0, 0);
  if (ctx.out_shape(0).count() == 0) return ctx.run([](const Args&, Worker&) {});  // other extents may be anything
  const Layout layout = ctx.out_layout(0);
  const Shape out = storage_shape(ctx.out_shape(0), layout);
  const int axis = normalize_axis(axis_of(ctx.node), ctx.out_shape(0).rank());
  const Element e(ctx.out_dtype(0));
  const int64_t outer = out.count(0, axis), inner = out.count(axis + 1, out.rank());
  move_cost(ctx);
  int64_t at = 0;
  if (layout == Layout::kBlocked && axis == 1) {
    RowCopies pieces(ctx.out_shape(0));
    for (int i = 0; i < ctx.num_inputs(); at += ctx.shape(i++)[1]) pieces.add_channels(i, ctx.shape(i), 0, 0, ctx.out_shape(0), at, ctx.shape(i)[1]);
    return ctx.run([pieces = std::move(pieces)](const Args& a, Worker& w) { pieces.run(a, w); });
  }
  const int64_t row = out[axis] * inner * e.size;
  if (!e.string && row <= kShortRow && outer > 1) {
    RowCopies pieces(1, outer);
    for (int i = 0; i < ctx.num_inputs(); ++i) {
      const int64_t bytes = storage_shape(ctx.shape(i), layout)[axis] * inner * e.size;
      if (bytes) pieces.add(i, {0, bytes, 0}, 0, {at, row, 0}, bytes);
      at += bytes;
    }
    return ctx.run([pieces = std::move(pieces)](const Args& a, Worker& w) { pieces.run(a, w); });
  }
  CopyList copies;
  for (int i = 0; i < ctx.num_inputs(); ++i) {
    const int64_t run = storage_shape(ctx.shape(i), layout)[axis] * inner;
    copies.add(StridedCopy(e, {{outer, run, out[axis] * inner}, {run, 1, 1}}), i, 0, 0, at, e);
    at += run;
  }
  ctx.run([copies = std::move(copies)](const Args& a, Worker& w) { copies.run(a, w); });
}

const OpRegistration rows({{"Concat", "", 1, infer, sub_byte<prepare>, nullptr, kAnyLayout}});

void grad(GradContext& c) {
  const int64_t axis = c.axis(c.node.attr_int("axis", 1), c.rank(c.y()));
  std::vector<Value*> sizes;
  for (Value* x : c.node.inputs) sizes.push_back(c.w.op("Shape", {x}, {{"start", axis}, {"end", axis + 1}}));
  Value* const split = sizes.size() == 1 ? sizes[0] : c.w.op("Concat", sizes, {{"axis", int64_t{0}}});
  const std::vector<Value*> parts = c.w.ops("Split", {c.dy(), split}, static_cast<int>(sizes.size()), {{"axis", axis}});
  for (size_t i = 0; i < parts.size(); ++i) c.set(static_cast<int>(i), parts[i]);
}
const GradRegistration grads({{"Concat", "", grad}});

}  // namespace
}  // namespace tiercel

// Max, Min, Sum and Mean of one or more tensors, broadcast (from opset 8).
#include "kernels/pointwise/binary.h"
#include "ops/elementwise.h"

namespace tiercel {
namespace {

template <Binary B, bool mean> void infer(InferContext& ctx) {
  ctx.check(ctx.num_inputs() > 0, "at least one input is required");
  const DType t = ctx.dtype(0);
  check_dtype(ctx, 0, is_arithmetic(t) && (B != Binary::kAdd || is_float(t)), B == Binary::kAdd ? "a tensor of floats" : "a numeric tensor");
  bool ranked = ctx.ranked(0);
  Layout layout = ctx.type(0).layout;
  for (int i = 1; i < ctx.num_inputs(); ++i) {
    if (ctx.dtype(i) != t) ctx.fail("all inputs should have the same type");
    ranked = ranked && ctx.ranked(i);
    if (ctx.type(i).layout == Layout::kBlocked) layout = Layout::kBlocked;
  }
  if (!ranked) return ctx.set_output(0, Type::tensor(t));
  Shape out = ctx.shape(0);
  for (int i = 1; i < ctx.num_inputs(); ++i) {
    if (ctx.node.opset < 8) {
      ctx.check(out.rank() == ctx.shape(i).rank(), "all shapes should be equal before opset 8");
      for (int d = 0; d < out.rank(); ++d) out[d] = unify(ctx, out[d], ctx.shape(i)[d], "extents of the inputs before opset 8");
    } else {
      out = broadcast_shapes(ctx, out, ctx.shape(i));
    }
  }
  if (layout == Layout::kBlocked)
    for (int i = 0; i < ctx.num_inputs(); ++i) {
      const auto b = blocked_operand(ctx.type(i), out);
      ctx.check(b && !b->rows, "these operands cannot be combined in the blocked layout");
    }
  ctx.set_output(0, Type::tensor(t, out, layout));
  if (is_integer(t))
    carry_ints(ctx, [&](const auto& v) {
      Dim r = v[0];
      for (Dim d : v) {
        if (d == r) continue;
        if (is_symbol(d) || is_symbol(r)) return ctx.fresh();
        r = B == Binary::kMin ? std::min(r, d) : std::max(r, d);
      }
      return r;
    });
}

template <Binary B, bool mean> void prepare(PrepareContext& ctx) {
  const int k = ctx.num_inputs();
  const DType t = ctx.dtype(0), compute = compute_dtype(t);
  if (k == 1) return ctx.alias(0, 0);
  const Layout layout = ctx.out_layout(0);
  std::vector<Shape> shapes;
  bool scalar = false;  // then the padding of a blocked layout is not zero
  for (int i = 0; i < k; ++i) {
    shapes.push_back(layout == Layout::kPlain ? ctx.shape(i) : blocked_operand(Type::tensor(t, ctx.shape(i), ctx.layout(i)), ctx.out_shape(0))->shape);
    scalar |= ctx.layout(i) == Layout::kPlain;
  }
  Loops loops(storage_shape(ctx.out_shape(0), layout), shapes, std::vector<int>(k, element_bytes(t)));
  const Convert load(t, compute), store(compute, t);
  if (load) for (int i = 0; i < k; ++i) loops.load_as(i, load, element_bytes(compute));
  const BinaryFn f = binary_fn(B, compute), divide = binary_fn(Binary::kDiv, compute);
  const int bytes = element_bytes(t), tile_bytes = element_bytes(compute);
  const bool clear = layout == Layout::kBlocked && scalar;
  run_elementwise(ctx, loops.count(), k, [=, shape = ctx.out_shape(0)](const Args& args, int64_t begin, int64_t end) {
    TileBuffer a, b, sum;
    loops.for_tiles(begin, end, kTile, [&](const Loops::Tile& tile) {
      char* const y = args.out<char>(0) + tile.begin * bytes;
      void* const to = store ? static_cast<void*>(sum.data) : y;
      const void* p = loops.fetch(0, args.in(0), tile, a);
      for (int i = 1; i < k; ++i) {
        f(p, loops.fetch(i, args.in(i), tile, b), to, tile.n);
        p = to;
      }
      if (mean) {
        const float n32 = static_cast<float>(k);
        const double n64 = k;
        fill_tile(b.data, compute == DType::kFloat ? static_cast<const void*>(&n32) : &n64, tile_bytes, tile.n);
        b.filled_for = -1;
        divide(to, b.data, to, tile.n);
      }
      if (store) store(to, y, tile.n);
    });
    if (clear) clear_padding(args.out<float>(0), shape, begin, end);
  });
}

static const OpRegistration rows({
    {"Max", "", 1, infer<Binary::kMax, false>, prepare<Binary::kMax, false>, nullptr, kAnyLayout},
    {"Min", "", 1, infer<Binary::kMin, false>, prepare<Binary::kMin, false>, nullptr, kAnyLayout},
    {"Sum", "", 1, infer<Binary::kAdd, false>, prepare<Binary::kAdd, false>, nullptr, kAnyLayout},
    {"Mean", "", 1, infer<Binary::kAdd, true>, prepare<Binary::kAdd, true>, nullptr, kAnyLayout},
});

}  // namespace
}  // namespace tiercel

// Where(condition, x, y): x where the condition holds, else y; all three broadcast. Any dtype.
#include "kernels/pointwise/binary.h"
#include "ops/elementwise.h"
#include "ops/grad.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_dtype(ctx, 0, ctx.dtype(0) == DType::kBool, "tensor(bool)");
  const DType t = ctx.dtype(1);
  if (t != ctx.dtype(2)) ctx.fail("inputs 1 and 2 should have the same type");
  check_dtype(ctx, 1, bits_of(t) >= 8, "a tensor of whole-byte elements or strings");
  if (!ctx.ranked(0) || !ctx.ranked(1) || !ctx.ranked(2)) return ctx.set_output(0, Type::tensor(t));
  for (int i = 0; i < 3; ++i) ctx.check(ctx.type(i).layout == Layout::kPlain, "the blocked layout is not supported");
  ctx.set_output(0, t, broadcast_shapes(ctx, ctx.shape(0), broadcast_shapes(ctx, ctx.shape(1), ctx.shape(2))));
  carry_ints(ctx, [&](const auto& v) {
    if (v[1] == v[2]) return v[1];
    return is_symbol(v[0]) ? ctx.fresh() : v[0] ? v[1] : v[2];
  });
}

void prepare(PrepareContext& ctx) {
  const DType t = ctx.dtype(1);
  const int bytes = element_bytes(t);
  const Loops loops(ctx.out_shape(0), {ctx.shape(0), ctx.shape(1), ctx.shape(2)}, {1, bytes, bytes});
  if (t == DType::kString) {
    ctx.serial();
    ctx.run([loops](const Args& args, Worker& worker) {
      if (worker.index() != 0) return;
      loops.for_offsets([&](int64_t i, const int64_t* at) {
        args.out<std::string>(0)[i] = args.in<bool>(0)[at[0]] ? args.in<std::string>(1)[at[1]] : args.in<std::string>(2)[at[2]];
      });
    });
    return;
  }
  for (int i = 1; i < 3; ++i) if (ctx.shape(i) == ctx.out_shape(0)) ctx.inplace(0, i);
  const int64_t most = loops.direct(false, false) ? loops.count() : kTileBytes / std::max(bytes, 8);
  run_elementwise(ctx, loops.count(), 1, [=, f = select_fn(bytes)](const Args& args, int64_t begin, int64_t end) {
    TileBuffer c, x, y;
    loops.for_tiles(begin, end, most, [&](const Loops::Tile& tile) {
      const void* pc = loops.fetch(0, args.in(0), tile, c);
      const void* px = loops.fetch(1, args.in(1), tile, x);
      f(pc, px, loops.fetch(2, args.in(2), tile, y), args.out<char>(0) + tile.begin * bytes, tile.n);
    });
  });
}

static const OpRegistration rows({{"Where", "", 9, infer, prepare}});

static const GradRegistration grads({{"Where", "", [](GradContext& c) {
  Value* const zero = c.w.scalar_like(0, c.dy());
  if (c.wants(1)) c.set_summed(1, c.w.op("Where", {c.x(0), c.dy(), zero}));
  if (c.wants(2)) c.set_summed(2, c.w.op("Where", {c.x(0), zero, c.dy()}));
}}});

}  // namespace
}  // namespace tiercel

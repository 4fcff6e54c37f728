// Attention of ONNX, opset 23 on: its types. It never runs: the pass expand_attention rewrites it at every optimisation level.
#include "ops/registry.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  for (int i : {1, 2}) ctx.check(ctx.dtype(i) == ctx.dtype(0), "Q, K and V should have one type");
  const DType t = ctx.dtype(0);
  for (int i = 0; i < ctx.num_outputs(); ++i) ctx.set_output(i, Type::tensor(t));
  if (!ctx.ranked(0) || !ctx.ranked(1) || !ctx.ranked(2)) return;
  const Shape &q = ctx.shape(0), &k = ctx.shape(1), &v = ctx.shape(2);
  ctx.check((q.rank() == 3 || q.rank() == 4) && k.rank() == q.rank() && v.rank() == q.rank(), "Q, K and V should all have rank 3 or 4");
  const int64_t h = ctx.node.attr_int("q_num_heads", 0), g = ctx.node.attr_int("kv_num_heads", 0);
  const bool three = q.rank() == 3;
  ctx.check(!three || (h > 0 && g > 0), "of rank 3 needs q_num_heads and kv_num_heads");
  const auto each = [&](Dim all, int64_t heads) { return is_symbol(all) ? ctx.fresh() : all / heads; };
  const Dim depth = three ? each(v[2], g) : v[3];
  if (three) ctx.set_output(0, t, {q[0], q[1], is_symbol(depth) ? ctx.fresh() : h * depth});
  else ctx.set_output(0, t, {q[0], q[1], q[2], depth});
  const auto present = [&](int past, const Shape& s) {
    const Dim now = three ? s[1] : s[2];
    const Dim rows = !ctx.has_input(past) ? now : ctx.fresh();
    return Shape{s[0], three ? g : s[1], rows, three ? each(s[2], g) : s[3]};
  };
  ctx.set_output(1, t, present(4, k));
  ctx.set_output(2, t, present(5, v));
  ctx.set_output(3, t, {q[0], three ? h : q[1], three ? q[1] : q[2], ctx.fresh()});
}

void prepare(PrepareContext& ctx) { ctx.fail("this form is not supported: extents of heads and depth should be known"); }

const OpRegistration rows({{"Attention", "", 23, infer, prepare}});

}  // namespace
}  // namespace tiercel

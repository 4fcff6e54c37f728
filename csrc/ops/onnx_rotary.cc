// RotaryEmbedding of ONNX, opset 23 on: its type. It never runs: the pass expand_rotary rewrites it at every optimisation level.
#include "ops/registry.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  for (int i : {1, 2}) ctx.check(ctx.dtype(i) == ctx.dtype(0), "the caches should have the type of X");
  if (ctx.ranked(0)) {
    const Shape& x = ctx.shape(0);
    ctx.check(x.rank() == 3 || x.rank() == 4, "X should have rank 3 or 4");
    ctx.check(x.rank() == 4 || ctx.node.attr_int("num_heads", 0) > 0, "X of rank 3 needs num_heads");
  }
  ctx.set_output(0, ctx.type(0));
}

void prepare(PrepareContext& ctx) {
  ctx.fail("this form is not supported: the depth of X should be known, a multiple of num_heads, and the part that is turned even");
}

const OpRegistration rows({{"RotaryEmbedding", "", 23, infer, prepare}});

}  // namespace
}  // namespace tiercel

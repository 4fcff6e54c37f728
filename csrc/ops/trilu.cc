// Trilu: the upper or lower triangle of each matrix from diagonal k on, zeros elsewhere.
#include "ops/grad.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  ctx.input(0);
  if (ctx.ranked(0)) ctx.check(ctx.shape(0).rank() >= 2, "the input should have rank 2 at least");
  if (ctx.has_input(1)) {
    ctx.check(ctx.dtype(1) == DType::kInt64, "k should be int64");
    ctx.check(!ctx.ranked(1) || !ctx.shape(1).known() || ctx.shape(1).count() == 1, "k should be a scalar");
  }
  ctx.set_output(0, ctx.type(0));
}

void prepare(PrepareContext& ctx) {
  const Shape& s = ctx.shape(0);
  const Element e(ctx.dtype(0));
  const int64_t rows = s[s.rank() - 2], cols = s.back(), total = s.count(0, s.rank() - 1);
  const bool upper = ctx.node.attr_int("upper", 1) != 0, given = ctx.has_input(1);
  Tensor zero(ctx.dtype(0), {});
  if (!e.string) std::memset(zero.data(), 0, static_cast<size_t>(zero.bytes()));
  ctx.inplace(0, 0);
  move_cost(ctx);
  ctx.run([=](const Args& a, Worker& w) {
    const int64_t k = given ? std::clamp(*a.in<int64_t>(1), -rows - 1, cols + 1) : 0;
    w.parallel_for(total, move_grain(cols * e.size), [&](int64_t b, int64_t end) {
      for (int64_t r = b; r < end; ++r) {
        // upper keeps columns from `edge` on, lower those before it
        const int64_t edge = std::clamp<int64_t>(r % rows + k + (upper ? 0 : 1), 0, cols);
        const int64_t keep = upper ? edge : 0, kept = upper ? cols - edge : edge;
        char* to = offset(a.out(0), r * cols, e);
        const char* from = offset(a.in(0), r * cols, e);
        if (to != from) copy_elements(e, offset(to, keep, e), offset(from, keep, e), kept);
        fill_elements(e, upper ? to : offset(to, edge, e), zero.data(), cols - kept);
      }
    });
  });
}

const OpRegistration rows({{"Trilu", "", 14, infer, sub_byte<prepare>}});

const GradRegistration grads({{"Trilu", "", [](GradContext& c) {
  std::vector<Value*> in{c.dy()};
  if (c.x(1)) in.push_back(c.x(1));
  c.set(0, c.w.op("Trilu", in, {{"upper", c.node.attr_int("upper", 1)}}));
}}});

}  // namespace
}  // namespace tiercel

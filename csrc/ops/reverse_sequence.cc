// ReverseSequence: the first sequence_lens[b] steps of batch entry b in reverse order, the rest as they are.
#include "ops/grad.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  ctx.input(0);
  ctx.check(ctx.dtype(1) == DType::kInt64, "sequence_lens should be int64");
  const int64_t batch = ctx.node.attr_int("batch_axis", 1), time = ctx.node.attr_int("time_axis", 0);
  ctx.check((batch == 0 && time == 1) || (batch == 1 && time == 0), "batch_axis and time_axis should be 0 and 1 in some order, got ",
            batch, " and ", time);
  if (ctx.ranked(0)) {
    ctx.check(ctx.shape(0).rank() >= 2, "the input should have rank 2 at least");
    if (ctx.ranked(1)) {
      ctx.check(ctx.shape(1).rank() == 1, "sequence_lens should be a 1-D tensor");
      unify(ctx, ctx.shape(0)[static_cast<int>(batch)], ctx.shape(1)[0], "the batch and the length of sequence_lens");
    }
  }
  ctx.set_output(0, ctx.type(0));
}

void prepare(PrepareContext& ctx) {
  const Shape& s = ctx.shape(0);
  const bool batch_first = ctx.node.attr_int("batch_axis", 1) == 0;
  const int64_t inner = s.count(2, s.rank()), time = s[batch_first ? 1 : 0], second = s[1];
  const Element e(ctx.dtype(0));
  move_cost(ctx);
  ctx.run([=, rows = s[0] * s[1], label = ctx.node.label()](const Args& a, Worker& w) {
    w.parallel_for(rows, move_grain(inner * e.size), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t i = r / second, j = r % second, b = batch_first ? i : j, t = batch_first ? j : i;
        const int64_t length = a.in<int64_t>(1)[b];
        if (length < 0 || length > time)
          fail(Code::kInvalidArgument, label, ": sequence length ", length, " is outside [0, ", time, "]");
        const int64_t from = t < length ? length - 1 - t : t;
        copy_elements(e, offset(a.out(0), r * inner, e),
                      offset(a.in(0), (batch_first ? b * time + from : from * second + b) * inner, e), inner);
      }
    });
  });
}

const OpRegistration rows({{"ReverseSequence", "", 10, infer, sub_byte<prepare>}});

const GradRegistration grads({{"ReverseSequence", "", [](GradContext& c) {
  c.set(0, c.w.op("ReverseSequence", {c.dy(), c.x(1)},
                  {{"batch_axis", c.node.attr_int("batch_axis", 1)}, {"time_axis", c.node.attr_int("time_axis", 0)}}));
}}});

}  // namespace
}  // namespace tiercel

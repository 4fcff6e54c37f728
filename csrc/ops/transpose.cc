// Transpose: output axis i is input axis perm[i].
#include "ops/grad.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  ctx.input(0);
  const auto perm = ctx.node.attr_ints("perm");
  const bool given = ctx.node.has("perm") && !perm.empty();
  const auto n = static_cast<int64_t>(perm.size());
  ctx.check(n <= kMaxRank, "perm has ", n, " entries; at most ", kMaxRank, " are supported");
  bool seen[kMaxRank] = {};
  for (const int64_t p : perm) {
    ctx.check(p >= 0 && p < n && !seen[p], "perm is not a permutation of 0 to ", n - 1, ": it has ", p);
    seen[p] = true;
  }
  if (!ctx.ranked(0)) {
    if (given) return ctx.set_output(0, ctx.dtype(0), fresh_shape(ctx, static_cast<int>(n)));
    return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  }
  const Shape& s = ctx.shape(0);
  Shape r = s;
  if (!given) {
    std::reverse_copy(s.begin(), s.end(), &r[0]);
  } else {
    ctx.check(n == s.rank(), "perm has ", n, " entries for an input of rank ", s.rank());
    for (int i = 0; i < s.rank(); ++i) r[i] = s[static_cast<int>(perm[static_cast<size_t>(i)])];
  }
  ctx.set_output(0, ctx.dtype(0), r);
  if (s.rank() <= 1)
    if (auto v = small_ints(ctx, 0)) ctx.set_ints(0, std::move(*v));
}

void prepare(PrepareContext& ctx) {
  const Shape& s = ctx.shape(0);
  auto perm = ctx.node.attr_ints("perm");
  if (perm.empty()) for (int i = s.rank() - 1; i >= 0; --i) perm.push_back(i);
  int64_t last = -1;
  bool in_order = true;  // but for axes of extent 1
  for (int64_t p : perm) {
    if (s[static_cast<int>(p)] == 1) continue;
    in_order = in_order && p > last;
    last = p;
  }
  if (in_order || s.count() == 0) return ctx.alias(0, 0);
  const Element e(ctx.dtype(0));
  const Strides in = strides_of(s), out = strides_of(ctx.out_shape(0));
  std::vector<StridedCopy::Axis> axes;
  for (int i = 0; i < s.rank(); ++i) axes.push_back({ctx.out_shape(0)[i], in[static_cast<size_t>(perm[static_cast<size_t>(i)])], out[static_cast<size_t>(i)]});
  move_cost(ctx);
  ctx.run([copy = StridedCopy(e, axes)](const Args& a, Worker& w) { copy.run(a.in(0), a.out(0), w); });
}

const OpRegistration rows({{"Transpose", "", 1, infer, sub_byte<prepare>}});

void grad(GradContext& c) {
  const int rank = c.rank(c.x(0));
  std::vector<int64_t> perm = c.node.attr_ints("perm"), back(static_cast<size_t>(rank));
  for (int i = 0; i < rank; ++i) back[static_cast<size_t>(perm.empty() ? rank - 1 - i : perm[static_cast<size_t>(i)])] = i;
  c.set(0, c.w.op("Transpose", {c.dy()}, {{"perm", back}}));
}
const GradRegistration grads({{"Transpose", "", grad}});

}  // namespace
}  // namespace tiercel

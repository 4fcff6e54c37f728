// ai.tiercel.Attention: y = softmax(scale Q K^T + mask) V, head by head ("Attention Is All You Need", Vaswani et al. 2017).
//
// Inputs: Q [B,H,S,D], K [B,G,T,D], V [B,G,T,E] (H a multiple of G: grouped queries; a batch of 1 broadcasts), mask broadcastable to
// [B,H,S,T] (or stretching extents of 1 there), added after the scale. Attributes q_layout, k_layout, v_layout, y_layout: "BHSD", or
// "BSHD" or "SBHD" where heads lie inside a row, as the projections write and read them. Scores of a block of rows are computed,
// exponentiated and multiplied by V while they are in cache; they never exist as a tensor.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "base/memory.h"
#include "kernels/attention/attention.h"
#include "kernels/gemm/gemm.h"
#include "ops/registry.h"

namespace tiercel {
namespace {

enum class Order { kHeads, kRows, kRowsOutside };  // BHSD, BSHD, SBHD

Order order_of(const Node& node, const char* attribute) {
  const std::string layout = node.attr_string(attribute, "BHSD");
  if (layout != "BHSD" && layout != "BSHD" && layout != "SBHD")
    fail(Code::kInvalidGraph, node.label(), ": ", attribute, " should be BHSD, BSHD or SBHD, got \"", layout, "\"");
  return layout == "BHSD" ? Order::kHeads : layout == "BSHD" ? Order::kRows : Order::kRowsOutside;
}

// [batch, heads, rows, depth] whatever the order, and back.
Shape logical(const Shape& s, Order o) {
  return o == Order::kHeads ? s : o == Order::kRows ? Shape{s[0], s[2], s[1], s[3]} : Shape{s[1], s[2], s[0], s[3]};
}
Shape physical(const Shape& s, Order o) {
  return o == Order::kHeads ? s : o == Order::kRows ? Shape{s[0], s[2], s[1], s[3]} : Shape{s[2], s[0], s[1], s[3]};
}

void infer(InferContext& ctx) {
  for (int i = 0; i < 3; ++i) {
    ctx.check(ctx.dtype(i) == DType::kFloat, "input ", i, " should be float");
    if (!ctx.ranked(i)) return ctx.set_output(0, Type::tensor(DType::kFloat));
    ctx.check(ctx.shape(i).rank() == 4, "input ", i, " should have 4 dimensions, got ", ctx.shape(i).str());
  }
  const Shape q = logical(ctx.shape(0), order_of(ctx.node, "q_layout")), k = logical(ctx.shape(1), order_of(ctx.node, "k_layout")),
              v = logical(ctx.shape(2), order_of(ctx.node, "v_layout"));
  const Dim batch = broadcast_shapes(ctx, {q[0]}, broadcast_shapes(ctx, {k[0]}, {v[0]}))[0];
  unify(ctx, q[3], k[3], "depths of Q and K");
  unify(ctx, k[1], v[1], "heads of K and V");
  unify(ctx, k[2], v[2], "rows of K and V");
  if (!is_symbol(q[1]) && !is_symbol(k[1]))
    ctx.check(k[1] > 0 ? q[1] % k[1] == 0 : q[1] == 0, "heads of Q (", q[1], ") should be a multiple of those of K (", k[1], ")");
  Shape y{batch, q[1], q[2], k[2]};  // the scores, which a mask may stretch: to more batches, heads or rows
  if (ctx.has_input(3)) {
    ctx.check(ctx.dtype(3) == DType::kFloat, "the mask should be float");
    if (!ctx.ranked(3)) return ctx.set_output(0, DType::kFloat, Shape{ctx.fresh(), ctx.fresh(), ctx.fresh(), ctx.fresh()});
    const Shape scores = y;
    y = broadcast_shapes(ctx, scores, ctx.shape(3));
    ctx.check(y.rank() == 4, "the mask should broadcast to ", scores.str());
    if (ctx.shape(3).rank() > 0 && !is_symbol(ctx.shape(3).back()) && ctx.shape(3).back() != 1)
      unify(ctx, ctx.shape(3).back(), k[2], "columns of the mask and rows of K");
  }
  y[3] = v[3];
  ctx.set_output(0, DType::kFloat, physical(y, order_of(ctx.node, "y_layout")));
}

// Floats from one head, one row and one batch to the next.
struct Strides {
  int64_t batch, head, row;
  Strides(const Shape& s, Order o) : batch(s.count(1, 4)), head(o == Order::kHeads ? s[2] * s[3] : s[3]), row(s[3]) {
    if (o == Order::kRows) row = s[2] * s[3];
    if (o == Order::kRowsOutside) std::tie(batch, row) = std::pair(s[2] * s[3], s.count(1, 4));
    if (logical(s, o)[0] == 1) batch = 0;  // broadcasts
  }
  int64_t at(int64_t b, int64_t h) const { return b * batch + h * head; }
};

struct Plan {
  int64_t batch, heads, groups, rows, keys, depth, out_depth;
  Strides q, k, v, y;
  int64_t mask_batch = 0, mask_head = 0, mask_row = 0, mask_col = 0;
  float scale = 1;
  bool nan_to_zero = false;
  int64_t block = 1;       // rows of Q of one task
  int64_t score_row = 0;   // floats between rows of scores
  int64_t key_floats = 0;  // of one packed head of K
  int64_t at_scores = 0, scratch = 0;  // workspace: packed keys, then each thread's scores and row factors
};

void prepare(PrepareContext& ctx) {
  const Order qi = order_of(ctx.node, "q_layout"), ki = order_of(ctx.node, "k_layout"), vi = order_of(ctx.node, "v_layout"),
             yi = order_of(ctx.node, "y_layout");
  const Shape q = logical(ctx.shape(0), qi), k = logical(ctx.shape(1), ki), v = logical(ctx.shape(2), vi);
  const Shape y = logical(ctx.out_shape(0), yi);
  Plan p{y[0], y[1], k[1], y[2], k[2], q[3], v[3], Strides(ctx.shape(0), qi), Strides(ctx.shape(1), ki), Strides(ctx.shape(2), vi),
         Strides(ctx.out_shape(0), yi)};
  if (y[1] != q[1]) p.q.head = 0;
  if (y[2] != q[2]) p.q.row = 0;
  p.scale = ctx.node.attr_float("scale", 1.0f / std::sqrt(static_cast<float>(std::max<int64_t>(p.depth, 1))));
  p.nan_to_zero = ctx.node.attr_int("nan_to_zero", 0) != 0;
  if (ctx.has_input(3)) {
    const Shape& m = ctx.shape(3);
    const int64_t extents[4] = {p.batch, p.heads, p.rows, p.keys};
    int64_t* const strides[4] = {&p.mask_batch, &p.mask_head, &p.mask_row, &p.mask_col};
    for (int64_t i = m.rank() - 1, stride = 1, axis = 3; i >= 0; --i, --axis) {
      *strides[axis] = m[static_cast<int>(i)] == extents[axis] && extents[axis] != 1 ? stride : 0;
      stride *= m[static_cast<int>(i)];
    }
    if (p.keys == 1) p.mask_col = 0;
  }
  constexpr int64_t kScoreFloats = 48 << 10;  // a task's scores: a part of L2
  p.block = std::clamp<int64_t>(kScoreFloats / std::max<int64_t>(p.keys, 1) / 12 * 12, 12, 96);
  p.block = ceil_div(p.rows, std::max<int64_t>(ceil_div(p.rows, p.block), 1));  // blocks as even as can be
  p.block = std::max<int64_t>(p.block, 1);
  p.score_row = round_up(p.keys, 16);
  p.key_floats = round_up(gemm_packed_floats(gemm(), p.depth, p.keys), 16);
  p.at_scores = p.batch * p.groups * p.key_floats;
  p.scratch = p.block * p.score_row + round_up(p.block, 16);
  ctx.workspace((p.at_scores + ctx.threads() * p.scratch) * static_cast<int64_t>(sizeof(float)));
  const double products = 2.0 * p.batch * p.heads * p.rows * p.keys;
  ctx.cost(products * (p.depth + p.out_depth + 10), 4.0 * (p.batch * p.heads * p.rows * (p.depth + p.out_depth) + p.batch * p.groups * p.keys * (p.depth + p.out_depth)));
  ctx.run([p](const Args& a, Worker& w) {
    const float *Q = a.in<float>(0), *K = a.in<float>(1), *V = a.in<float>(2), *mask = a.in<float>(3);
    float *y = a.out<float>(0), *packed = a.workspace<float>(), *scores = packed + p.at_scores + w.index() * p.scratch;
    float* factors = scores + p.block * p.score_row;
    w.parallel_for(p.batch * p.groups, 1, [&](int64_t i, int64_t) {
      gemm().pack_b(K + p.k.at(i / p.groups, i % p.groups), 1, p.k.row, p.depth, p.keys, 0, p.keys, packed + i * p.key_floats);
    });
    w.barrier();
    const int64_t blocks = ceil_div(p.rows, p.block);
    w.parallel_for(p.batch * p.heads * blocks, 1, [&](int64_t task, int64_t) {
      const int64_t head = task / blocks % p.heads, batch = task / blocks / p.heads, group = head / (p.heads / p.groups);
      const int64_t first = task % blocks * p.block, rows = std::min(p.block, p.rows - first);
      const float* q = Q + p.q.at(batch, head) + first * p.q.row;
      const float* k = packed + (batch * p.groups + group) * p.key_floats;
      GemmArgs g;
      g.m = rows;
      g.n = p.keys;
      g.k = p.depth;
      g.a = &q;
      g.a_row = p.q.row;
      g.b = &k;
      g.c = scores;
      g.c_row = p.score_row;
      gemm().gemm(g);
      const float* m = mask ? mask + batch * p.mask_batch + head * p.mask_head + first * p.mask_row : nullptr;
      attention().weights(scores, p.score_row, rows, p.keys, p.scale, m, p.mask_row, p.mask_col, p.nan_to_zero, factors);
      const float *s = scores, *v = V + p.v.at(batch, group);
      GemmArgs out;
      out.m = rows;
      out.n = p.out_depth;
      out.k = p.keys;
      out.a = &s;
      out.a_row = p.score_row;
      out.b = &v;
      out.b_row = p.v.row;
      out.c = y + p.y.at(batch, head) + first * p.y.row;
      out.c_row = p.y.row;
      gemm().gemm(out);
      attention().scale_rows(out.c, p.y.row, rows, p.out_depth, factors);
    });
  });
}

static const OpRegistration rows({{"Attention", kTiercelDomain, 1, infer, prepare}});

}  // namespace
}  // namespace tiercel

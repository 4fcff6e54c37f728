// com.microsoft.GroupQueryAttention: causal, with a cache that is longer for some batches than for others.
// passes/expand_microsoft_grouped.cc rewrites it.
#include "ops/grad.h"
#include "ops/microsoft.h"

namespace tiercel {
namespace {

// Inputs: query, key, value, past_key?, past_value?, last rows of the keys, total length, cosines?, sines?, position_ids?, attention_bias?
void infer(InferContext& ctx) {
  constexpr int kLast = 5, kTotal = 6, kCos = 7, kSin = 8, kIds = 9, kBias = 10;
  check_real(ctx, 0);
  const DType t = ctx.dtype(0);
  const int64_t heads = ctx.node.attr_int("num_heads", 0), groups = ctx.node.attr_int("kv_num_heads", 0);
  ctx.check(heads > 0 && heads <= 1 << 20, "num_heads should be positive, got ", heads);
  ctx.check(groups > 0 && groups <= heads && heads % groups == 0, "kv_num_heads should divide num_heads ", heads, ", got ", groups);
  ctx.check(ctx.has_input(1) && ctx.has_input(2), "packed queries, keys and values are not supported: key and value are required");
  for (int i : {1, 2, 3, 4, kCos, kSin, kBias})
    if (ctx.has_input(i)) ctx.check(ctx.dtype(i) == t, "input ", i, " should have the type of the query");
  for (int i : {kLast, kTotal}) ctx.check(is_index(ctx.dtype(i)), "input ", i, " should be int32");
  for (int i : {0, 1, 2}) check_rank(ctx, i, 3, 3, "query, key and value");
  for (int i : {3, 4}) check_rank(ctx, i, 4, 4, "the cache");
  check_rank(ctx, kLast, 1, 2, "seqlens_k");
  check_rank(ctx, kBias, 4, 4, "attention_bias");
  check_rank(ctx, kIds, 2, 2, "position_ids");
  ctx.check(ctx.has_input(3) == ctx.has_input(4), "past_key and past_value go together");
  ctx.check(ctx.node.attr_int("smooth_softmax", 0) <= 0 && !ctx.has_input(11), "smooth_softmax and head_sink are not supported");
  ctx.check(!ctx.has_output(3), "scores as an output are not supported");
  if (ctx.node.attr_int("do_rotary", 0)) ctx.check(ctx.has_input(kCos) && ctx.has_input(kSin), "do_rotary requires cos_cache and sin_cache");
  for (int i = 0; i < 3; ++i) ctx.set_output(i, Type::tensor(t));
  if (!ctx.ranked(0) || !ctx.ranked(1) || !ctx.ranked(2)) return;
  const Shape &q = ctx.shape(0), &k = ctx.shape(1), &v = ctx.shape(2);
  const Dim depth = head_size(ctx, q[2], heads, "the query"), kd = head_size(ctx, k[2], groups, "the key", "kv_num_heads"),
            vd = head_size(ctx, v[2], groups, "the value", "kv_num_heads");
  if (!is_symbol(depth) && !is_symbol(kd)) unify(ctx, depth, kd, "sizes of the heads of query and key");
  if (!is_symbol(kd) && !is_symbol(vd)) unify(ctx, kd, vd, "sizes of the heads of key and value");
  for (int axis : {0, 1})
    unify(ctx, unify(ctx, q[axis], k[axis], "batches or rows of query and key"), v[axis], "batches or rows of key and value");
  for (int i : {3, 4}) {
    if (!ctx.has_input(i) || !ctx.ranked(i)) continue;
    const Shape& past = ctx.shape(i);
    unify(ctx, past[0], q[0], "batches of the query and the cache");
    unify(ctx, past[1], groups, "heads of the key and the cache");
    if (!is_symbol(kd)) unify(ctx, past[3], kd, "sizes of the heads of the key and the cache");
  }
  if (ctx.ranked(kLast)) unify(ctx, ctx.shape(kLast)[0], q[0], "batches of the query and seqlens_k");
  ctx.set_output(0, t, {q[0], q[1], is_symbol(vd) ? ctx.fresh() : heads * vd});
  const Dim rows = ctx.fresh();
  for (int i : {1, 2}) ctx.set_output(i, t, {q[0], groups, rows, i == 1 ? kd : vd});
}

const OpRegistration rows({{"GroupQueryAttention", kMicrosoftDomain, 1, infer, not_rewritten}});

const GradRegistration grads({{"GroupQueryAttention", kMicrosoftDomain, grad_rewritten}});

}  // namespace
}  // namespace tiercel

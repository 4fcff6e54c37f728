// com.microsoft: MultiHeadAttention, Attention (with the weights of its projection), GroupQueryAttention.
// passes/expand_microsoft_attention.cc rewrites them.
#include "ops/grad.h"
#include "ops/microsoft.h"

namespace tiercel {
namespace {

constexpr int64_t kMostHeads = 1 << 20;

int64_t heads_of(const InferContext& ctx, const char* attribute) {
  const int64_t heads = ctx.node.attr_int(attribute, 0);
  ctx.check(heads > 0 && heads <= kMostHeads, attribute, " should be positive, got ", heads);
  return heads;
}

void check_same_type(const InferContext& ctx, std::initializer_list<int> inputs, DType t) {
  for (int i : inputs) if (ctx.has_input(i)) ctx.check(ctx.dtype(i) == t, "input ", i, " should have the type of the query");
}

// Lengths of 1 axis, or a mask of 2 or 3, of batches and keys.
void check_mask(const InferContext& ctx, int i, Dim batch) {
  if (!ctx.has_input(i)) return;
  ctx.check(ctx.dtype(i) == DType::kInt32 || ctx.dtype(i) == DType::kInt64, "the mask should be int32");
  check_rank(ctx, i, 1, 3, "the mask");
  if (!ctx.ranked(i)) return;
  const Dim n = ctx.shape(i)[0];
  if (is_symbol(n) || is_symbol(batch)) return;
  if (ctx.shape(i).rank() == 1)
    ctx.check(n == batch || n == 2 * batch || n == 3 * batch + 2, "a mask of one axis should have B, 2 B or 3 B + 2 elements for the batch B of ", batch, ", got ", n);
  else ctx.check(n == batch || n == 1, "the mask of shape ", ctx.shape(i), " does not fit the batch ", batch);
}

void check_bias(const InferContext& ctx, int i) { check_rank(ctx, i, 4, 4, "attention_bias"); }

// Rows of a cache [.., rows, size] of these heads joined to `fresh` more.
Dim joined(const InferContext& ctx, const Shape& past, int first, Dim batch, Dim heads, Dim fresh, Dim size) {
  unify(ctx, past[first], batch, "batches of the query and the cache");
  unify(ctx, past[first + 1], heads, "heads of the key and the cache");
  if (!is_symbol(size)) unify(ctx, past[first + 3], size, "sizes of the heads of the key or value and the cache");
  return is_symbol(past[first + 2]) || is_symbol(fresh) ? ctx.fresh() : past[first + 2] + fresh;
}

// Inputs: query, key, value, bias?, key_padding_mask?, attention_bias?, past_key?, past_value?
void infer_multi_head(InferContext& ctx) {
  check_real(ctx, 0);
  const DType t = ctx.dtype(0);
  const int64_t heads = heads_of(ctx, "num_heads");
  check_rank(ctx, 0, 3, 3, "the query (packed queries, keys and values are not supported)");
  ctx.check(ctx.has_input(1) && ctx.has_input(2), "packed queries, keys and values are not supported: key and value are required");
  for (int i : {1, 2}) check_rank(ctx, i, 3, 4, "the key or value (packed keys and values are not supported)");
  check_same_type(ctx, {1, 2, 3, 5, 6, 7}, t);
  check_rank(ctx, 3, 1, 1, "the bias");
  check_bias(ctx, 5);
  for (int i : {6, 7}) check_rank(ctx, i, 4, 4, "the cache");
  ctx.check(ctx.has_input(6) == ctx.has_input(7), "past_key and past_value go together");
  for (int i : {8, 9}) ctx.check(!ctx.has_input(i), "past_sequence_length and cache_indirection are not supported");
  ctx.check(!ctx.has_output(3), "scores as an output are not supported");
  for (int i = 0; i < 3; ++i) ctx.set_output(i, Type::tensor(t));
  if (!ctx.ranked(0) || !ctx.ranked(1) || !ctx.ranked(2)) return;
  const Shape &q = ctx.shape(0), &k = ctx.shape(1), &v = ctx.shape(2);
  ctx.check(k.rank() == v.rank(), "key and value should have one rank");
  const bool parted = k.rank() == 4;
  ctx.check(!parted || (!ctx.has_input(3) && !ctx.has_input(6)), "key and value of four axes exclude a bias and a cache");
  const Dim batch = unify(ctx, unify(ctx, q[0], k[0], "batches of query and key"), v[0], "batches of key and value");
  const Dim depth = head_size(ctx, q[2], heads, "the query");
  if (parted) unify(ctx, unify(ctx, k[1], heads, "heads of the key"), v[1], "heads of the value");
  const Dim kd = parted ? k[3] : head_size(ctx, k[2], heads, "the key"), vd = parted ? v[3] : head_size(ctx, v[2], heads, "the value");
  if (!is_symbol(depth) && !is_symbol(kd)) unify(ctx, depth, kd, "sizes of the heads of query and key");
  const Dim fresh = unify(ctx, k[parted ? 2 : 1], v[parted ? 2 : 1], "rows of key and value");
  if (ctx.has_input(3) && ctx.ranked(3) && !is_symbol(q[2]) && !is_symbol(k[2]) && !is_symbol(v[2]))
    unify(ctx, ctx.shape(3)[0], q[2] + k[2] + v[2], "the bias and the hidden sizes together");
  check_mask(ctx, 4, batch);
  Dim keys = fresh;
  for (int i : {6, 7}) if (ctx.has_input(i)) keys = ctx.ranked(i) ? joined(ctx, ctx.shape(i), 0, batch, heads, fresh, i == 6 ? kd : vd) : ctx.fresh();
  ctx.set_output(0, t, {batch, q[1], parted ? (is_symbol(vd) ? ctx.fresh() : heads * vd) : v[2]});
  ctx.set_output(1, t, {batch, heads, keys, kd});
  ctx.set_output(2, t, {batch, heads, keys, vd});
}

// Inputs: input, weights, bias?, mask_index?, past?, attention_bias?
void infer_attention(InferContext& ctx) {
  check_real(ctx, 0);
  const DType t = ctx.dtype(0);
  const int64_t heads = heads_of(ctx, "num_heads");
  ctx.check(ctx.has_input(1), "requires weights");
  check_same_type(ctx, {1, 2, 4, 5}, t);
  check_rank(ctx, 0, 3, 3, "the input");
  check_rank(ctx, 1, 2, 2, "the weights");
  check_rank(ctx, 2, 1, 1, "the bias");
  check_rank(ctx, 4, 5, 5, "the cache");
  check_bias(ctx, 5);
  ctx.check(!ctx.has_input(6) && ctx.node.attr_int("past_present_share_buffer", 0) == 0, "a cache shared with the output is not supported");
  ctx.check(ctx.node.attr_int("do_rotary", 0) == 0, "do_rotary is not supported");
  for (int i = 0; i < 2; ++i) ctx.set_output(i, Type::tensor(t));
  const std::vector<int64_t> sizes = ctx.node.attr_ints("qkv_hidden_sizes");
  ctx.check(sizes.empty() || sizes.size() == 3, "qkv_hidden_sizes should be three");
  for (int64_t s : sizes) ctx.check(s > 0 && s <= INT32_MAX, "qkv_hidden_sizes should be positive, got ", s);
  if (!ctx.ranked(0) || !ctx.ranked(1)) return;
  const Shape &x = ctx.shape(0), &w = ctx.shape(1);
  unify(ctx, x[2], w[0], "the last extent of the input and the rows of the weights");
  Dim value = ctx.fresh(), size = ctx.fresh();
  if (!sizes.empty()) {
    unify(ctx, w[1], sizes[0] + sizes[1] + sizes[2], "the columns of the weights and qkv_hidden_sizes together");
    unify(ctx, sizes[0], sizes[1], "the hidden sizes of query and key");
    head_size(ctx, sizes[0], heads, "the query");
    size = head_size(ctx, value = sizes[2], heads, "the value");
  } else if (!is_symbol(w[1])) {
    ctx.check(w[1] % 3 == 0, "the weights should have three times the hidden size of columns, got ", w[1]);
    size = head_size(ctx, value = w[1] / 3, heads, "the value");
  }
  if (ctx.has_input(2) && ctx.ranked(2)) unify(ctx, ctx.shape(2)[0], w[1], "the bias and the columns of the weights");
  check_mask(ctx, 3, x[0]);
  Dim keys = x[1];
  if (ctx.has_input(4)) {
    ctx.check(sizes.empty() || sizes[0] == sizes[2], "a cache requires equal sizes of key and value");
    keys = ctx.fresh();
    if (ctx.ranked(4)) {
      unify(ctx, ctx.shape(4)[0], 2, "a key and a value, and the cache");
      keys = joined(ctx, ctx.shape(4), 1, x[0], heads, x[1], size);
    }
  }
  ctx.set_output(0, t, {x[0], x[1], value});
  ctx.set_output(1, t, {2, x[0], heads, keys, size});
}

const OpRegistration rows({
    {"MultiHeadAttention", kMicrosoftDomain, 1, infer_multi_head, not_rewritten},
    {"Attention", kMicrosoftDomain, 1, infer_attention, not_rewritten},
});

const GradRegistration grads({{"MultiHeadAttention", kMicrosoftDomain, grad_rewritten}, {"Attention", kMicrosoftDomain, grad_rewritten}});

}  // namespace
}  // namespace tiercel

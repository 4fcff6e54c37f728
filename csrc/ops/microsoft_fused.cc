// com.microsoft: BiasGelu, FastGelu, FusedConv, EmbedLayerNormalization, RotaryEmbedding. passes/expand_microsoft.cc rewrites them.
#include "ops/grad.h"
#include "ops/microsoft.h"

namespace tiercel {
namespace {

// x + bias, then Gelu; BiasGelu requires the bias.
void infer_bias_gelu(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.check(ctx.node.op_type != "BiasGelu" || ctx.has_input(1), "requires a bias");
  ctx.set_output(0, ctx.type(0));
  if (!ctx.has_input(1)) return;
  ctx.check(ctx.dtype(1) == ctx.dtype(0), "X and the bias should have one type");
  check_rank(ctx, 1, 1, 1, "the bias");
  if (!ctx.ranked(0) || !ctx.ranked(1)) return;
  ctx.check(ctx.shape(0).rank() >= 1, "X should have an axis for the bias");
  unify(ctx, ctx.shape(0).back(), ctx.shape(1)[0], "the last extent of X and the bias");
}

// Inputs X, W, B, Z; Conv's node, which takes its place, checks the shapes.
void infer_conv(InferContext& ctx) {
  check_real(ctx, 0);
  for (int i = 1; i < ctx.num_inputs(); ++i)
    if (ctx.has_input(i)) ctx.check(ctx.dtype(i) == ctx.dtype(0), "all inputs should have one type");
  ctx.check(ctx.has_input(1), "requires a weight");
  const std::string kind = ctx.node.attr_string("activation", "");
  const size_t given = ctx.node.attr_floats("activation_params").size();
  const bool two = kind == "Clip" || kind == "HardSigmoid", one = kind == "LeakyRelu";
  ctx.check(two || one || kind.empty() || kind == "Relu" || kind == "Tanh" || kind == "Sigmoid", "activation \"", kind, "\" is not known");
  ctx.check(given >= (two ? 2U : one ? 1U : 0U), "activation ", kind, " requires ", two ? 2 : 1, " activation_params, got ", given);
  ctx.set_output(0, ctx.ranked(0) ? Type::tensor(ctx.dtype(0), fresh_shape(ctx, ctx.shape(0).rank())) : Type::tensor(ctx.dtype(0)));
}

// Inputs: ids, segment_ids?, tables of words, positions and segments?, gamma, beta, mask?, position_ids?
void infer_embedding(InferContext& ctx) {
  constexpr int kIds = 0, kSegments = 1, kWords = 2, kPositions = 3, kSegmentTable = 4, kGamma = 5, kBeta = 6, kMask = 7, kPositionIds = 8;
  check_real(ctx, kWords);
  const DType t = ctx.dtype(kWords);
  for (int i : {kIds, kSegments, kMask, kPositionIds}) {
    if (i == kIds || ctx.has_input(i)) ctx.check(is_index(ctx.dtype(i)), "input ", i, " should be int32 or int64");
    check_rank(ctx, i, 2, 2, "input_ids, segment_ids, the mask or position_ids");
  }
  for (int i : {kPositions, kSegmentTable, kGamma, kBeta}) {
    if (i == kSegmentTable && !ctx.has_input(i)) continue;
    ctx.check(ctx.dtype(i) == t, "all tables should have one type");
    check_rank(ctx, i, i >= kGamma ? 1 : 2, i >= kGamma ? 1 : 2, i >= kGamma ? "gamma or beta" : "a table");
  }
  check_rank(ctx, kWords, 2, 2, "a table");
  ctx.check(!ctx.has_input(kSegments) || ctx.has_input(kSegmentTable), "segment_ids require a table of segments");
  Shape ids = fresh_shape(ctx, 2);
  if (ctx.ranked(kIds)) ids = ctx.shape(kIds);
  Dim hidden = ctx.fresh();
  for (int i : {kWords, kPositions, kSegmentTable, kGamma, kBeta})
    if (ctx.has_input(i) && ctx.ranked(i)) hidden = unify(ctx, ctx.shape(i).back(), hidden, "the last extents of the tables, gamma and beta");
  for (int i : {kSegments, kMask, kPositionIds}) {
    if (!ctx.has_input(i) || !ctx.ranked(i)) continue;
    if (i != kPositionIds || ctx.shape(i)[0] != 1) unify(ctx, ctx.shape(i)[0], ids[0], "batches of the ids");
    unify(ctx, ctx.shape(i)[1], ids[1], "rows of the ids");
  }
  ctx.set_output(0, t, {ids[0], ids[1], hidden});
  ctx.set_output(1, DType::kInt32, {ids[0]});
  ctx.set_output(2, t, {ids[0], ids[1], hidden});
}

// Inputs: X, position_ids of [1] or [batch, rows], tables of cosines and sines.
void infer_rotary(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.check(ctx.dtype(1) == DType::kInt64, "position_ids should be int64");
  for (int i : {2, 3}) {
    ctx.check(ctx.dtype(i) == ctx.dtype(0), "X and the caches should have one type");
    check_rank(ctx, i, 2, 2, "a cache");
  }
  check_rank(ctx, 0, 3, 4, "X");
  check_rank(ctx, 1, 1, 2, "position_ids");
  ctx.check(ctx.node.attr_int("is_packed_batching", 0) == 0, "is_packed_batching is not supported");
  const int64_t heads = ctx.node.attr_int("num_heads", 0), turned = ctx.node.attr_int("rotary_embedding_dim", 0);
  ctx.check(heads >= 0, "num_heads should not be negative, got ", heads);
  ctx.check(turned >= 0 && turned % 2 == 0, "rotary_embedding_dim should be even and not negative, got ", turned);
  ctx.check(!turned || heads || !ctx.ranked(0) || ctx.shape(0).rank() == 4, "rotary_embedding_dim requires num_heads");
  ctx.set_output(0, ctx.type(0));
  if (!ctx.ranked(0)) return;
  if (ctx.shape(0).rank() == 3 && heads) head_size(ctx, ctx.shape(0)[2], heads, "X");
  if (!ctx.ranked(1)) return;
  const Shape &x = ctx.shape(0), &p = ctx.shape(1);
  if (p.rank() == 1) {
    unify(ctx, p[0], 1, "one position and the extent of position_ids");
  } else {
    unify(ctx, p[0], x[0], "batches of X and position_ids");
    unify(ctx, p[1], x[x.rank() - 2], "rows of X and position_ids");
  }
}

const OpRegistration rows({
    {"BiasGelu", kMicrosoftDomain, 1, infer_bias_gelu, not_rewritten},
    {"FastGelu", kMicrosoftDomain, 1, infer_bias_gelu, not_rewritten},
    {"FusedConv", kMicrosoftDomain, 1, infer_conv, not_rewritten},
    {"EmbedLayerNormalization", kMicrosoftDomain, 1, infer_embedding, not_rewritten},
    {"RotaryEmbedding", kMicrosoftDomain, 1, infer_rotary, not_rewritten},
});

const GradRegistration grads({
    {"BiasGelu", kMicrosoftDomain, grad_rewritten}, {"FastGelu", kMicrosoftDomain, grad_rewritten}, {"FusedConv", kMicrosoftDomain, grad_rewritten},
    {"EmbedLayerNormalization", kMicrosoftDomain, grad_rewritten}, {"RotaryEmbedding", kMicrosoftDomain, grad_rewritten},
});

}  // namespace
}  // namespace tiercel

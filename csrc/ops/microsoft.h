// Operators of com.microsoft that a pass rewrites as standard ones (passes/expand_microsoft.cc): their rows infer and check only.
#pragma once
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {

// Where the rewriting could not be done.
inline void not_rewritten(PrepareContext& ctx) {
  ctx.fail("could not be written as standard operators: ranks and hidden sizes should be known when the model is loaded");
}

// The extent of each of `heads` heads in a row of `size`.
inline Dim head_size(const InferContext& ctx, Dim size, int64_t heads, const char* what, const char* attribute = "num_heads") {
  ctx.check(heads > 0, attribute, " should be positive, got ", heads);
  if (is_symbol(size)) return ctx.fresh();
  ctx.check(size > 0 && size % heads == 0, "the hidden size ", size, " of ", what, " is not a multiple of ", attribute, " ", heads);
  return size / heads;
}

inline void check_rank(const InferContext& ctx, int i, int from, int to, const char* what) {
  if (!ctx.has_input(i) || !ctx.ranked(i)) return;
  const int rank = ctx.shape(i).rank();
  if (from == to) ctx.check(rank == from, what, " should have ", from, " axes, got ", ctx.shape(i).str());
  ctx.check(rank >= from && rank <= to, what, " should have ", from, " to ", to, " axes, got ", ctx.shape(i).str());
}

inline bool is_index(DType t) { return t == DType::kInt32 || t == DType::kInt64; }

}  // namespace tiercel

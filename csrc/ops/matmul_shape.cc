#include <algorithm>

#include "ops/gemm_run.h"

namespace tiercel {
namespace {

// An operand as numpy sees it: the axes of rows and columns (as it is multiplied), and its batch axes.
struct Operand {
  Shape shape;       // at least two axes
  int row, col;
  int first_batch, batch_rank;
  std::array<int64_t, kMaxRank> strides;
};

Operand operand(const Shape& given, bool left, bool trans, bool trans_batch) {
  Operand o;
  o.shape = given;
  if (given.rank() == 1) {
    o.shape.insert(left ? 0 : 1, 1);
    trans = trans_batch = false;
  }
  const int rank = o.shape.rank();
  o.row = trans_batch ? 0 : rank - 2;
  o.col = rank - 1;
  o.first_batch = trans_batch ? 1 : 0;
  o.batch_rank = rank - 2;
  if (trans) std::swap(o.row, o.col);
  int64_t stride = 1;
  for (int i = rank - 1; i >= 0; --i) {
    o.strides[static_cast<size_t>(i)] = stride;
    if (o.shape[i] > 0) stride *= o.shape[i];
  }
  return o;
}

Shape batch_shape(const Operand& o) { return Shape(o.shape.span().subspan(static_cast<size_t>(o.first_batch), static_cast<size_t>(o.batch_rank))); }

}  // namespace

Shape matmul_shape(const InferContext& ctx, const Shape& a, const Shape& b, const MatMulForm& form) {
  ctx.check(a.rank() >= 1 && b.rank() >= 1, "operands should have at least one axis");
  const Operand x = operand(a, true, form.trans_a, form.trans_batch_a), y = operand(b, false, form.trans_b, form.trans_batch_b);
  unify(ctx, x.shape[x.col], y.shape[y.row], "the inner extents (columns of A, rows of B)");
  Shape out = broadcast_shapes(ctx, batch_shape(x), batch_shape(y));
  if (a.rank() > 1) out.push_back(x.shape[x.row]);
  if (b.rank() > 1) out.push_back(y.shape[y.col]);
  return out;
}

GemmProblem matmul_problem(const Shape& a, const Shape& b, const MatMulForm& form, bool fold) {
  const Operand x = operand(a, true, form.trans_a, form.trans_batch_a), y = operand(b, false, form.trans_b, form.trans_batch_b);
  GemmProblem p;
  p.m = x.shape[x.row];
  p.k = x.shape[x.col];
  p.n = y.shape[y.col];
  p.a_row = x.strides[static_cast<size_t>(x.row)];
  p.a_k = x.strides[static_cast<size_t>(x.col)];
  p.b_k = y.strides[static_cast<size_t>(y.row)];
  p.b_col = y.strides[static_cast<size_t>(y.col)];
  p.c_row = p.n;
  if (p.n == 1) p.b_col = 1;
  if (p.k == 1) p.a_k = 1;
  const Shape xs = batch_shape(x), ys = batch_shape(y);
  const int rank = std::max(xs.rank(), ys.rank());
  Shape batch;
  for (int i = 0; i < rank; ++i) {
    const int xi = i - (rank - xs.rank()), yi = i - (rank - ys.rank());
    const Dim dx = xi >= 0 ? xs[xi] : 1, dy = yi >= 0 ? ys[yi] : 1;
    batch.push_back(dx == 1 ? dy : dx);
  }
  const int64_t count = batch.count();
  if (fold && count > 1 && ys.count() == 1 && !form.trans_a && !form.trans_batch_a) {
    p.m *= count;
    p.batches.push_back({0, 0, 0});
    return p;
  }
  const auto stride = [&](const Operand& o, const Shape& s, int i) -> int64_t {
    const int at = i - (rank - s.rank());
    return at >= 0 && s[at] != 1 ? o.strides[static_cast<size_t>(o.first_batch + at)] : 0;
  };
  p.batches.reserve(static_cast<size_t>(count));
  Shape index;
  index.resize(rank);
  for (int64_t i = 0; i < count; ++i) {
    GemmBatch at{0, 0, i * p.m * p.n};
    for (int d = 0; d < rank; ++d) {
      at.a += index[d] * stride(x, xs, d);
      at.b += index[d] * stride(y, ys, d);
    }
    p.batches.push_back(at);
    for (int d = rank - 1; d >= 0 && ++index[d] == batch[d]; --d) index[d] = 0;
  }
  return p;
}

std::optional<AddendForm> addend_form(const Shape& given, const Shape& out, const GemmProblem& p, bool squeezed_row, bool squeezed_col) {
  // Both with the axes [batch..., rows, columns], the addend's strides zero where it broadcasts.
  Shape full = out, addend = given;
  while (addend.rank() < out.rank()) addend.insert(0, 1);
  for (Shape* s : {&full, &addend}) {
    if (squeezed_col) s->push_back(1);
    if (squeezed_row) s->insert(s->rank() - 1, 1);
  }
  const int rank = full.rank();
  std::array<int64_t, kMaxRank + 2> strides{};
  int64_t step = 1;
  for (int i = rank - 1; i >= 0; --i) {
    strides[static_cast<size_t>(i)] = addend[i] == 1 ? 0 : step;
    step *= std::max<int64_t>(addend[i], 1);
  }
  AddendForm f;
  f.col = strides[static_cast<size_t>(rank - 1)];
  f.row = strides[static_cast<size_t>(rank - 2)];
  const int64_t count = full.count(0, rank - 2);
  const bool folded = p.batches.size() == 1 && count > 1;
  if (folded) {  // the batch axes continue the rows: regular when they all broadcast, or none does
    int64_t want = f.row * full[rank - 2];
    if (full[rank - 2] == 1) want = f.row = 0;
    for (int i = rank - 3; i >= 0; --i) {
      const int64_t s = strides[static_cast<size_t>(i)];
      if (full[i] == 1) continue;
      if (full[rank - 2] == 1 && want == 0 && f.row == 0 && full.count(i + 1, rank - 2) == 1) f.row = want = s;  // rows of one each
      if (s != want) return std::nullopt;
      want *= full[i];
    }
    return f;
  }
  bool moves = false;
  for (int i = 0; i < rank - 2; ++i) moves |= strides[static_cast<size_t>(i)] != 0 && full[i] > 1;
  if (!moves) return f;
  Shape index;
  index.resize(rank - 2);
  for (int64_t i = 0; i < count; ++i) {
    int64_t at = 0;
    for (int d = 0; d < rank - 2; ++d) at += index[d] * strides[static_cast<size_t>(d)];
    f.batches.push_back(at);
    for (int d = rank - 3; d >= 0 && ++index[d] == full[d]; --d) index[d] = 0;
  }
  return f;
}

}  // namespace tiercel

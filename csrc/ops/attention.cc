// ai.tiercel.Attention: y = softmax(scale Q K^T + mask) V, head by head ("Attention Is All You Need", Vaswani et al. 2017).
//
// Inputs: Q [B,H,S,D], K [B,G,T,D], V [B,G,T,E] (H a multiple of G: grouped queries; a batch of 1 broadcasts), mask broadcastable to
// [B,H,S,T] (or stretching extents of 1 there), added after the scale. Attributes q_layout, k_layout, v_layout, y_layout: "BHSD", or
// "BSHD" or "SBHD" where heads lie inside a row, as the projections write and read them; softcap: scores become
// softcap tanh(scores / softcap) before the mask; nan_to_zero: weights that would be NaN are zero; masked_to_zero: so are those of rows
// whose mask is -inf everywhere, and of no others. Scores of a block of rows and keys are computed, exponentiated and multiplied by V while
// they are in cache; they never exist as a tensor. A block whose mask leaves all weights zero (causal, windows, padding) is left out.
#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "base/memory.h"
#include "kernels/attention/attention.h"
#include "kernels/gemm/gemm.h"
#include "kernels/transpose/transpose.h"
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
    ctx.check(ctx.shape(i).rank() == 4, "input ", i, " should have 4 dimensions, got ", ctx.shape(i));
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
    ctx.check(y.rank() == 4, "the mask should broadcast to ", scores);
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
  float scale = 1, cap = 0;
  bool nan_to_zero = false, masked_to_zero = false;
  bool direct = false;     // few rows: K and V are read where they lie
  bool skips = false;      // masked blocks of keys may be left out
  bool packs_values = false;
  int64_t row_block = 1;   // rows of Q of one task
  int64_t key_block = 1, key_blocks = 1;
  int64_t value_row = 0;   // floats from a row of V to the next, packed or not
  int64_t score_row = 0;   // floats between rows of scores
  int64_t key_floats = 0, value_floats = 0;  // of one packed head of K and V
  // Workspace: packed keys, packed values, the reach of blocks, then of each thread: scores and what belongs to rows.
  int64_t at_values = 0, at_reach = 0, at_scores = 0, scratch = 0;
};

// Rows that meet a block of keys at a time: their scores are a part of L2, and enough rows use each panel of keys and values that comes
// to L1. The blocks depend on shapes alone, so results do not depend on the number of threads.
constexpr int64_t kRows = 96, kKeys = 512;
constexpr int64_t kMaskedKeys = 192;  // where masks differ from row to row: finer, so that causal ones leave out nearly half
constexpr int64_t kFewRows = 8;     // with fewer, packing K costs more than it gives
constexpr int64_t kManyRows = 256;  // with fewer, so does packing V
constexpr float kLow = -1e30f;   // masks below leave no weight beside any score that is not masked

// What a masked block has to be left out: magnitudes of its keys bound its scores, and no value of it may be infinite or NaN, for
// 0 * inf is NaN.
float reach(const Plan& p, const float* k, const float* v, int64_t keys) {
  const float of_keys = attention().magnitude(k, p.k.row, keys, p.depth), of_values = attention().magnitude(v, p.v.row, keys, p.out_depth);
  return std::isfinite(of_values) ? of_keys : INFINITY;
}

// A block of rows of a head, at most kRows.
class Rows {
 public:
  Rows(const Plan& plan, int64_t count, float* scratch) : p(plan), rows(count), scores(scratch) {
    most_ = scores + kRows * p.score_row;
    sum_ = most_ + kRows;
    factor_ = sum_ + kRows;
    std::fill_n(most_, rows, -INFINITY);
    std::fill_n(sum_, rows, 0.0f);
  }

  const Plan& p;
  int64_t rows;
  float* scores;
  const float *q = nullptr, *k = nullptr, *v = nullptr, *mask = nullptr, *reach = nullptr;
  float* y = nullptr;

  void run() {
    const bool skips = p.skips && mask;
    for (int64_t b = 0; b < p.key_blocks; ++b) if (!skips || !masked(b)) block(b);
    for (int64_t b = 0; skips && b < p.key_blocks; ++b) if (masked(b) && !weightless(b)) block(b);
    if (!begun_) return empty();
    for (int64_t i = 0; i < rows; ++i) factor_[i] = sees_nothing(i) ? 1 : 1 / sum_[i];
    attention().scale_rows(y, p.y.row, rows, p.out_depth, factor_);
    for (int64_t i = 0; i < rows; ++i) if (std::isnan(sum_[i]) && sees_nothing(i)) no_weights(i);
  }

 private:
  void empty() { for (int64_t i = 0; i < rows; ++i) std::fill_n(y + i * p.y.row, p.out_depth, 0.0f); }  // a sum over no keys
  // Is every weight of row i to be zero, where there is nothing to divide by?
  bool sees_nothing(int64_t i) const {
    if (sum_[i] > 0) return false;
    return p.nan_to_zero || (p.masked_to_zero && mask && attention().all_below(mask + i * p.mask_row, 0, p.mask_col, 1, p.keys, -INFINITY));
  }
  void no_weights(int64_t i) {
    std::fill_n(scores, p.score_row, 0.0f);
    for (int64_t b = 0; b < p.key_blocks; ++b) weigh(b, y + i * p.y.row, 1, b > 0);
  }
  int64_t keys_of(int64_t b) const { return std::min(p.key_block, p.keys - b * p.key_block); }
  bool masked(int64_t b) const {
    return attention().all_below(mask + b * p.key_block * p.mask_col, p.mask_row, p.mask_col, p.mask_row ? rows : 1, keys_of(b), kLow);
  }
  // Are all weights of a masked block zero, whatever its scores?
  bool weightless(int64_t b) const {
    const double of_rows = attention().magnitude(q, p.q.row, rows, p.depth), sums = static_cast<double>(p.depth) * of_rows * reach[b];
    const double bound = p.cap > 0 ? p.cap : std::fabs(double{p.scale}) * sums;
    if (!(bound < -0.1 * kLow) || !std::isfinite(sums)) return false;
    return std::all_of(most_, most_ + rows, [](float m) { return m > 0.1f * kLow; });
  }

  void block(int64_t b) {
    const int64_t first = b * p.key_block;
    const float* keys = k + first * (p.direct ? p.k.row : p.depth);
    GemmArgs g;
    g.m = rows;
    g.n = keys_of(b);
    g.k = p.depth;
    g.a = &q;
    g.a_row = p.q.row;
    g.b = &keys;
    g.b_row = p.direct ? p.k.row : 0;
    g.c = scores;
    g.c_row = p.score_row;
    p.direct ? gemm().dot(g) : gemm().gemm(g);
    AttentionBlock s{scores, p.score_row, rows, g.n, p.scale, p.cap, mask ? mask + first * p.mask_col : nullptr, p.mask_row, p.mask_col, most_, sum_, factor_};
    const bool changed = attention().weights(s);
    if (changed && begun_) attention().scale_rows(y, p.y.row, rows, p.out_depth, factor_);
    weigh(b, y, rows, std::exchange(begun_, true));
  }

  // Rows of weights times the values of a block.
  void weigh(int64_t b, float* to, int64_t count, bool accumulate) const {
    const float *values = v + b * p.key_block * p.value_row, *weights = scores;
    GemmArgs g;
    g.m = count;
    g.n = p.out_depth;
    g.k = keys_of(b);
    g.a = &weights;
    g.a_row = p.score_row;
    g.b = &values;
    g.b_row = p.packs_values ? 0 : p.v.row;
    g.c = to;
    g.c_row = p.y.row;
    g.accumulate = accumulate;
    gemm().gemm(g);
  }

  float *most_, *sum_, *factor_;
  bool begun_ = false;
};

// One head of K, [keys, depth], in the packing of its transpose.
void pack_keys(const Plan& p, const float* k, int64_t first, int64_t last, float* packed) {
  const int64_t panel = gemm().panel;
  for (int64_t j = first; j < last; j += panel) {
    const int64_t columns = std::min(panel, p.keys - j), width = round_up(columns, gemm().lanes);
    float* const to = packed + p.depth * j;
    transpose_kernels().plane[2](k + j * p.k.row, p.k.row, to, width, columns, p.depth);
    for (int64_t i = 0; columns < width && i < p.depth; ++i) std::fill(to + i * width + columns, to + (i + 1) * width, 0.0f);
  }
}

void run(const Plan& p, const Args& a, Worker& w) {
  const float *Q = a.in<float>(0), *K = a.in<float>(1), *V = a.in<float>(2), *mask = a.in<float>(3);
  float *y = a.out<float>(0), *packed = a.workspace<float>(), *values = packed + p.at_values, *reaches = packed + p.at_reach;
  float* const scratch = packed + p.at_scores + w.index() * p.scratch;
  if (!p.direct) {
    w.parallel_for(p.batch * p.groups * p.key_blocks, 1, [&](int64_t task, int64_t) {
      const int64_t b = task % p.key_blocks, i = task / p.key_blocks, first = b * p.key_block, last = std::min(first + p.key_block, p.keys);
      const float *const k = K + p.k.at(i / p.groups, i % p.groups), *const v = V + p.v.at(i / p.groups, i % p.groups) + first * p.v.row;
      pack_keys(p, k, first, last, packed + i * p.key_floats);
      if (p.packs_values) gemm().pack_b(v, p.v.row, 1, last - first, p.out_depth, 0, p.out_depth, values + i * p.value_floats + first * p.value_row);
      if (p.skips) reaches[task] = reach(p, k + first * p.k.row, v, last - first);
    });
    w.barrier();
  }
  const int64_t blocks = ceil_div(p.rows, p.row_block);
  w.parallel_for(p.batch * p.heads * blocks, 1, [&](int64_t task, int64_t) {
    const int64_t head = task / blocks % p.heads, batch = task / blocks / p.heads, group = head / (p.heads / p.groups);
    const int64_t first = task % blocks * p.row_block, of_group = batch * p.groups + group;
    Rows rows(p, std::min(p.row_block, p.rows - first), scratch);
    rows.q = Q + p.q.at(batch, head) + first * p.q.row;
    rows.k = p.direct ? K + p.k.at(batch, group) : packed + of_group * p.key_floats;
    rows.v = p.packs_values ? values + of_group * p.value_floats : V + p.v.at(batch, group);
    rows.mask = mask ? mask + batch * p.mask_batch + head * p.mask_head + first * p.mask_row : nullptr;
    rows.reach = reaches + of_group * p.key_blocks;
    rows.y = y + p.y.at(batch, head) + first * p.y.row;
    rows.run();
  });
}

// Rows of a task, in tiles and as even as can be: of some numbers of tasks the one that takes a team the least time, where each task reads
// the keys and values anew. A row's result does not depend on it.
int64_t rows_of_task(const Plan& p, int threads) {
  constexpr int64_t kTile = 6, kFewest = 24, kReading = 4;  // rows that take as long as reading takes
  const int64_t fewest = std::max<int64_t>(ceil_div(p.rows, kRows), 1), most = std::min(ceil_div(p.rows, kFewest), fewest + 8);
  int64_t best = round_up(ceil_div(p.rows, fewest), kTile);
  double least = INFINITY;
  for (int64_t blocks = fewest; blocks <= std::max(fewest, most); ++blocks) {
    const int64_t rows = round_up(ceil_div(p.rows, blocks), kTile), tasks = p.batch * p.heads * ceil_div(p.rows, std::max<int64_t>(rows, 1));
    const double time = static_cast<double>(ceil_div(tasks, threads) * (rows + kReading));
    if (time >= least) continue;
    least = time;
    best = rows;
  }
  return std::max<int64_t>(best, 1);
}

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
  p.cap = std::max(ctx.node.attr_float("softcap", 0), 0.0f);
  p.nan_to_zero = ctx.node.attr_int("nan_to_zero", 0) != 0;
  p.masked_to_zero = ctx.node.attr_int("masked_to_zero", 0) != 0;
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
  if (p.rows == 1 && p.heads > p.groups) {  // the queries of a group are rows of one product
    p.rows = p.heads / p.groups;
    p.heads = p.groups;
    p.q.row = std::exchange(p.q.head, p.q.head * p.rows);
    p.y.row = std::exchange(p.y.head, p.y.head * p.rows);
    p.mask_row = std::exchange(p.mask_head, p.mask_head * p.rows);
  }
  p.direct = p.rows < kFewRows;
  p.skips = ctx.has_input(3) && !p.direct;
  p.packs_values = p.rows >= kManyRows;
  p.row_block = rows_of_task(p, ctx.threads());
  p.key_blocks = ceil_div(p.keys, p.skips && p.mask_row ? kMaskedKeys : kKeys);
  p.key_block = std::max<int64_t>(round_up(ceil_div(p.keys, std::max<int64_t>(p.key_blocks, 1)), 64), 64);
  p.key_blocks = ceil_div(p.keys, p.key_block);
  p.score_row = std::min(p.key_block, round_up(p.keys, 16));
  p.key_floats = p.direct ? 0 : round_up(gemm_packed_floats(gemm(), p.depth, p.keys), 16);
  p.value_row = p.packs_values ? round_up(p.out_depth, gemm().lanes) : p.v.row;
  p.value_floats = p.packs_values ? round_up(p.value_row * p.keys, 16) : 0;
  p.at_values = p.batch * p.groups * p.key_floats;
  p.at_reach = p.at_values + p.batch * p.groups * p.value_floats;
  p.at_scores = p.at_reach + (p.skips ? round_up(p.batch * p.groups * p.key_blocks, 16) : 0);
  p.scratch = kRows * p.score_row + round_up(3 * kRows, 16);
  ctx.workspace((p.at_scores + ctx.threads() * p.scratch) * static_cast<int64_t>(sizeof(float)));
  const double products = 2.0 * p.batch * p.heads * p.rows * p.keys;
  ctx.cost(products * (p.depth + p.out_depth + 10), 4.0 * (p.batch * p.heads * p.rows * (p.depth + p.out_depth) + p.batch * p.groups * p.keys * (p.depth + p.out_depth)));
  ctx.run([p](const Args& a, Worker& w) { run(p, a, w); });
}

static const OpRegistration rows({{"Attention", kTiercelDomain, 1, infer, prepare}});

}  // namespace
}  // namespace tiercel

// ai.tiercel.MatMulChain: products one after the other, each with its bias and activation, strip by strip of rows, so that what lies between
// them stays in L2 (the feed-forward layers of Vaswani et al., "Attention Is All You Need", 2017, are such chains).
//
//   inputs      X [..., K0], residual (or none; of the output's shape, added before the last activation), then W and B (or none) of each product;
//               W [K, N] is a constant, or [N, K] where transB_<i> is 1; B has N elements
//   attributes  stages: how many products; <i>_activation... of product i (ops/activation.h), transB_<i> (0)
//   output      [..., N of the last product]
// Bit for bit what the separate products give.
#include <algorithm>
#include <string>
#include <vector>

#include "ops/activation.h"
#include "ops/gemm_run.h"
#include "ops/matmul_chain.h"
#include "ops/registry.h"

namespace tiercel {
namespace {

enum Input { kX, kResidual, kFirst };
constexpr int64_t kStripRows = 96;        // at most
constexpr int64_t kStrips = 16;           // at least, where each has kChainLeastRows: work for large teams
constexpr int64_t kWorthwhile = 1 << 20;  // less between the products stays in the cores' L2 as it is

int weight_at(int64_t stage) { return static_cast<int>(kFirst + 2 * stage); }
std::string prefix(int64_t stage) { return std::to_string(stage) + "_"; }
bool transposed(const Node& node, int64_t stage) { return node.attr_int("transB_" + std::to_string(stage), 0) != 0; }

struct Stage {
  GemmRun gemm;
  int bias = -1;  // input, or -1
};

class MatMulChain final : public Kernel {
 public:
  std::vector<Stage> stages;
  int64_t rows = 0, inputs = 0;
  int64_t strips = 0;               // 0: each product whole, one after the other
  int64_t side[2] = {0, 0};         // floats a row of the results of even and odd products

  int64_t strip_rows() const { return strips ? ceil_div(rows, strips) : rows; }

  // Decided by the extents alone.
  void split() {
    double between = 0;
    for (size_t i = 0; i + 1 < stages.size(); ++i) {
      const int64_t n = stages[i].gemm.problem().n;
      side[i % 2] = std::max(side[i % 2], round_up(n, 16));
      between += 4.0 * static_cast<double>(rows) * static_cast<double>(n);
    }
    const int64_t share = std::max(kChainLeastRows, ceil_div(rows, kStrips));
    const int64_t most = std::min({kStripRows, share, kChainStripBytes / (4 * std::max<int64_t>(side[0] + side[1], 1))});
    if (most >= kChainLeastRows && between >= kWorthwhile) strips = std::min(round_up(ceil_div(rows, most), 4), rows);
  }
  int64_t workspace(int threads) const {
    int64_t bytes = 4 * (side[0] + side[1]) * strip_rows() * (strips ? threads : 1);
    if (!strips) {
      int64_t most = 0;
      for (const Stage& s : stages) most = std::max(most, s.gemm.workspace(threads));
      bytes = round_up(bytes, 64) + most;
    }
    return bytes;
  }

  void run(const Args& args, Worker& worker) const override {
    const float *const x = args.in<float>(kX), *const residual = args.in<float>(kResidual);
    float *const y = args.out<float>(0), *const space = args.workspace<float>();
    const int64_t h = strip_rows(), outputs = stages.back().gemm.problem().n, last = static_cast<int64_t>(stages.size()) - 1;
    const auto bias = [&](const Stage& s) { return s.bias < 0 ? nullptr : args.in<float>(s.bias); };
    if (!strips) {
      float* const own = space + round_up((side[0] + side[1]) * rows, 16);
      const float* from = x;
      for (int64_t i = 0; i <= last; ++i) {
        const Stage& s = stages[static_cast<size_t>(i)];
        if (i) worker.barrier();
        float* const to = i == last ? y : space + (i % 2 ? side[0] * rows : 0);
        s.gemm.run(worker, from, nullptr, to, bias(s), i == last ? residual : nullptr, own);
        from = to;
      }
      return;
    }
    float* const own = space + worker.index() * (side[0] + side[1]) * h;
    worker.parallel_for(strips, 1, [&](int64_t t, int64_t end) {
      for (; t < end; ++t) {
        const int64_t first = rows * t / strips, count = rows * (t + 1) / strips - first;
        const float* from = x + first * inputs;
        int64_t from_row = inputs;
        for (int64_t i = 0; i <= last; ++i) {
          const Stage& s = stages[static_cast<size_t>(i)];
          const int64_t n = s.gemm.problem().n, to_row = i == last ? outputs : n;
          float* const to = i == last ? y + first * outputs : own + (i % 2 ? side[0] * h : 0);
          s.gemm.strip(first, count, from, from_row, to, to_row, bias(s), i == last ? residual : nullptr,
                       stages[static_cast<size_t>(i == last ? 0 : i + 1)].gemm.packed());
          from = to;
          from_row = to_row;
        }
      }
    });
  }
};

void infer(InferContext& ctx) {
  const int64_t stages = ctx.node.attr_int("stages", 0);
  ctx.check(stages >= 1 && stages < 1024 && ctx.num_inputs() >= weight_at(stages - 1) + 1, "there should be X, a residual and weights of each product");
  const Type& x = ctx.type(kX);
  ctx.check(x.dtype == DType::kFloat && x.ranked && x.shape.rank() >= 2, "X should be a float tensor of two axes or more");
  Shape out = x.shape;
  for (int64_t i = 0; i < stages; ++i) {
    const int w = weight_at(i);
    ctx.check(ctx.dtype(w) == DType::kFloat && ctx.ranked(w) && ctx.shape(w).rank() == 2 && ctx.shape(w).known(), "weights should be known float matrices");
    const Shape& s = ctx.shape(w);
    const int axis = transposed(ctx.node, i) ? 1 : 0;
    const Dim given = out[out.rank() - 1];
    ctx.check(is_symbol(given) || s[axis] == given, "weights of product ", i, " should have ", given, " rows, are ", s.str());
    out[out.rank() - 1] = s[1 - axis];
    if (ctx.has_input(w + 1)) ctx.check(ctx.dtype(w + 1) == DType::kFloat, "biases should be float");
    activation_of(ctx.node, prefix(i));
  }
  if (ctx.has_input(kResidual)) ctx.check(ctx.dtype(kResidual) == DType::kFloat, "the residual should be float");
  ctx.set_output(0, DType::kFloat, out);
}

void prepare(PrepareContext& ctx) {
  const Shape &x = ctx.shape(kX), &y = ctx.out_shape(0);
  if (ctx.has_input(kResidual) && !(ctx.shape(kResidual) == y)) ctx.fail("the residual should have the output's shape ", y.str());
  auto k = std::make_unique<MatMulChain>();
  k->inputs = x[x.rank() - 1];
  k->rows = 1;
  for (int d = 0; d + 1 < x.rank(); ++d) k->rows *= x[d];
  const int64_t stages = ctx.node.attr_int("stages", 0);
  double flops = 0, bytes = 0;
  int64_t depth = k->inputs;
  for (int64_t i = 0; i < stages; ++i) {
    const int w = weight_at(i);
    if (!ctx.constant(w)) ctx.fail("weights should be constants");
    const bool t = transposed(ctx.node, i);
    GemmProblem p;
    p.m = k->rows;
    p.k = depth;
    p.n = ctx.shape(w)[t ? 0 : 1];
    if (ctx.shape(w)[t ? 1 : 0] != depth) ctx.fail("weights of product ", i, " should have ", depth, " rows, are ", ctx.shape(w).str());
    p.a_row = p.k;
    p.b_k = t ? 1 : p.n;
    p.b_col = t ? p.k : 1;
    p.c_row = p.n;
    p.batches = {{0, 0, 0}};
    depth = p.n;
    Stage s{GemmRun(ctx, w, std::move(p))};
    ctx.drops(w);
    s.gemm.activation = activation_of(ctx.node, prefix(i));
    if (ctx.has_input(w + 1)) {
      if (ctx.shape(w + 1).count() != depth) ctx.fail("the bias of product ", i, " should have ", depth, " elements, is ", ctx.shape(w + 1).str());
      s.bias = w + 1;
      s.gemm.add[0] = {0, 1, {}, 1};
    }
    if (i + 1 == stages && ctx.has_input(kResidual)) s.gemm.add[1] = {depth, 1, {}, 1};
    flops += s.gemm.problem().flops();
    bytes += s.gemm.bytes();
    k->stages.push_back(std::move(s));
  }
  if (y.count() == 0) return ctx.run([](const Args&, Worker&) {});
  k->split();
  ctx.cost(flops, bytes);
  ctx.workspace(k->workspace(ctx.threads()));
  ctx.kernel(std::move(k));
}

const OpRegistration rows({{"MatMulChain", kTiercelDomain, 1, infer, prepare}});

}  // namespace
}  // namespace tiercel

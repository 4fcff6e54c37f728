// ai.tiercel.FusedMatMul: Y = act(alpha A' B' + beta bias + residual), rounded step by step as the separate operators would.
//   inputs: A, B (as MatMul; transA, transB swap their last two axes, transBatchA, transBatchB take the first axis for the
//   rows), bias and residual (each optional, broadcasting to Y)
//   attributes: alpha, beta (1), transA, transB, transBatchA, transBatchB (0), activation... (ops/activation.h)
// com.microsoft.FusedMatMul and FusedGemm are special cases.
#include "ops/activation.h"
#include "ops/gemm_run.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

MatMulForm form_of(const Node& node) {
  return {.trans_a = node.attr_int("transA", 0) != 0, .trans_b = node.attr_int("transB", 0) != 0,
          .trans_batch_a = node.attr_int("transBatchA", 0) != 0, .trans_batch_b = node.attr_int("transBatchB", 0) != 0};
}

void infer(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  check_real(ctx, 0);
  for (int i = 1; i < ctx.num_inputs(); ++i)
    if (ctx.has_input(i)) ctx.check(ctx.dtype(i) == t, "all inputs should have one type");
  activation_of(ctx.node);
  if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_output(0, Type::tensor(t));
  const Shape out = matmul_shape(ctx, ctx.shape(0), ctx.shape(1), form_of(ctx.node));
  for (int i = 2; i < ctx.num_inputs(); ++i) {
    if (!ctx.has_input(i) || !ctx.ranked(i)) continue;
    const Shape& s = ctx.shape(i);
    bool fits = s.rank() <= out.rank();
    for (int d = 0; fits && d < s.rank(); ++d) {
      const Dim want = out[d + out.rank() - s.rank()];
      fits = is_symbol(s[d]) || is_symbol(want) || s[d] == 1 || s[d] == want;
    }
    ctx.check(fits, i == 2 ? "bias " : "residual ", s, " should broadcast to the product's shape ", out);
  }
  ctx.set_output(0, t, out);
}

struct Addends {
  AddendForm form[2];
  bool has[2] = {false, false};
};

// nullopt: not regular along folded rows.
std::optional<Addends> addends(const PrepareContext& ctx, const GemmProblem& p, float beta) {
  Addends all;
  for (int i = 0; i < 2; ++i) {
    if (!ctx.has_input(2 + i) || (i == 0 && beta == 0)) continue;
    const Shape &given = ctx.shape(2 + i), &out = ctx.out_shape(0);
    for (int d = 0; d < given.rank(); ++d)
      if (given.rank() > out.rank() || (given[d] != 1 && given[d] != out[d + out.rank() - given.rank()]))
        ctx.fail(i ? "residual " : "bias ", given.str(), " should broadcast to the product's shape ", out.str());
    auto form = addend_form(given, out, p, ctx.shape(0).rank() == 1, ctx.shape(1).rank() == 1);
    if (!form) return std::nullopt;
    all.form[i] = std::move(*form);
    all.has[i] = true;
  }
  all.form[0].scale = beta;
  return all;
}

// Doubles: the product, then the rest of the formula in place.
void prepare_double(PrepareContext& ctx, GemmProblem p, Addends add, float alpha) {
  const Activation activation = activation_of(ctx.node);
  ctx.cost(p.flops() * 4, 8.0 * static_cast<double>(ctx.shape(0).count() + ctx.shape(1).count() + 2 * ctx.out_shape(0).count()));
  if (activation) ctx.fail("activations are computed for float only");
  ctx.run([=, p = std::move(p), add = std::move(add)](const Args& args, Worker& worker) {
    plain_gemm_run(worker, DType::kDouble, p, args.in(0), args.in(1), args.out(0));
    if (alpha == 1 && !add.has[0] && !add.has[1]) return;
    worker.barrier();
    worker.parallel_for(static_cast<int64_t>(p.batches.size()) * p.m, grain_for(p.n), [&](int64_t first, int64_t last) {
      for (int64_t t = first; t < last; ++t) {
        const size_t batch = static_cast<size_t>(t / p.m);
        const int64_t i = t % p.m;
        double* const y = args.out<double>(0) + p.batches[batch].c + i * p.c_row;
        for (int64_t j = 0; j < p.n; ++j) {
          y[j] *= alpha;
          for (int s = 0; s < 2; ++s) {
            const AddendForm& f = add.form[s];
            if (add.has[s]) y[j] += f.scale * args.in<double>(2 + s)[(f.batches.empty() ? 0 : f.batches[batch]) + i * f.row + j * f.col];
          }
        }
      }
    });
  });
}

void prepare(PrepareContext& ctx) {
  const float alpha = ctx.node.attr_float("alpha", 1), beta = ctx.node.attr_float("beta", 1);
  const MatMulForm form = form_of(ctx.node);
  GemmProblem p = matmul_problem(ctx.shape(0), ctx.shape(1), form);
  auto add = addends(ctx, p, beta);
  if (!add) {
    p = matmul_problem(ctx.shape(0), ctx.shape(1), form, false);
    add = addends(ctx, p, beta);
  }
  if (ctx.dtype(0) == DType::kDouble) return prepare_double(ctx, std::move(p), std::move(*add), alpha);
  const bool constant = ctx.constant(1) != nullptr;
  GemmRun gemm = constant ? GemmRun(ctx, 1, std::move(p)) : GemmRun(std::move(p));
  if (constant) ctx.drops(1);
  gemm.alpha = alpha;
  gemm.activation = activation_of(ctx.node);
  for (int i = 0; i < 2; ++i) gemm.add[i] = std::move(add->form[i]);
  const bool has0 = add->has[0], has1 = add->has[1];
  ctx.cost(gemm.problem().flops(), gemm.bytes());
  ctx.workspace(gemm.workspace(ctx.threads()));
  ctx.run([gemm = std::move(gemm), has0, has1](const Args& args, Worker& worker) {
    gemm.run(worker, args.in<float>(0), args.in<float>(1), args.out<float>(0), has0 ? args.in<float>(2) : nullptr,
             has1 ? args.in<float>(3) : nullptr, args.workspace());
  });
}

const OpRegistration rows({
    {"FusedMatMul", kTiercelDomain, 1, infer, half_as_float<prepare>},
    {"FusedMatMul", kMicrosoftDomain, 1, infer, half_as_float<prepare>},
    {"FusedGemm", kMicrosoftDomain, 1, infer, half_as_float<prepare>},
});

}  // namespace
}  // namespace tiercel

// ai.tiercel.FusedMatMul: Y = act(alpha A' B' + beta bias + residual), rounded step by step as the separate operators would.
//   inputs: A, B (as MatMul; transA, transB swap their last two axes, transBatchA, transBatchB take the first axis for the
//   rows), bias and residual (each optional, broadcasting to Y)
//   attributes: alpha, beta (1), transA, transB, transBatchA, transBatchB (0), activation... (ops/activation.h)
// com.microsoft.FusedMatMul and FusedGemm are special cases.
#include "ops/activation.h"
#include "ops/gemm_run.h"
#include "ops/grad.h"
#include "kernels/pointwise/activation_grad.h"
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

// Y = act(alpha A' B' + beta bias + residual), where A' is A with its axes in order: dA' = alpha d B'', dB' = alpha A'' d, for d of what is activated.
class Rule {
 public:
  explicit Rule(GradContext& c) : c_(c), w_(c.w), form_(form_of(c.node)) {}

  void run() {
    for (int i : {0, 1}) rank_[i] = c_.rank(c_.x(i));
    Value* d = c_.dy();
    if (const Activation f = activation_of(c_.node)) {
      Value* const v = activation_grad_reads_result(f) ? c_.y() : before_activation();
      d = w_.op("ActivationGrad", {d, v}, {}, kTiercelDomain);
      set_activation(*d->producer, f);
    }
    if (c_.wants(2)) c_.set_summed(2, w_.scale(d, c_.node.attr_float("beta", 1)));
    if (c_.wants(3)) c_.set_summed(3, d);
    if (rank_[1] == 1) d = w_.op("Unsqueeze", {d, w_.ints({-1})});
    if (rank_[0] == 1) d = w_.op("Unsqueeze", {d, w_.ints({-2})});
    // Vectors are matrices of one row or column, and batches stand first, meanwhile.
    Value *const a = in_order(0), *const b = in_order(1);
    const bool ta = form_.trans_a && rank_[0] > 1, tb = form_.trans_b && rank_[1] > 1;
    if (c_.wants(0)) back(0, a, ta ? product(b, d, tb, true) : product(d, b, false, !tb));
    if (!c_.wants(1)) return;
    if (rank_[0] > 2 && rank_[1] <= 2 && !ta) {  // one product over the rows of all batches
      Value *const x = rows(a), *const g = rows(d);
      back(1, b, tb ? product(g, x, true, false) : product(x, g, true, false));
    } else {
      back(1, b, tb ? product(d, a, true, ta) : product(a, d, !ta, false));
    }
  }

 private:
  Value* before_activation() {
    AttributeList same;
    for (const char* key : {"alpha", "beta", "transA", "transB", "transBatchA", "transBatchB"})
      if (const Attribute* a = c_.node.attribute(key)) same.emplace_back(key, *a);
    return w_.op("FusedMatMul", c_.node.inputs, std::move(same), kTiercelDomain);
  }
  bool batch_inside(int i) const { return (i ? form_.trans_batch_b : form_.trans_batch_a) && rank_[i] > 2; }
  // The first axis and the last but one change places with those between: (r, b.., c) to (b.., r, c), and back.
  Value* moved(Value* v, int rank, bool back) {
    std::vector<int64_t> perm(static_cast<size_t>(rank));
    for (int i = 0; i < rank - 1; ++i) perm[static_cast<size_t>(back ? (i + 1) % (rank - 1) : i)] = back ? i : (i + 1) % (rank - 1);
    perm.back() = rank - 1;
    return w_.op("Transpose", {v}, {{"perm", std::move(perm)}});
  }
  Value* in_order(int i) {
    if (rank_[i] == 1) return w_.op("Unsqueeze", {c_.x(i), w_.ints({i})});
    return batch_inside(i) ? moved(c_.x(i), rank_[i], false) : c_.x(i);
  }
  Value* product(Value* a, Value* b, bool ta, bool tb) {
    return w_.op("FusedMatMul", {a, b}, {{"transA", int64_t{ta}}, {"transB", int64_t{tb}}, {"alpha", c_.node.attr_float("alpha", 1)}}, kTiercelDomain);
  }
  Value* rows(Value* v) {
    Value* const last = w_.op("Shape", {v}, {{"start", int64_t{-1}}});
    return w_.op("Reshape", {v, w_.op("Concat", {w_.ints({-1}), last}, {{"axis", int64_t{0}}})});
  }
  void back(int i, Value* matrix, Value* g) {
    g = w_.sum_to(g, matrix);
    if (batch_inside(i)) g = moved(g, rank_[i], true);
    c_.set(i, matrix == c_.x(i) || batch_inside(i) ? g : w_.reshape_like(g, c_.x(i)));
  }

  GradContext& c_;
  GraphWriter& w_;
  MatMulForm form_;
  int rank_[2] = {};
};

void grad(GradContext& c) { Rule(c).run(); }

const GradRegistration grads({{"FusedMatMul", kTiercelDomain, grad}, {"FusedMatMul", kMicrosoftDomain, grad}, {"FusedGemm", kMicrosoftDomain, grad}});

}  // namespace
}  // namespace tiercel

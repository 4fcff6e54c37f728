// Gemm: Y = alpha A' B' + beta C, where A' and B' may be transposed and C broadcasts to Y.
#include "ops/gemm_run.h"
#include "ops/grad.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

MatMulForm form_of(const Node& node) {
  return {.trans_a = node.attr_int("transA", 0) != 0, .trans_b = node.attr_int("transB", 0) != 0};
}

void infer(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  const bool integer = t == DType::kInt32 || t == DType::kInt64 || t == DType::kUInt32 || t == DType::kUInt64;
  ctx.check(is_real(t) || integer, "A should be float, double, float16, bfloat16 or a 32- or 64-bit integer, got ", dtype_name(t));
  ctx.check(ctx.dtype(1) == t, "A and B should have one type");
  const bool has_c = ctx.has_input(2);
  if (has_c) ctx.check(ctx.dtype(2) == t, "A and C should have one type");
  for (int i : {0, 1})
    if (ctx.ranked(i)) ctx.check(ctx.shape(i).rank() == 2, i ? "B" : "A", " should have two axes");
  const MatMulForm form = form_of(ctx.node);
  Shape out{ctx.fresh(), ctx.fresh()};
  if (ctx.ranked(0)) out[0] = ctx.shape(0)[form.trans_a];
  if (ctx.ranked(1)) out[1] = ctx.shape(1)[!form.trans_b];
  if (ctx.ranked(0) && ctx.ranked(1)) out = matmul_shape(ctx, ctx.shape(0), ctx.shape(1), form);
  if (has_c && ctx.ranked(2)) {
    const Shape& c = ctx.shape(2);
    ctx.check(c.rank() <= 2, "C should have at most two axes");
    for (int i = 0; i < c.rank(); ++i) {
      const Dim want = out[i + 2 - c.rank()];
      ctx.check(is_symbol(c[i]) || is_symbol(want) || c[i] == 1 || c[i] == want, "C ", c, " should broadcast to ", out);
    }
  }
  ctx.set_output(0, t, out);
}

// alpha * product + beta * C in place, for the other types: in double, but exact where nothing is scaled.
template <class T> void finish(T* y, const T* c, const AddendForm& f, float alpha, float beta, int64_t begin, int64_t end, int64_t n) {
  for (int64_t i = begin; i < end; ++i)
    for (int64_t j = 0; j < n; ++j) {
      T& v = y[i * n + j];
      const T* d = c ? &c[i * f.row + j * f.col] : nullptr;
      if (alpha == 1 && beta == 1) v = d ? static_cast<T>(v + *d) : v;
      else v = saturate<T>(static_cast<double>(v) * alpha + (d ? static_cast<double>(*d) * beta : 0));
    }
}

void prepare_other(PrepareContext& ctx, GemmProblem p, AddendForm f, float alpha, float beta) {
  const DType t = ctx.dtype(0);
  const bool has_c = ctx.has_input(2) && beta != 0;
  ctx.cost(p.flops() * 4, static_cast<double>(bytes_of(t, p.m * p.k + p.k * p.n + 2 * p.m * p.n)));
  ctx.run([=, p = std::move(p)](const Args& args, Worker& worker) {
    plain_gemm_run(worker, t, p, args.in(0), args.in(1), args.out(0));
    if (!has_c && alpha == 1) return;
    worker.barrier();
    with_plain_type(t, [&](auto tag) {
      using T = typename decltype(tag)::type;
      worker.parallel_for(p.m, grain_for(p.n), [&](int64_t b, int64_t e) {
        finish(args.out<T>(0), has_c ? args.in<T>(2) : nullptr, f, alpha, beta, b, e, p.n);
      });
    });
  });
}

void prepare(PrepareContext& ctx) {
  const float alpha = ctx.node.attr_float("alpha", 1), beta = ctx.node.attr_float("beta", 1);
  const bool has_c = ctx.has_input(2) && beta != 0;
  GemmProblem p = matmul_problem(ctx.shape(0), ctx.shape(1), form_of(ctx.node));
  AddendForm c;
  if (has_c) {
    const Shape &given = ctx.shape(2), &out = ctx.out_shape(0);
    for (int i = 0; i < given.rank(); ++i)
      if (given[i] != 1 && given[i] != out[i + 2 - given.rank()]) ctx.fail("C ", given.str(), " should broadcast to ", out.str());
    c = *addend_form(given, out, p, false, false);
    c.scale = beta;
  }
  if (ctx.dtype(0) != DType::kFloat) return prepare_other(ctx, std::move(p), std::move(c), alpha, beta);
  const bool constant = ctx.constant(1) != nullptr;
  GemmRun gemm = constant ? GemmRun(ctx, 1, std::move(p)) : GemmRun(std::move(p));
  if (constant) ctx.drops(1);
  gemm.alpha = alpha;
  gemm.add[0] = std::move(c);
  ctx.cost(gemm.problem().flops(), gemm.bytes());
  ctx.workspace(gemm.workspace(ctx.threads()));
  ctx.run([gemm = std::move(gemm), has_c](const Args& args, Worker& worker) {
    gemm.run(worker, args.in<float>(0), args.in<float>(1), args.out<float>(0), has_c ? args.in<float>(2) : nullptr, nullptr, args.workspace());
  });
}

// Opset 6 and below broadcast C only where the attribute says so; a C that fits needs no saying.
const OpRegistration rows({{"Gemm", "", 1, infer, half_as_float<prepare>}});

void grad(GradContext& c) {
  GraphWriter& w = c.w;
  const MatMulForm f = form_of(c.node);
  const float alpha = c.node.attr_float("alpha", 1), beta = c.node.attr_float("beta", 1);
  Value *a = c.x(0), *b = c.x(1), *dy = c.dy();
  const auto product = [&](Value* l, bool trans_l, Value* r, bool trans_r) {
    return w.op("Gemm", {l, r}, {{"alpha", alpha}, {"transA", int64_t{trans_l}}, {"transB", int64_t{trans_r}}});
  };
  if (c.wants(0)) c.set(0, f.trans_a ? product(b, f.trans_b, dy, true) : product(dy, false, b, !f.trans_b));
  if (c.wants(1)) c.set(1, f.trans_b ? product(dy, true, a, f.trans_a) : product(a, !f.trans_a, dy, false));
  if (c.wants(2)) c.set(2, w.sum_to(w.scale(dy, beta), c.x(2)));
}

const GradRegistration grads({{"Gemm", "", grad}});

}  // namespace
}  // namespace tiercel

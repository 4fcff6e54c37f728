// MatMul: numpy.matmul.
#include "ops/gemm_run.h"
#include "ops/grad.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  const bool integer = t == DType::kInt32 || t == DType::kInt64 || t == DType::kUInt32 || t == DType::kUInt64;
  ctx.check(is_real(t) || integer, "A should be float, double, float16, bfloat16 or a 32- or 64-bit integer, got ", dtype_name(t));
  ctx.check(ctx.dtype(1) == t, "A and B should have one type");
  if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_output(0, Type::tensor(t));
  ctx.set_output(0, t, matmul_shape(ctx, ctx.shape(0), ctx.shape(1)));
}

void prepare(PrepareContext& ctx) {
  GemmProblem p = matmul_problem(ctx.shape(0), ctx.shape(1));
  if (ctx.dtype(0) != DType::kFloat) {
    const DType t = ctx.dtype(0);
    ctx.cost(p.flops() * 4, static_cast<double>(bytes_of(t, ctx.shape(0).count() + ctx.shape(1).count() + ctx.out_shape(0).count())));
    return ctx.run([t, p = std::move(p)](const Args& args, Worker& worker) { plain_gemm_run(worker, t, p, args.in(0), args.in(1), args.out(0)); });
  }
  const bool constant = ctx.constant(1) != nullptr;
  GemmRun gemm = constant ? GemmRun(ctx, 1, std::move(p)) : GemmRun(std::move(p));
  if (constant) ctx.drops(1);
  ctx.cost(gemm.problem().flops(), gemm.bytes());
  ctx.workspace(gemm.workspace(ctx.threads()));
  ctx.run([gemm = std::move(gemm)](const Args& args, Worker& worker) {
    gemm.run(worker, args.in<float>(0), args.in<float>(1), args.out<float>(0), nullptr, nullptr, args.workspace());
  });
}

const OpRegistration rows({{"MatMul", "", 1, infer, half_as_float<prepare>}});

// dA = dY B', dB = A' dY; a vector is a matrix of one row or column meanwhile.
void grad(GradContext& c) {
  GraphWriter& w = c.w;
  Value *a = c.x(0), *b = c.x(1), *dy = c.dy();
  const int ra = c.rank(a), rb = c.rank(b);
  if (rb == 1) { b = w.op("Unsqueeze", {b, w.ints({1})}); dy = w.op("Unsqueeze", {dy, w.ints({-1})}); }
  if (ra == 1) { a = w.op("Unsqueeze", {a, w.ints({0})}); dy = w.op("Unsqueeze", {dy, w.ints({-2})}); }
  const auto back = [&](int i, Value* g, Value* matrix) {
    g = w.sum_to(g, matrix);
    return matrix == c.x(i) ? g : w.reshape_like(g, c.x(i));
  };
  if (c.wants(0)) c.set(0, back(0, w.op("FusedMatMul", {dy, b}, {{"transB", int64_t{1}}}, kTiercelDomain), a));
  if (!c.wants(1)) return;
  if (ra > 2 && rb <= 2) {  // one product over the rows of all batches
    const auto rows = [&](Value* v) {
      Value* const last = w.op("Shape", {v}, {{"start", int64_t{-1}}});
      return w.op("Reshape", {v, w.op("Concat", {w.ints({-1}), last}, {{"axis", int64_t{0}}})});
    };
    c.set(1, back(1, w.op("Gemm", {rows(a), rows(dy)}, {{"transA", int64_t{1}}}), b));
  } else {
    c.set(1, back(1, w.op("FusedMatMul", {a, dy}, {{"transA", int64_t{1}}}, kTiercelDomain), b));
  }
}

const GradRegistration grads({{"MatMul", "", grad}});

}  // namespace
}  // namespace tiercel

// MatMul: numpy.matmul.
#include "ops/gemm_run.h"
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

}  // namespace
}  // namespace tiercel

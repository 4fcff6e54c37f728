// Det: the determinant of each matrix, from its LU decomposition with row pivots, in double.
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  Shape s = ctx.shape(0);
  const int rank = s.rank();
  ctx.check(rank >= 2, "the input should have rank 2 at least");
  const Dim n = unify(ctx, s[rank - 2], s[rank - 1], "rows and columns of the matrices");
  // The decomposition is worked out beside the input.
  if (n >= 0) check_fits(ctx, DType::kDouble, {n, n});
  s.resize(rank - 2);
  if (s.known()) check_fits(ctx, ctx.dtype(0), s);
  ctx.set_output(0, ctx.dtype(0), s);
}

double determinant(double* a, int64_t n) {
  double det = 1;
  for (int64_t c = 0; c < n; ++c) {
    int64_t pivot = c;
    for (int64_t r = c + 1; r < n; ++r)
      if (std::abs(a[r * n + c]) > std::abs(a[pivot * n + c])) pivot = r;
    const double p = a[pivot * n + c];
    if (p == 0) return 0;
    if (pivot != c) {
      std::swap_ranges(a + c * n + c, a + (c + 1) * n, a + pivot * n + c);
      det = -det;
    }
    det *= p;
    for (int64_t r = c + 1; r < n; ++r) {
      const double f = a[r * n + c] / p;
      if (f == 0) continue;
      const double* from = a + c * n;
      double* to = a + r * n;
      for (int64_t k = c + 1; k < n; ++k) to[k] -= f * from[k];
    }
  }
  return det;
}

template <class T> void prepare_as(PrepareContext& ctx) {
  const int64_t n = ctx.shape(0).back(), count = ctx.out_shape(0).count();
  const double flops = static_cast<double>(count) * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
  ctx.cost(flops, static_cast<double>(count * n * n) * sizeof(T));
  if (count <= 1) ctx.serial();
  ctx.workspace((count <= 1 ? 1 : ctx.threads()) * n * n * static_cast<int64_t>(sizeof(double)));
  ctx.run([=](const Args& a, Worker& w) {
    double* scratch = a.workspace<double>() + w.index() * n * n;
    w.parallel_for(count, grain_for(n * n * n), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const T* x = a.in<T>(0) + i * n * n;
        for (int64_t k = 0; k < n * n; ++k) scratch[k] = static_cast<double>(x[k]);
        a.out<T>(0)[i] = static_cast<T>(determinant(scratch, n));
      }
    });
  });
}

void prepare(PrepareContext& ctx) { ctx.dtype(0) == DType::kDouble ? prepare_as<double>(ctx) : prepare_as<float>(ctx); }

const OpRegistration rows({{"Det", "", 11, infer, half_as_float<prepare>}});

}  // namespace
}  // namespace tiercel

// ai.tiercel.DetGrad (dy, x): dy times the transposed adjugate of each matrix, which is the determinant's derivative for singular ones too.
//   P A Q = L U with complete pivoting, U = [U1 w; 0 u]:  adj A = det P det Q * Q adj(U) L^-1 P,  adj U = det U1 * [u U1^-1, -U1^-1 w; 0, 1]
// so that nothing is divided by the last pivot. In double.
#include <cmath>
#include <numeric>
#include <vector>

#include "ops/grad.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.check(ctx.dtype(1) == ctx.dtype(0), "dy and x should have one type");
  ctx.set_output(0, ctx.type(1));
}

// g (n by n) = scale * adj(a)^T; a is overwritten.
void cofactors(double* a, int64_t n, double scale, double* g) {
  std::fill_n(g, n * n, 0.0);
  std::vector<int64_t> p(static_cast<size_t>(n)), q(static_cast<size_t>(n));
  std::iota(p.begin(), p.end(), int64_t{0});
  std::iota(q.begin(), q.end(), int64_t{0});
  double first = scale;  // times det U1
  for (int64_t k = 0; k + 1 < n; ++k) {
    int64_t r = k, c = k;
    for (int64_t i = k; i < n; ++i)
      for (int64_t j = k; j < n; ++j) if (std::fabs(a[i * n + j]) > std::fabs(a[r * n + c])) r = i, c = j;
    const double pivot = a[r * n + c];
    if (pivot == 0) return;  // rank n - 2 at most: all minors are zero
    if (r != k) { std::swap_ranges(a + r * n, a + (r + 1) * n, a + k * n); std::swap(p[static_cast<size_t>(r)], p[static_cast<size_t>(k)]); first = -first; }
    if (c != k) {
      for (int64_t i = 0; i < n; ++i) std::swap(a[i * n + c], a[i * n + k]);
      std::swap(q[static_cast<size_t>(c)], q[static_cast<size_t>(k)]);
      first = -first;
    }
    first *= pivot;
    for (int64_t i = k + 1; i < n; ++i) {
      const double f = a[i * n + k] /= pivot;
      for (int64_t j = k + 1; j < n; ++j) a[i * n + j] -= f * a[k * n + j];
    }
  }
  const int64_t m = n - 1;
  const double u = a[m * n + m];
  std::vector<double> z(static_cast<size_t>(n));
  for (int64_t j = 0; j < n; ++j) {  // column j of adj(U) L^-1
    std::fill(z.begin(), z.end(), 0.0);
    z[static_cast<size_t>(j)] = 1;
    for (int64_t i = j + 1; i < n; ++i)
      for (int64_t k = j; k < i; ++k) z[static_cast<size_t>(i)] -= a[i * n + k] * z[static_cast<size_t>(k)];
    for (int64_t i = 0; i < m; ++i) z[static_cast<size_t>(i)] = u * z[static_cast<size_t>(i)] - a[i * n + m] * z[static_cast<size_t>(m)];
    for (int64_t i = m - 1; i >= 0; --i) {
      for (int64_t k = i + 1; k < m; ++k) z[static_cast<size_t>(i)] -= a[i * n + k] * z[static_cast<size_t>(k)];
      z[static_cast<size_t>(i)] /= a[i * n + i];
    }
    for (int64_t i = 0; i < n; ++i) g[p[static_cast<size_t>(j)] * n + q[static_cast<size_t>(i)]] = first * z[static_cast<size_t>(i)];
  }
}

template <class T> void make(PrepareContext& ctx) {
  const int64_t n = ctx.shape(1).back(), count = ctx.shape(0).count();
  const double flops = 3 * static_cast<double>(count) * static_cast<double>(n) * static_cast<double>(n) * static_cast<double>(n);
  ctx.cost(flops, static_cast<double>(2 * count * n * n) * sizeof(T));
  ctx.workspace(ctx.threads() * 2 * n * n * static_cast<int64_t>(sizeof(double)));
  ctx.run([=](const Args& args, Worker& w) {
    double *const a = args.workspace<double>() + w.index() * 2 * n * n, *const g = a + n * n;
    w.parallel_for(count, grain_for(n * n * n), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const T* x = args.in<T>(1) + i * n * n;
        for (int64_t k = 0; k < n * n; ++k) a[k] = static_cast<double>(x[k]);
        cofactors(a, n, static_cast<double>(args.in<T>(0)[i]), g);
        for (int64_t k = 0; k < n * n; ++k) args.out<T>(0)[i * n * n + k] = static_cast<T>(g[k]);
      }
    });
  });
}

void prepare(PrepareContext& ctx) {
  const Shape &x = ctx.shape(1), &dy = ctx.shape(0);
  const int rank = x.rank();
  if (rank < 2 || x[rank - 1] != x[rank - 2] || dy.count() != x.count(0, rank - 2)) ctx.fail("shapes ", dy.str(), " and ", x.str(), " are not of one Det");
  if (ctx.out_shape(0).count() == 0) return ctx.run([](const Args&, Worker&) {});
  ctx.dtype(0) == DType::kDouble ? make<double>(ctx) : make<float>(ctx);
}

const OpRegistration rows({{"DetGrad", kTiercelDomain, 1, infer, half_as_float<prepare>}});
const GradRegistration grads({{"Det", "", [](GradContext& c) { c.set(0, c.w.op("DetGrad", {c.dy(), c.x(0)}, {}, kTiercelDomain)); }}});

}  // namespace
}  // namespace tiercel

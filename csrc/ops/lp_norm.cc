// LpNormalization, and ai.tiercel L2Normalization (x) -> y:  y = x / n, n = max(|x|_2, epsilon), or |x|_2 + epsilon with
// mode = "add", or sqrt(|x|_2^2 + epsilon) with mode = "inside".
#include "kernels/norm/norm.h"
#include "kernels/reduce/reduce.h"
#include "ops/grad.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

enum class Mode { kPlain, kMax, kAdd, kInside };

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.set_output(0, ctx.type(0));
  if (ctx.node.domain.empty()) {
    const int64_t p = ctx.node.attr_int("p", 2);
    ctx.check(p == 1 || p == 2, "p should be 1 or 2, got ", p);
  } else {
    const std::string mode = ctx.node.attr_string("mode", "max");
    ctx.check(mode == "max" || mode == "add" || mode == "inside", "mode \"", mode, "\" is not known");
  }
  if (ctx.ranked(0)) ctx.axis(ctx.node.attr_int("axis", -1), ctx.shape(0).rank());
}

// 1 / n; 0 where a plain norm is 0: zeros stay zeros
template <class T> T inverse(T sum, int64_t p, Mode mode, T epsilon) {
  if (mode == Mode::kInside) return 1 / std::sqrt(sum + epsilon);
  const T n = p == 2 ? std::sqrt(sum) : sum;
  if (mode == Mode::kMax) return 1 / (n < epsilon ? epsilon : n);
  if (mode == Mode::kAdd) return 1 / (n + epsilon);
  return n == 0 ? 0 : 1 / n;
}

void prepare(PrepareContext& ctx) {
  const Shape& s = ctx.shape(0);
  const AxisView v(s, normalize_axis(ctx.node.attr_int("axis", -1), s.rank()));
  const int64_t p = ctx.node.domain.empty() ? ctx.node.attr_int("p", 2) : 2;
  const std::string name = ctx.node.attr_string("mode", "max");
  const Mode mode = ctx.node.domain.empty() ? Mode::kPlain : name == "max" ? Mode::kMax : name == "add" ? Mode::kAdd : Mode::kInside;
  const float epsilon = ctx.node.attr_float("epsilon", 1e-12f);
  const double count = static_cast<double>(s.count());
  ctx.cost(4 * count, 2 * static_cast<double>(bytes_of(ctx.dtype(0), 1)) * count);
  ctx.inplace(0, 0);
  if (ctx.dtype(0) == DType::kDouble)
    return ctx.run([=](const Args& a, Worker& w) {
      const double* x = a.in<double>(0);
      double* y = a.out<double>(0);
      w.parallel_for(v.outer * v.inner, grain_for(v.n), [&](int64_t b, int64_t e) {
        for (int64_t i = b; i < e; ++i) {
          const int64_t at = i / v.inner * v.n * v.inner + i % v.inner;
          double sum = 0;
          for (int64_t k = 0; k < v.n; ++k) sum += p == 2 ? x[at + k * v.inner] * x[at + k * v.inner] : std::fabs(x[at + k * v.inner]);
          const double scale = inverse<double>(sum, p, mode, epsilon);
          for (int64_t k = 0; k < v.n; ++k) y[at + k * v.inner] = x[at + k * v.inner] * scale;
        }
      });
    });
  const auto map = static_cast<size_t>(p == 2 ? ReduceMap::kSumSquare : ReduceMap::kSumAbs);
  constexpr int64_t kStrip = 256;
  const int64_t strip = v.inner == 1 ? 1 : kStrip, strips = ceil_div(v.inner, strip);
  ctx.run([=](const Args& a, Worker& w) {
    w.parallel_for(v.outer * strips, grain_for(v.n * std::min(strip, v.inner), 8192), [&](int64_t b, int64_t e) {
      float sums[kStrip], zeros[kStrip] = {};
      for (int64_t i = b; i < e; ++i) {
        const int64_t c = i % strips * strip, at = i / strips * v.n * v.inner + c, cols = std::min(strip, v.inner - c);
        const float* x = a.in<float>(0) + at;
        float* y = a.out<float>(0) + at;
        if (v.inner == 1) {
          reduce().rows[map](x, 1, 0, v.n, nullptr, sums);
          norm().affine(x, v.n, 0, inverse(sums[0], p, mode, epsilon), 0, {}, y);
        } else {
          reduce().columns[map](x, v.n, v.inner, cols, nullptr, false, sums);
          for (int64_t k = 0; k < cols; ++k) sums[k] = inverse(sums[k], p, mode, epsilon);
          norm().affine_rows(x, v.n, v.inner, cols, zeros, sums, zeros, {}, y);
        }
      }
    });
  });
}

const OpRegistration rows({
    {"LpNormalization", "", 1, infer, half_as_float<prepare>},
    {"L2Normalization", kTiercelDomain, 1, infer, half_as_float<prepare>},
});

// y = x / |x|_p: (dy - slope sum(dy y)) / |x|_p, with the norm's own slope.
void grad(GradContext& c) {
  GraphWriter& w = c.w;
  Value *const x = c.x(0), *const axis = w.ints({c.node.attr_int("axis", -1)});
  const bool first = c.node.attr_int("p", 2) == 1;
  Value* const norm = w.op(first ? "ReduceL1" : "ReduceL2", {x, axis}, {{"keepdims", int64_t{1}}});
  Value* const along = w.op("ReduceSum", {w.mul(c.dy(), c.y()), axis}, {{"keepdims", int64_t{1}}});
  Value* const slope = first ? w.op("Sign", {x}) : c.y();
  Value *const zero = w.scalar_like(0, x), *const none = w.op("Equal", {norm, zero});  // there zeros stay zeros
  c.set(0, w.op("Where", {none, zero, w.div(w.sub(c.dy(), w.mul(slope, along)), norm)}));
}
const GradRegistration grads({{"LpNormalization", "", grad}});

}  // namespace
}  // namespace tiercel

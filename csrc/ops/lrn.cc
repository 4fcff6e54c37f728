// LRN: local response normalisation across channels.
//   y = x / (bias + alpha / size * sum x^2)^beta over the channels [c - (size - 1) / 2, c + size / 2]
#include "kernels/norm/norm.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.check(ctx.node.attr_int("size", 0) > 0, "size should be positive, got ", ctx.node.attr_int("size", 0));
  if (ctx.ranked(0)) ctx.check(ctx.shape(0).rank() >= 2, "x should have the axes N, C and more");
  ctx.set_output(0, ctx.type(0));
}

void prepare(PrepareContext& ctx) {
  const Shape& s = ctx.shape(0);
  const int64_t batch = s[0], channels = s[1], space = s.count(2, s.rank());
  const int64_t size = ctx.node.attr_int("size", 1), before = (size - 1) / 2, after = size / 2;
  const float alpha = ctx.node.attr_float("alpha", 1e-4f) / static_cast<float>(size), beta = ctx.node.attr_float("beta", 0.75f),
              bias = ctx.node.attr_float("bias", 1);
  const double count = static_cast<double>(s.count());
  ctx.cost(count * (40 + 2 * static_cast<double>(std::min(size, channels))), 2 * static_cast<double>(bytes_of(ctx.dtype(0), 1)) * count);
  if (ctx.dtype(0) == DType::kDouble)
    return ctx.run([=](const Args& a, Worker& w) {
      const double* x = a.in<double>(0);
      w.parallel_for(batch * channels, grain_for(space), [&](int64_t b, int64_t e) {
        for (int64_t i = b; i < e; ++i) {
          const int64_t c = i % channels, first = std::max<int64_t>(0, c - before), last = c + std::min(after, channels - 1 - c);
          for (int64_t j = 0; j < space; ++j) {
            double sum = 0;
            for (int64_t k = first; k <= last; ++k) {
              const double v = x[(i - c + k) * space + j];
              sum += v * v;
            }
            a.out<double>(0)[i * space + j] = x[i * space + j] / std::pow(bias + alpha * sum, static_cast<double>(beta));
          }
        }
      });
    });
  constexpr int64_t kStrip = 256;
  const int64_t strips = ceil_div(space, kStrip);
  ctx.run([=](const Args& a, Worker& w) {
    w.parallel_for(batch * strips, grain_for(channels * std::min(space, kStrip)), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const int64_t j = i % strips * kStrip, at = i / strips * channels * space + j;
        norm().lrn(a.in<float>(0) + at, channels, space, std::min(kStrip, space - j), before, std::min(after, channels), bias, alpha, beta,
                   a.out<float>(0) + at);
      }
    });
  });
}

const OpRegistration rows({{"LRN", "", 1, infer, half_as_float<prepare>}});

}  // namespace
}  // namespace tiercel

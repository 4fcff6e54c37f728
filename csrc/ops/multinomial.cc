// Multinomial: classes drawn with the probabilities whose logarithms, up to a constant for each row, are the input.
#include "ops/movement.h"
#include "ops/numeric.h"
#include "ops/random.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  const int64_t t = ctx.node.attr_int("dtype", static_cast<int64_t>(DType::kInt32)), samples = ctx.node.attr_int("sample_size", 1);
  ctx.check(t == static_cast<int64_t>(DType::kInt32) || t == static_cast<int64_t>(DType::kInt64), "attribute 'dtype' should be int32 or int64, got ", t);
  ctx.check(samples >= 0, "attribute 'sample_size' should not be negative, got ", samples);
  Shape out{ctx.fresh(), samples};
  if (ctx.ranked(0)) {
    const Shape& s = ctx.shape(0);
    ctx.check(s.rank() == 2, "the input should be [batch, classes]");
    ctx.check(s[1] != 0, "there should be one class at least");
    out[0] = s[0];
  }
  if (out.known()) check_fits(ctx, static_cast<DType>(t), out);
  ctx.set_output(0, static_cast<DType>(t), out);
}

// Running sums of the probabilities, times a constant. A row of minus infinities is one of equal numbers; NaN counts as never.
template <class T> void running_sums(const T* x, double* sums, int64_t n) {
  double most = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, static_cast<double>(x[i]));
  for (int64_t i = 0; i < n; ++i) {
    const double v = static_cast<double>(x[i]);
    sums[i] = sum += v == most ? 1 : v < most ? std::exp(v - most) : 0;
  }
}

template <class T> void prepare_as(PrepareContext& ctx) {
  const int64_t rows = ctx.shape(0)[0], classes = ctx.shape(0)[1], samples = ctx.out_shape(0)[1];
  const bool wide = ctx.out_dtype(0) == DType::kInt64;
  ctx.workspace(rows * classes * static_cast<int64_t>(sizeof(double)));
  ctx.cost(20 * static_cast<double>(rows * classes) + 40 * static_cast<double>(rows * samples), 12 * static_cast<double>(rows * classes));
  ctx.run([=, stream = Stream(ctx.node)](const Args& a, Worker& w) {
    const Philox random = stream.start(w);
    double* sums = a.workspace<double>();
    w.parallel_for(rows, grain_for(classes), [&](int64_t b, int64_t e) {
      for (int64_t r = b; r < e; ++r) running_sums(a.in<T>(0) + r * classes, sums + r * classes, classes);
    });
    w.barrier();
    w.parallel_for(rows * samples, 1024, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const double *first = sums + i / samples * classes, *last = first + classes;
        const double u = random.doubles(static_cast<uint64_t>(i))[0] * last[-1];
        const double* at = std::upper_bound(first, last, u);
        if (at == last) at = std::lower_bound(first, last, last[-1]);  // u was rounded up to the sum of all
        if (wide) a.out<int64_t>(0)[i] = at - first;
        else a.out<int32_t>(0)[i] = static_cast<int32_t>(at - first);
      }
    });
  });
}

void prepare(PrepareContext& ctx) { ctx.dtype(0) == DType::kDouble ? prepare_as<double>(ctx) : prepare_as<float>(ctx); }

const OpRegistration rows({{"Multinomial", "", 7, infer, half_as_float<prepare>, nullptr, kRandom}});

}  // namespace
}  // namespace tiercel

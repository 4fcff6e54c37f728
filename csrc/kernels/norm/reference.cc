#include <algorithm>
#include <cmath>

#include "kernels/norm/norm.h"

namespace tiercel::reference {

void row_norm(const RowNorm& a, int64_t rows, bool rms) {
  for (int64_t r = 0; r < rows; ++r) {
    const auto u = [&](int64_t i) {
      return static_cast<double>(a.x[r * a.n + i]) + (a.skip ? a.skip[r * a.n + i] : 0) + (a.shift ? a.shift[i] : 0);
    };
    double mean = 0, square = 0;
    if (!rms) for (int64_t i = 0; i < a.n; ++i) mean += u(i) / static_cast<double>(a.n);
    for (int64_t i = 0; i < a.n; ++i) square += (u(i) - mean) * (u(i) - mean) / static_cast<double>(a.n);
    const double rstd = 1 / std::sqrt(square + a.epsilon);
    for (int64_t i = 0; i < a.n; ++i) {
      const double v = u(i);
      if (a.sum) a.sum[r * a.n + i] = static_cast<float>(v);
      a.y[r * a.n + i] = static_cast<float>((v - mean) * rstd * (a.scale ? a.scale[i] : 1) + (a.bias ? a.bias[i] : 0));
    }
    if (a.mean) a.mean[r] = static_cast<float>(mean);
    if (a.rstd) a.rstd[r] = static_cast<float>(rstd);
  }
}

void moments(const float* x, int64_t n, int64_t stride, double* mean, double* m2) {
  *mean = *m2 = 0;
  for (int64_t i = 0; i < n; ++i) *mean += x[i * stride] / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) *m2 += (x[i * stride] - *mean) * (x[i * stride] - *mean);
}

void lrn(const float* x, int64_t channels, int64_t stride, int64_t n, int64_t before, int64_t after, float bias, float alpha,
         float beta, float* y) {
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < n; ++i) {
      double s = 0;
      for (int64_t k = std::max<int64_t>(0, c - before); k <= std::min(channels - 1, c + after); ++k)
        s += static_cast<double>(x[k * stride + i]) * x[k * stride + i];
      y[c * stride + i] = static_cast<float>(x[c * stride + i] / std::pow(bias + alpha * s, beta));
    }
}

}  // namespace tiercel::reference

#include "kernels/norm/norm_grad.h"

#include <cmath>

namespace tiercel {

void reference::layer_norm_grad(const LayerNormGrad<double>& a, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    const double *dy = a.dy + r * a.n, *x = a.x + r * a.n, n = static_cast<double>(a.n);
    double* dx = a.dx + r * a.n;
    double mean = 0, square = 0, g_mean = 0, g_x = 0;
    for (int64_t i = 0; i < a.n && !a.rms; ++i) mean += x[i] / n;
    for (int64_t i = 0; i < a.n; ++i) square += (x[i] - mean) * (x[i] - mean);
    const double rstd = 1 / std::sqrt(square / n + a.epsilon);
    for (int64_t i = 0; i < a.n; ++i) {
      const double g = dy[i] * (a.scale ? a.scale[i] : 1);
      g_mean += g / n;
      g_x += g * (x[i] - mean) * rstd / n;
    }
    if (a.rms) g_mean = 0;
    for (int64_t i = 0; i < a.n; ++i) {
      const double d = dy[i], xn = (x[i] - mean) * rstd, g = d * (a.scale ? a.scale[i] : 1);
      if (a.dscale) a.dscale[i] += d * xn;
      if (a.dbias) a.dbias[i] += d;
      dx[i] = rstd * (g - g_mean - xn * g_x);
    }
  }
}

void layer_norm_grad(const LayerNormGrad<float>& g, int64_t rows) { norm_grad().layer_norm(g, rows); }
void layer_norm_grad(const LayerNormGrad<double>& g, int64_t rows) { reference::layer_norm_grad(g, rows); }
void add_channel_sums(const float* dy, const float* x, int64_t n, float mean, double sums[2]) { norm_grad().channel_sums(dy, x, n, mean, sums); }
void add_channel_sums(const double* dy, const double* x, int64_t n, double mean, double sums[2]) {
  for (int64_t i = 0; i < n; ++i) sums[0] += dy[i], sums[1] += dy[i] * (x[i] - mean);
}
void channel_grad(const float* dy, const float* x, int64_t n, float by, float slope, float mean, float shift, float* dx) {
  norm_grad().channel(dy, x, n, by, slope, mean, shift, dx);
}
void channel_grad(const double* dy, const double* x, int64_t n, double by, double slope, double mean, double shift, double* dx) {
  for (int64_t i = 0; i < n; ++i) dx[i] = by * dy[i] + slope * (x[i] - mean) + shift;
}

TIERCEL_KERNEL_DISPATCH(NormGradKernels, norm_grad)

}  // namespace tiercel

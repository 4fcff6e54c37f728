// Backwards through normalisations: rows (layer and RMS norms) and channels of images (batch norms).
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

// With r = 1 / sqrt(var + epsilon), xn = (x - mean) r and g = dy scale, for each row of n:
//   dx = r (g - mean g - xn mean(g xn));  dscale += dy xn;  dbias += dy
// RMS: the mean of x and that of g are left out, and r = 1 / sqrt(mean x^2 + epsilon). dx may be dy. Null: scale of ones; not wanted.
template <class T> struct LayerNormGrad {
  const T *dy = nullptr, *x = nullptr, *scale = nullptr;
  T *dx = nullptr, *dscale = nullptr, *dbias = nullptr;  // both of the latter, or none
  int64_t n = 0;
  bool rms = false;
  double epsilon = 0;
};

struct NormGradKernels {
  void (*layer_norm)(const LayerNormGrad<float>& g, int64_t rows);
  // sums[0] += sum dy, sums[1] += sum dy (x - mean)
  void (*channel_sums)(const float* dy, const float* x, int64_t n, float mean, double sums[2]);
  // dx = by dy + slope (x - mean) + shift; dx may be dy
  void (*channel)(const float* dy, const float* x, int64_t n, float by, float slope, float mean, float shift, float* dx);
};
TIERCEL_KERNEL_TABLE(NormGradKernels, norm_grad)

void layer_norm_grad(const LayerNormGrad<float>& g, int64_t rows);
void layer_norm_grad(const LayerNormGrad<double>& g, int64_t rows);
void add_channel_sums(const float* dy, const float* x, int64_t n, float mean, double sums[2]);
void add_channel_sums(const double* dy, const double* x, int64_t n, double mean, double sums[2]);
void channel_grad(const float* dy, const float* x, int64_t n, float by, float slope, float mean, float shift, float* dx);
void channel_grad(const double* dy, const double* x, int64_t n, double by, double slope, double mean, double shift, double* dx);

namespace reference {
void layer_norm_grad(const LayerNormGrad<double>& g, int64_t rows);
}

}  // namespace tiercel

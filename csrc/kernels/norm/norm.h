// Normalisations of f32 arrays: rows as layer and RMS normalisation take them; moments and affine maps for the norms of images.
#pragma once
#include <cstdint>

#include "kernels/activation.h"
#include "kernels/dispatch.h"

namespace tiercel {

// Rows of n:  u = x + skip + shift,  y = (u - mean u) r scale + bias,  r = 1 / sqrt(mean (u - mean u)^2 + epsilon)
//   RMS:      y = u r scale + bias,  r = 1 / sqrt(mean u^2 + epsilon)
// Null pointers: the term is absent, the result is not wanted. Two passes over the row for the moments. y may be x or skip.
struct RowNorm {
  const float *x, *skip = nullptr, *shift = nullptr;  // [rows, n], [rows, n], [n]
  const float *scale = nullptr, *bias = nullptr;      // [n]
  float* y;
  float *sum = nullptr, *mean = nullptr, *rstd = nullptr;  // u [rows, n]; [rows]
  int64_t n;
  float epsilon;
};

// The same of `cols` columns, `stride` apart along the normalised axis of n; scale and bias are [n].
struct ColumnNorm {
  const float* x;
  const float *scale = nullptr, *bias = nullptr;
  float* y;
  int64_t n, stride, cols;  // cols <= kColumnNormStrip
  float epsilon;
};
inline constexpr int64_t kColumnNormStrip = 256;

struct NormKernels {
  void (*layer_norm)(const RowNorm& a, int64_t rows);
  void (*rms_norm)(const RowNorm& a, int64_t rows);
  void (*layer_norm_columns)(const ColumnNorm& a);
  void (*rms_norm_columns)(const ColumnNorm& a);
  // Mean of x and sum of (x - mean)^2: two passes over blocks of 4096, merged by Chan's formula. n > 0.
  void (*moments)(const float* x, int64_t n, double* mean, double* m2);
  // The same of 16 channels side by side, x[n][16].
  void (*moments16)(const float* x, int64_t n, double mean[16], double m2[16]);
  // y = act((x - c) a + b), elementwise; y may be x
  void (*affine)(const float* x, int64_t n, float c, float a, float b, const Activation& act, float* y);
  // y[r][i] = act((x[r][i] - c[i]) a[i] + b[i]), rows of n `stride` apart
  void (*affine_rows)(const float* x, int64_t rows, int64_t stride, int64_t n, const float* c, const float* a, const float* b,
                      const Activation& act, float* y);
  // Local response: y[c][i] = x[c][i] / (bias + alpha sum_k x[k][i]^2)^beta, k from c - before to c + after within
  // [0, channels); i < n of planes `stride` apart.
  void (*lrn)(const float* x, int64_t channels, int64_t stride, int64_t n, int64_t before, int64_t after, float bias, float alpha,
              float beta, float* y);
};
TIERCEL_KERNEL_TABLE(NormKernels, norm)

namespace reference {
void row_norm(const RowNorm& a, int64_t rows, bool rms);
void moments(const float* x, int64_t n, int64_t stride, double* mean, double* m2);
void lrn(const float* x, int64_t channels, int64_t stride, int64_t n, int64_t before, int64_t after, float bias, float alpha,
         float beta, float* y);
}  // namespace reference

}  // namespace tiercel

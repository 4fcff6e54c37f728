#include "kernels/norm/norm_grad.h"
#include "simd/vec.h"

namespace tiercel::TIERCEL_ISA {
namespace {

inline F part(const float* p, int64_t i, int64_t n) { return i + kLanes <= n ? load(p + i) : load(p + i, n - i); }
inline void put(float* p, int64_t i, int64_t n, F v) {
  if (i + kLanes <= n) store(p + i, v);
  else store(p + i, v, n - i);
}
// v in the lanes that exist, zero in the others
inline F exists(F v, int64_t i, int64_t n) {
  return i + kLanes <= n ? v : select(lt(to_float(iota()), set1((float)(n - i))), v, zero());
}

void layer_norm(const LayerNormGrad<float>& a, int64_t rows) {
  const int64_t n = a.n;
  const float inverse = 1.0f / (float)n;
  for (int64_t r = 0; r < rows; ++r) {
    const float *dy = a.dy + r * n, *x = a.x + r * n;
    float* dx = a.dx + r * n;
    F total = zero();
    for (int64_t i = 0; i < n && !a.rms; i += kLanes) total = total + part(x, i, n);
    const F mean = set1(sum(total) * inverse);
    F square = zero(), g_sum = zero(), g_x = zero();
    for (int64_t i = 0; i < n; i += kLanes) {
      const F d = exists(part(x, i, n) - mean, i, n), s = a.scale ? part(a.scale, i, n) : set1(1.0f), g = part(dy, i, n) * s;
      square = fma(d, d, square);
      g_sum = g_sum + g;
      g_x = fma(g, d, g_x);
    }
    const float rstd = 1.0f / __builtin_sqrtf(sum(square) * inverse + (float)a.epsilon);
    const F by = set1(rstd), g_mean = set1(a.rms ? 0.0f : sum(g_sum) * inverse), slope = set1(sum(g_x) * inverse * rstd);
    for (int64_t i = 0; i < n; i += kLanes) {
      const F d = part(dy, i, n), xn = (part(x, i, n) - mean) * by, s = a.scale ? part(a.scale, i, n) : set1(1.0f);
      if (a.dscale) {
        put(a.dscale, i, n, fma(d, xn, part(a.dscale, i, n)));
        put(a.dbias, i, n, part(a.dbias, i, n) + d);
      }
      put(dx, i, n, by * (fnma(xn, slope, d * s) - g_mean));
    }
  }
}

void channel_sums(const float* dy, const float* x, int64_t n, float mean, double sums[2]) {
  constexpr int64_t kBlock = 4096;  // added up in float
  const F m = set1(mean);
  for (int64_t from = 0; from < n; from += kBlock) {
    const int64_t end = from + kBlock < n ? from + kBlock : n;
    F a = zero(), b = zero();
    for (int64_t i = from; i < end; i += kLanes) {
      const F d = part(dy, i, end);
      a = a + d;
      b = fma(d, part(x, i, end) - m, b);  // dy is zero beyond the end
    }
    sums[0] += sum(a);
    sums[1] += sum(b);
  }
}

void channel(const float* dy, const float* x, int64_t n, float by, float slope, float mean, float shift, float* dx) {
  const F a = set1(by), b = set1(slope), m = set1(mean), c = set1(shift);
  for (int64_t i = 0; i < n; i += kLanes) put(dx, i, n, fma(a, part(dy, i, n), fma(b, part(x, i, n) - m, c)));
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(NormGradKernels, norm_grad){&layer_norm, &channel_sums, &channel};

}  // namespace tiercel::TIERCEL_ISA

#include "kernels/attention/attention.h"

#include "simd/math.h"

namespace tiercel::TIERCEL_ISA {
namespace {

// scale s + mask in place; gives the largest. A NaN may be missed here: its exponential is NaN all the same.
template <int kMask>  // 0 none, 1 one value for the row, 2 one an element
float biased_max(float* s, int64_t n, float scale, const float* mask) {
  const F a = set1(scale), constant = set1(kMask == 1 ? mask[0] : 0.0f);
  F m = set1(-__builtin_inff());
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) {
    F v = load(s + j) * a;
    if constexpr (kMask == 1) v = v + constant;
    if constexpr (kMask == 2) v = v + load(mask + j);
    store(s + j, v);
    m = max(v, m);
  }
  float most = hmax(m);
  for (; j < n; ++j) {
    float v = s[j] * scale;
    if constexpr (kMask == 1) v += mask[0];
    if constexpr (kMask == 2) v += mask[j];
    s[j] = v;
    if (v > most) most = v;
  }
  return most;
}

// The largest of scale s, scale > 0; s stays as it is.
float scaled_max(const float* s, int64_t n, float scale) {
  F m0 = set1(-__builtin_inff()), m1 = m0;
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    m0 = max(load(s + j), m0);
    m1 = max(load(s + j + kLanes), m1);
  }
  float most = hmax(max(m0, m1));
  for (; j < n; ++j) if (s[j] > most) most = s[j];
  return most * scale;
}

// s_j = exp(scale s_j - most); gives their sum.
float exponentials(float* s, int64_t n, float scale, float most) {
  const F m = set1(most), a = set1(scale);
  F sum0 = zero(), sum1 = zero();
  int64_t j = 0;
  for (; j + 2 * kLanes <= n; j += 2 * kLanes) {
    const F e0 = exp(load(s + j) * a - m), e1 = exp(load(s + j + kLanes) * a - m);
    store(s + j, e0);
    store(s + j + kLanes, e1);
    sum0 = sum0 + e0;
    sum1 = sum1 + e1;
  }
  for (; j < n; j += kLanes) {
    const int64_t left = n - j < kLanes ? n - j : kLanes;
    const F e = exp(load(s + j, left) * a - m);
    store(s + j, e, left);
    sum0 = sum0 + load(s + j, left);
  }
  return sum(sum0 + sum1);
}

void weights(float* scores, int64_t row, int64_t rows, int64_t n, float scale, const float* mask, int64_t mask_row,
             int64_t mask_col, bool nan_to_zero, float* inverse) {
  for (int64_t i = 0; i < rows; ++i) {
    float* const s = scores + i * row;
    const float* const q = mask ? mask + i * mask_row : nullptr;
    float left = 1, most;  // of the scale
    if (!q && scale > 0) {
      most = scaled_max(s, n, scale);
      left = scale;
    } else {
      most = !q ? biased_max<0>(s, n, scale, q) : mask_col ? biased_max<2>(s, n, scale, q) : biased_max<1>(s, n, scale, q);
    }
    const float total = exponentials(s, n, left, most);
    inverse[i] = 1 / total;
    if (nan_to_zero && total != total) {
      for (int64_t j = 0; j < n; ++j) s[j] = 0;
      inverse[i] = 0;
    }
  }
}

void scale_rows(float* y, int64_t row, int64_t rows, int64_t n, const float* factor) {
  for (int64_t i = 0; i < rows; ++i) {
    float* const r = y + i * row;
    const F f = set1(factor[i]);
    int64_t j = 0;
    for (; j + kLanes <= n; j += kLanes) store(r + j, load(r + j) * f);
    if (j < n) store(r + j, load(r + j, n - j) * f, n - j);
  }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(AttentionKernels, attention){&weights, &scale_rows};

}  // namespace tiercel::TIERCEL_ISA

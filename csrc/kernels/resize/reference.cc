#include "kernels/resize/resize.h"

namespace tiercel::reference {

void resize_gather_f32(const float* in, const int32_t* index, const float* weight, int64_t taps, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    double s = 0;
    for (int64_t t = 0; t < taps; ++t) s += static_cast<double>(weight[t * n + i]) * in[index[t * n + i]];
    out[i] = static_cast<float>(s);
  }
}

void resize_rows_f32(const float* in, int64_t first, const int32_t* index, const float* weight, int64_t stride, int64_t taps,
                     float* out, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    double s = 0;
    for (int64_t t = 0; t < taps; ++t) s += static_cast<double>(weight[t * stride]) * in[(index[t * stride] - first) * n + j];
    out[j] = static_cast<float>(s);
  }
}

}  // namespace tiercel::reference

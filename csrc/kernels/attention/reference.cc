#include <cmath>
#include <vector>

#include "kernels/attention/attention.h"

namespace tiercel::reference {

void attention(const double* Q, const double* K, const double* V, const double* mask, int64_t q, int64_t k, int64_t d, int64_t dv,
               double scale, double cap, bool nan_to_zero, double* y) {
  std::vector<double> s(static_cast<size_t>(k));
  for (int64_t i = 0; i < q; ++i) {
    double m = -INFINITY, sum = 0;
    for (int64_t j = 0; j < k; ++j) {
      s[j] = 0;
      for (int64_t c = 0; c < d; ++c) s[j] += Q[i * d + c] * K[j * d + c];
      s[j] *= scale;
      if (cap > 0) s[j] = cap * std::tanh(s[j] / cap);
      if (mask) s[j] += mask[i * k + j];
      m = s[j] > m || std::isnan(s[j]) ? s[j] : m;
    }
    for (int64_t j = 0; j < k; ++j) sum += s[j] = std::exp(s[j] - m);
    for (int64_t c = 0; c < dv; ++c) {
      double t = 0;
      for (int64_t j = 0; j < k; ++j) t += s[j] * V[j * dv + c];
      y[i * dv + c] = std::isnan(sum) && nan_to_zero ? 0 : t / sum;
    }
  }
}

}  // namespace tiercel::reference

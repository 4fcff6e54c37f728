#include <cmath>

#include "kernels/softmax/softmax.h"

namespace tiercel::reference {

void softmax(const float* x, int64_t n, int64_t stride, bool log, float* y) {
  double m = -INFINITY, s = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double v = x[i * stride];
    if (v > m || std::isnan(v)) m = v;
    if (std::isnan(m)) break;
  }
  for (int64_t i = 0; i < n; ++i) s += std::exp(x[i * stride] - m);
  for (int64_t i = 0; i < n; ++i) {
    const double d = x[i * stride] - m;
    y[i * stride] = static_cast<float>(log ? d - std::log(s) : std::exp(d) / s);
  }
}

}  // namespace tiercel::reference

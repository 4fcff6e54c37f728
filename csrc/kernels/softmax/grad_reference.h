// The plain loops of softmax_grad.h, for any type and stride.
#pragma once
#include <cmath>
#include <cstdint>

namespace tiercel {
namespace reference {

template <class T> void softmax_grad(const T* dy, const T* y, int64_t n, int64_t stride, bool log, T* dx) {
  double sum = 0;
  bool nothing = true;
  for (int64_t i = 0; i < n; ++i) nothing &= dy[i * stride] == 0;
  if (nothing) {
    for (int64_t i = 0; i < n; ++i) dx[i * stride] = 0;
    return;
  }
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(dy[i * stride]) * (log ? 1 : static_cast<double>(y[i * stride]));
  for (int64_t i = 0; i < n; ++i) {
    const double g = static_cast<double>(dy[i * stride]), v = static_cast<double>(y[i * stride]);
    dx[i * stride] = static_cast<T>(log ? g - std::exp(v) * sum : v * (g - sum));
  }
}

template <class T> void scaled_exp(const T* x, int64_t n, int64_t stride, T scale, T* y) {
  for (int64_t i = 0; i < n; ++i) y[i * stride] = scale * std::exp(x[i * stride]);
}

}  // namespace reference

}  // namespace tiercel

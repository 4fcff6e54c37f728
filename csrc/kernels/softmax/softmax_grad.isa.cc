#include "kernels/softmax/softmax_grad.h"
#include "simd/math.h"

namespace tiercel::TIERCEL_ISA {
namespace {

template <bool kLog> inline F term(F dy, F y) { return kLog ? dy : dy * y; }
template <bool kLog> inline F result(F dy, F y, F total) { return kLog ? fnma(exp(y), total, dy) : y * (dy - total); }

bool nothing(const float* dy, int64_t n) {
  for (int64_t i = 0; i < n; ++i) if (dy[i] != 0) return false;
  return true;
}

template <bool kLog> void rows(const float* dy, const float* y, int64_t rows, int64_t n, float* dx) {
  for (int64_t r = 0; r < rows; ++r, dy += n, y += n, dx += n) {
    F a = zero(), b = zero();
    int64_t i = 0;
    for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
      a = a + term<kLog>(load(dy + i), load(y + i));
      b = b + term<kLog>(load(dy + i + kLanes), load(y + i + kLanes));
    }
    for (; i + kLanes <= n; i += kLanes) a = a + term<kLog>(load(dy + i), load(y + i));
    if (i < n) b = b + term<kLog>(load(dy + i, n - i), load(y + i, n - i));
    const float whole = sum(a + b);
    if (whole != whole && nothing(dy, n)) {
      for (i = 0; i < n; ++i) dx[i] = 0;
      continue;
    }
    const F total = set1(whole);
    for (i = 0; i + kLanes <= n; i += kLanes) store(dx + i, result<kLog>(load(dy + i), load(y + i), total));
    if (i < n) store(dx + i, result<kLog>(load(dy + i, n - i), load(y + i, n - i), total), n - i);
  }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(SoftmaxGradKernels, softmax_grad){{&rows<false>, &rows<true>}};

}  // namespace tiercel::TIERCEL_ISA

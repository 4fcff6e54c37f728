#include "kernels/pointwise/binary.h"
#include "simd/math.h"

namespace tiercel::TIERCEL_ISA {
namespace {

template <Binary B> inline F compute(F a, F b) {
  if constexpr (B == Binary::kAdd) return a + b;
  if constexpr (B == Binary::kSub) return a - b;
  if constexpr (B == Binary::kMul) return a * b;
  if constexpr (B == Binary::kDiv) return a / b;
  if constexpr (B == Binary::kMin) return nan_min(a, b);
  if constexpr (B == Binary::kMax) return nan_max(a, b);
  if constexpr (B == Binary::kPow) return pow(a, b);
  if constexpr (B == Binary::kPRelu) return select(lt(a, zero()), a * b, a);
}

constexpr int kRow = 16;  // NCHW16c channels
constexpr int kRowVectors = kRow / kLanes;

template <Binary B, Pair P> void binary_f32(const void* pa, const void* pb, void* py, int64_t n) {
  const float* a = static_cast<const float*>(pa);
  const float* b = static_cast<const float*>(pb);
  float* y = static_cast<float*>(py);
  if constexpr (P == Pair::kVR || P == Pair::kRV) {
    F row[kRowVectors];
    for (int j = 0; j < kRowVectors; ++j) row[j] = load((P == Pair::kVR ? b : a) + j * kLanes);
    const float* x = P == Pair::kVR ? a : b;
    for (int64_t i = 0; i < n; i += kRow)
#pragma GCC unroll 4
      for (int j = 0; j < kRowVectors; ++j) {
        const F v = load(x + i + j * kLanes);
        store(y + i + j * kLanes, P == Pair::kVR ? compute<B>(v, row[j]) : compute<B>(row[j], v));
      }
    return;
  }
  const F sa = P == Pair::kSV ? set1(*a) : zero(), sb = P == Pair::kVS ? set1(*b) : zero();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    store(y + i, compute<B>(P == Pair::kSV ? sa : load(a + i), P == Pair::kVS ? sb : load(b + i)));
  if (i < n)
    store(y + i, compute<B>(P == Pair::kSV ? sa : load(a + i, n - i), P == Pair::kVS ? sb : load(b + i, n - i)), n - i);
}

template <class G> inline void map(const float* x, float* y, int64_t n, G g) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, g(load(x + i)));
  if (i < n) store(y + i, g(load(x + i, n - i)), n - i);
}

// x^s: the exponents that models use are products, roots and quotients.
void power_f32(const void* pa, const void* pb, void* py, int64_t n) {
  const float* x = static_cast<const float*>(pa);
  float* y = static_cast<float*>(py);
  const float s = *static_cast<const float*>(pb);
  const F one = set1(1.0f);
  // sqrt, but pow(-0, s) = +0 and pow(-inf, s) = inf
  const auto root = [](F v) { return select(eq(v, set1(-INFINITY)), set1(INFINITY), sqrt(v + zero())); };
  if (s == 1.0f) return map(x, y, n, [](F v) { return v; });
  if (s == 2.0f) return map(x, y, n, [](F v) { return v * v; });
  if (s == 3.0f) return map(x, y, n, [](F v) { return v * v * v; });
  if (s == 4.0f) return map(x, y, n, [](F v) { const F w = v * v; return w * w; });
  if (s == 0.5f) return map(x, y, n, root);
  if (s == -0.5f) return map(x, y, n, [=](F v) { return one / root(v); });
  if (s == -1.0f) return map(x, y, n, [=](F v) { return one / v; });
  if (s == -2.0f) return map(x, y, n, [=](F v) { const F r = one / v; return r * r; });
  const F e = set1(s);
  map(x, y, n, [=](F v) { return pow(v, e); });
}

}  // namespace

#define TIERCEL_ROW(B) \
  {&binary_f32<B, Pair::kVV>, &binary_f32<B, Pair::kVS>, &binary_f32<B, Pair::kSV>, &binary_f32<B, Pair::kVR>, &binary_f32<B, Pair::kRV>}
TIERCEL_KERNEL_TABLE_IS(BinaryKernels, binary){{
    TIERCEL_ROW(Binary::kAdd), TIERCEL_ROW(Binary::kSub), TIERCEL_ROW(Binary::kMul), TIERCEL_ROW(Binary::kDiv),
    TIERCEL_ROW(Binary::kMin), TIERCEL_ROW(Binary::kMax),
    {&binary_f32<Binary::kPow, Pair::kVV>, &power_f32, &binary_f32<Binary::kPow, Pair::kSV>, &binary_f32<Binary::kPow, Pair::kVR>,
     &binary_f32<Binary::kPow, Pair::kRV>},
    TIERCEL_ROW(Binary::kPRelu)}};
#undef TIERCEL_ROW

}  // namespace tiercel::TIERCEL_ISA

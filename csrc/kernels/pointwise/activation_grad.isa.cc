#include "kernels/pointwise/activation_grad.h"
#include "simd/activation.h"

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr float kRoot = 0.79788456080286535588f, kCube = 0.044715f;  // of Gelu's tanh form

template <ActivationKind A> inline F gradient(F dy, F v, const Activation& p) {
  [[maybe_unused]] const F one = set1(1.0f), a = set1(p.alpha), b = set1(p.beta);
  const auto where = [&](M m, F t, F f) { return select(m, t, f); };
  if constexpr (A == ActivationKind::kNone) return dy;
  if constexpr (A == ActivationKind::kRelu) return where(gt(v, zero()), dy, zero());
  if constexpr (A == ActivationKind::kLeakyRelu) return where(gt(v, zero()), dy, dy * a);
  if constexpr (A == ActivationKind::kClip) return where(gt(v, a) & lt(v, b), dy, zero());
  if constexpr (A == ActivationKind::kSigmoid) return dy * (v * (one - v));
  if constexpr (A == ActivationKind::kTanh) return dy * fnma(v, v, one);
  if constexpr (A == ActivationKind::kGelu) {
    const F cdf = set1(0.5f) * (one + erf(v * set1(0.70710678118654752440f)));
    return dy * fma(v * set1(0.39894228040143267794f), exp(set1(-0.5f) * v * v), cdf);
  }
  if constexpr (A == ActivationKind::kGeluTanh) {
    // x s(z) with z = 2 sqrt(2/pi) (x + c x^3); 1 - s is exp(-z) s, which loses nothing where s is nearly one
    const F square = v * v, z = set1(2 * kRoot) * fma(set1(kCube) * square, v, v);
    const F e = exp(min(set1(80.0f), -z)), s = one / (one + e), slope = set1(2 * kRoot) * fma(set1(3 * kCube), square, one);
    return dy * fma(v * s * (e * s), slope, s);
  }
  if constexpr (A == ActivationKind::kSilu) {
    const F s = sigmoid(a * v);
    return dy * fma(a * v * s, one - s, s);
  }
  if constexpr (A == ActivationKind::kHardSigmoid) return where(gt(v, zero()) & lt(v, one), dy * a, zero());
  if constexpr (A == ActivationKind::kHardSwish) {
    const F u = fma(a, v, b);
    return where(le(u, zero()), zero(), where(ge(u, one), dy, dy * fma(a, v, u)));
  }
  if constexpr (A == ActivationKind::kElu)
    return where(gt(v, zero()), dy, dy * (p.alpha < 0 ? a * exp(v) : v + a));
  if constexpr (A == ActivationKind::kSelu)
    return where(gt(v, zero()), dy * b, dy * (p.alpha < 0 || p.beta < 0 ? a * b * exp(v) : v + a * b));
  if constexpr (A == ActivationKind::kCelu)
    return where(gt(v, zero()), dy, dy * (p.alpha < 0 ? exp(v / a) : v / a + one));
  if constexpr (A == ActivationKind::kSoftplus) return dy * -expm1(-v);
  if constexpr (A == ActivationKind::kSoftsign) return dy / ((one + abs(v)) * (one + abs(v)));
  if constexpr (A == ActivationKind::kThresholdedRelu) return where(gt(v, a), dy, zero());
  if constexpr (A == ActivationKind::kMish) {
    // with e = exp(x), w = e^2 + 2 e: tanh(softplus x) = w / (w + 2), and one less it 2 / (w + 2)
    const F e = exp(min(set1(40.0f), v)), w = fma(e, e, e + e), rest = set1(2.0f) / (w + set1(2.0f)), t = w * (rest * set1(0.5f));
    return dy * fma(v * (e / (one + e)), rest * (one + t), t);
  }
  if constexpr (A == ActivationKind::kAffine) return dy * a;
  if constexpr (A == ActivationKind::kScaledTanh) {
    const F t = tanh(b * v);
    return dy * (a * b * fnma(t, t, one));
  }
}

void run(const Activation& a, const float* dy, const float* v, float* dx, int64_t n) {
  with_activation(a.kind, [&, a](auto tag) {
    constexpr ActivationKind kind = decltype(tag)::value;
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) store(dx + i, gradient<kind>(load(dy + i), load(v + i), a));
    if (i < n) store(dx + i, gradient<kind>(load(dy + i, n - i), load(v + i, n - i), a), n - i);
  });
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(ActivationGradKernels, activation_grad){&run};

}  // namespace tiercel::TIERCEL_ISA

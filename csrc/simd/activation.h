// Activations on F, for epilogues: apply<ActivationKind::kRelu>(x, activation), and switches that stand outside loops.
#pragma once
#include "kernels/activation.h"
#include "simd/math.h"

namespace tiercel::TIERCEL_ISA {
namespace {

template <ActivationKind A> inline F apply(F x, const Activation& p) {
  if constexpr (A == ActivationKind::kNone) return x;
  if constexpr (A == ActivationKind::kRelu) return max(zero(), x);
  if constexpr (A == ActivationKind::kLeakyRelu) return select(lt(x, zero()), x * set1(p.alpha), x);
  if constexpr (A == ActivationKind::kClip) return min(set1(p.beta), max(set1(p.alpha), x));
  if constexpr (A == ActivationKind::kSigmoid) return sigmoid(x);
  if constexpr (A == ActivationKind::kTanh) return tanh(x);
  if constexpr (A == ActivationKind::kGelu) return gelu_erf(x);
  if constexpr (A == ActivationKind::kGeluTanh) return gelu_tanh(x);
  if constexpr (A == ActivationKind::kSilu) return silu(x, set1(-p.alpha));
  if constexpr (A == ActivationKind::kHardSigmoid)
    return min(set1(1.0f), max(zero(), fma(x, set1(p.alpha), set1(p.beta))));
  if constexpr (A == ActivationKind::kHardSwish)
    return x * min(set1(1.0f), max(zero(), fma(x, set1(p.alpha), set1(p.beta))));
  if constexpr (A == ActivationKind::kElu) return select(lt(x, zero()), set1(p.alpha) * expm1(min(zero(), x)), x);
  if constexpr (A == ActivationKind::kSelu)
    return set1(p.beta) * select(lt(x, zero()), set1(p.alpha) * expm1(min(zero(), x)), x);
  if constexpr (A == ActivationKind::kCelu) {
    const F a = set1(p.alpha);
    return max(zero(), x) + min(zero(), a * expm1(min(set1(88.0f), x / a)));
  }
  if constexpr (A == ActivationKind::kSoftplus) return softplus(x);
  if constexpr (A == ActivationKind::kSoftsign) return select(eq(abs(x), set1(INFINITY)), with_sign(set1(1.0f), x), x / (set1(1.0f) + abs(x)));
  if constexpr (A == ActivationKind::kMish) return mish(x);
  if constexpr (A == ActivationKind::kThresholdedRelu) return select(le(x, set1(p.alpha)), zero(), x);
  if constexpr (A == ActivationKind::kAffine) return fma(x, set1(p.alpha), set1(p.beta));
  if constexpr (A == ActivationKind::kScaledTanh) return set1(p.alpha) * tanh(x * set1(p.beta));
}

template <ActivationKind A> struct ActivationTag { static constexpr ActivationKind value = A; };

// f(ActivationTag<kind>()) for the kind given. f is compiled once for each activation: keep it small.
template <class Fn> inline void with_activation(ActivationKind kind, Fn&& f) {
  switch (kind) {
#define TIERCEL_ROW(name) case ActivationKind::name: f(ActivationTag<ActivationKind::name>()); return;
    TIERCEL_ROW(kNone) TIERCEL_ROW(kRelu) TIERCEL_ROW(kLeakyRelu) TIERCEL_ROW(kClip) TIERCEL_ROW(kSigmoid)
    TIERCEL_ROW(kTanh) TIERCEL_ROW(kGelu) TIERCEL_ROW(kGeluTanh) TIERCEL_ROW(kSilu) TIERCEL_ROW(kHardSigmoid)
    TIERCEL_ROW(kHardSwish) TIERCEL_ROW(kElu) TIERCEL_ROW(kSelu) TIERCEL_ROW(kCelu) TIERCEL_ROW(kSoftplus)
    TIERCEL_ROW(kSoftsign) TIERCEL_ROW(kThresholdedRelu) TIERCEL_ROW(kMish) TIERCEL_ROW(kAffine) TIERCEL_ROW(kScaledTanh)
#undef TIERCEL_ROW
  }
}

// The same for big kernels: only the activations that are worth their code inside a register tile. False: nothing was
// called; run the kernel with kNone and pass over its tile with activate().
template <class Fn> inline bool with_register_activation(ActivationKind kind, Fn&& f) {
  switch (kind) {
#define TIERCEL_ROW(name) case ActivationKind::name: f(ActivationTag<ActivationKind::name>()); return true;
    TIERCEL_ROW(kNone) TIERCEL_ROW(kRelu) TIERCEL_ROW(kLeakyRelu) TIERCEL_ROW(kClip) TIERCEL_ROW(kGelu)
    TIERCEL_ROW(kSilu) TIERCEL_ROW(kHardSwish)
#undef TIERCEL_ROW
    default: return false;
  }
}

// y[i] = act(x[i]) for rows of n that lie in cache, y_row and x_row floats apart; y may be x. One call for a whole tile: the function's
// constants then stay in registers.
__attribute__((noinline, unused)) void activate(const Activation& a, const float* x, int64_t x_row, float* y, int64_t y_row, int64_t rows, int64_t n) {
  with_activation(a.kind, [&, a](auto tag) {
    for (int64_t r = 0; r < rows; ++r, x += x_row, y += y_row) {
      int64_t i = 0;
      for (; i + kLanes <= n; i += kLanes) store(y + i, apply<decltype(tag)::value>(load(x + i), a));
      if (i < n) store(y + i, apply<decltype(tag)::value>(load(x + i, n - i), a), n - i);
    }
  });
}
inline void activate(const Activation& a, const float* x, float* y, int64_t n) { activate(a, x, 0, y, 0, 1, n); }

}  // namespace
}  // namespace tiercel::TIERCEL_ISA

#include "kernels/optimizer/optimizer.h"
#include "simd/vec.h"

namespace tiercel::TIERCEL_ISA {
namespace {

template <OptimizerKind K> struct Step {
  static constexpr bool kHasM = K == OptimizerKind::kMomentum || K == OptimizerKind::kRMSprop || K == OptimizerKind::kAdam || K == OptimizerKind::kLion;
  static constexpr bool kHasV = K == OptimizerKind::kRMSprop || K == OptimizerKind::kAdagrad || K == OptimizerKind::kAdam;
  F lr, scale, decay, shrink, momentum, beta1, beta2, rest1, rest2, epsilon, root2;
  bool nesterov;

  explicit Step(const OptimizerStep<float>& s)
      : lr(set1(K == OptimizerKind::kAdam ? s.lr / s.correction1 : s.lr)), scale(set1(s.scale)), decay(set1(s.decay)), shrink(set1(s.shrink)),
        momentum(set1(s.momentum)), beta1(set1(s.beta1)), beta2(set1(s.beta2)), rest1(set1(1 - s.beta1)), rest2(set1(1 - s.beta2)),
        epsilon(set1(s.epsilon)), root2(set1(1 / s.root_correction2)), nesterov(s.nesterov) {}

  void operator()(F& p, F g, F& m, F& v) const {
    p = p * shrink;
    g = fma(decay, p, g * scale);
    if constexpr (K == OptimizerKind::kSgd) p = fnma(lr, g, p);
    if constexpr (K == OptimizerKind::kMomentum) {
      m = fma(momentum, m, g);
      p = fnma(lr, nesterov ? fma(momentum, m, g) : m, p);
    }
    if constexpr (K == OptimizerKind::kRMSprop) {
      v = fma(beta2, v, rest2 * g * g);
      m = fma(momentum, m, g / (sqrt(v) + epsilon));
      p = fnma(lr, m, p);
    }
    if constexpr (K == OptimizerKind::kAdagrad) {
      v = fma(g, g, v);
      p = p - lr * g / (sqrt(v) + epsilon);
    }
    if constexpr (K == OptimizerKind::kAdam) {
      m = fma(beta1, m, rest1 * g);
      v = fma(beta2, v, rest2 * g * g);
      p = p - lr * m / fma(sqrt(v), root2, epsilon);
    }
    if constexpr (K == OptimizerKind::kLion) {
      const F u = fma(beta1, m, rest1 * g);
      p = p - select(gt(u, zero()), lr, select(lt(u, zero()), -lr, u * zero()));
      m = fma(beta2, m, rest2 * g);
    }
  }
};

template <OptimizerKind K> void run(const OptimizerStep<float>& s) {
  const Step<K> step(s);
  int64_t i = 0;
  for (; i + kLanes <= s.n; i += kLanes) {
    F p = load(s.p + i), m = zero(), v = zero();
    if constexpr (Step<K>::kHasM) m = load(s.m + i);
    if constexpr (Step<K>::kHasV) v = load(s.v + i);
    step(p, load(s.g + i), m, v);
    store(s.p + i, p);
    if constexpr (Step<K>::kHasM) store(s.m + i, m);
    if constexpr (Step<K>::kHasV) store(s.v + i, v);
  }
  if (const int64_t n = s.n - i; n > 0) {
    F p = load(s.p + i, n), m = zero(), v = zero();
    if constexpr (Step<K>::kHasM) m = load(s.m + i, n);
    if constexpr (Step<K>::kHasV) v = load(s.v + i, n);
    step(p, load(s.g + i, n), m, v);
    store(s.p + i, p, n);
    if constexpr (Step<K>::kHasM) store(s.m + i, m, n);
    if constexpr (Step<K>::kHasV) store(s.v + i, v, n);
  }
}

void step(const OptimizerStep<float>& s) {
  switch (s.kind) {
    case OptimizerKind::kSgd: return run<OptimizerKind::kSgd>(s);
    case OptimizerKind::kMomentum: return run<OptimizerKind::kMomentum>(s);
    case OptimizerKind::kRMSprop: return run<OptimizerKind::kRMSprop>(s);
    case OptimizerKind::kAdagrad: return run<OptimizerKind::kAdagrad>(s);
    case OptimizerKind::kAdam: return run<OptimizerKind::kAdam>(s);
    case OptimizerKind::kLion: return run<OptimizerKind::kLion>(s);
  }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(OptimizerKernels, optimizer){&step};

}  // namespace tiercel::TIERCEL_ISA

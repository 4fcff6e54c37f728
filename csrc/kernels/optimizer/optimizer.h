// One step of an optimiser over a run of parameters, in one pass: gradients in, parameters and moments in place.
#pragma once
#include <cstdint>

#include "kernels/dispatch.h"

namespace tiercel {

enum class OptimizerKind : uint8_t {
  kSgd,       // p -= lr g
  kMomentum,  // m = mu m + g; p -= lr (nesterov ? g + mu m : m)
  kRMSprop,   // v = a v + (1 - a) g^2; u = g / (sqrt v + eps); m = mu m + u; p -= lr m
  kAdagrad,   // v += g^2; p -= lr g / (sqrt v + eps)
  kAdam,      // m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p -= lr / c1 m / (sqrt v / sqrt c2 + eps)
  kLion,      // p -= lr sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g
};

// `decay` is added to the gradient, times the parameter; `shrink` multiplies the parameter first. mu, a, b1 and b2: `momentum`, `beta1`,
// `beta2` below (a is beta2); c1, c2: 1 - b1^t, 1 - b2^t, at the t-th step.
template <class T> struct OptimizerStep {
  OptimizerKind kind = OptimizerKind::kSgd;
  bool nesterov = false;
  T lr = 0, scale = 1, decay = 0, shrink = 1;
  T momentum = 0, beta1 = 0, beta2 = 0, epsilon = 0;
  T correction1 = 1, root_correction2 = 1;
  const T* g = nullptr;
  T *p = nullptr, *m = nullptr, *v = nullptr;
  int64_t n = 0;
};

struct OptimizerKernels {
  void (*step)(const OptimizerStep<float>& s);
};
TIERCEL_KERNEL_TABLE(OptimizerKernels, optimizer)

namespace reference {
void optimizer_step(const OptimizerStep<double>& s);
}

}  // namespace tiercel

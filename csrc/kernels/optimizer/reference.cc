#include <cmath>

#include "kernels/optimizer/optimizer.h"

namespace tiercel::reference {

void optimizer_step(const OptimizerStep<double>& s) {
  for (int64_t i = 0; i < s.n; ++i) {
    double p = s.p[i] * s.shrink;
    const double g = s.g[i] * s.scale + s.decay * p;
    switch (s.kind) {
      case OptimizerKind::kSgd: p -= s.lr * g; break;
      case OptimizerKind::kMomentum:
        s.m[i] = s.momentum * s.m[i] + g;
        p -= s.lr * (s.nesterov ? g + s.momentum * s.m[i] : s.m[i]);
        break;
      case OptimizerKind::kRMSprop:
        s.v[i] = s.beta2 * s.v[i] + (1 - s.beta2) * g * g;
        s.m[i] = s.momentum * s.m[i] + g / (std::sqrt(s.v[i]) + s.epsilon);
        p -= s.lr * s.m[i];
        break;
      case OptimizerKind::kAdagrad:
        s.v[i] += g * g;
        p -= s.lr * g / (std::sqrt(s.v[i]) + s.epsilon);
        break;
      case OptimizerKind::kAdam:
        s.m[i] = s.beta1 * s.m[i] + (1 - s.beta1) * g;
        s.v[i] = s.beta2 * s.v[i] + (1 - s.beta2) * g * g;
        p -= s.lr / s.correction1 * s.m[i] / (std::sqrt(s.v[i]) / s.root_correction2 + s.epsilon);
        break;
      case OptimizerKind::kLion: {
        const double u = s.beta1 * s.m[i] + (1 - s.beta1) * g;
        p -= s.lr * (u > 0 ? 1 : u < 0 ? -1 : 0);
        s.m[i] = s.beta2 * s.m[i] + (1 - s.beta2) * g;
        break;
      }
    }
    s.p[i] = p;
  }
}

}  // namespace tiercel::reference

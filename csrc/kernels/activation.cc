#include "kernels/activation.h"

#include <cmath>

namespace tiercel {
namespace {

double apply(double x, ActivationKind kind, double alpha, double beta) {
  const auto sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
  const auto softplus = [](double v) { return v > 0 ? v + std::log1p(std::exp(-v)) : std::log1p(std::exp(v)); };
  const auto unit = [](double v) { return v < 0 ? 0.0 : v > 1 ? 1.0 : v; };
  switch (kind) {
    case ActivationKind::kNone: return x;
    case ActivationKind::kRelu: return x < 0 ? 0 : x;
    case ActivationKind::kLeakyRelu: return x < 0 ? alpha * x : x;
    case ActivationKind::kClip: {
      const double low = x < alpha ? alpha : x;
      return low > beta ? beta : low;
    }
    case ActivationKind::kSigmoid: return sigmoid(x);
    case ActivationKind::kTanh: return std::tanh(x);
    case ActivationKind::kGelu: return x < -40 ? 0 : x * 0.5 * std::erfc(-x * 0.70710678118654752440);
    case ActivationKind::kGeluTanh: return x < -40 ? 0 : x * sigmoid(1.5957691216057307117 * (x + 0.044715 * x * x * x));
    case ActivationKind::kSilu: return std::isinf(x) && alpha * x < 0 ? 0 : x * sigmoid(alpha * x);
    case ActivationKind::kHardSigmoid: return unit(alpha * x + beta);
    case ActivationKind::kHardSwish: return std::isinf(x) && alpha * x < 0 ? 0 : x * unit(alpha * x + beta);
    case ActivationKind::kElu: return x < 0 ? alpha * std::expm1(x) : x;
    case ActivationKind::kSelu: return beta * (x < 0 ? alpha * std::expm1(x) : x);
    case ActivationKind::kCelu: return x < 0 ? alpha * std::expm1(x / alpha) : x;
    case ActivationKind::kSoftplus: return softplus(x);
    case ActivationKind::kSoftsign: return std::isinf(x) ? std::copysign(1, x) : x / (1 + std::fabs(x));
    case ActivationKind::kThresholdedRelu: return x > alpha || std::isnan(x) ? x : 0;
    case ActivationKind::kMish: return x < -800 ? 0 : x * std::tanh(softplus(x));
    case ActivationKind::kAffine: return alpha * x + beta;
    case ActivationKind::kScaledTanh: return alpha * std::tanh(beta * x);
  }
  return x;
}

}  // namespace

double reference::activate(double x, const Activation& a) { return apply(x, a.kind, a.alpha, a.beta); }
float activate(float x, const Activation& a) { return static_cast<float>(reference::activate(x, a)); }
bool keeps_zero(const Activation& a) { return reference::activate(0, a) == 0; }

}  // namespace tiercel

#include "kernels/pointwise/activation_grad.h"

#include <cmath>

namespace tiercel {
namespace {

double derivative(double v, ActivationKind kind, double alpha, double beta) {
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  constexpr double kRoot = 0.79788456080286535588, kCube = 0.044715;
  switch (kind) {
    case ActivationKind::kNone: return 1;
    case ActivationKind::kRelu: return v > 0 ? 1 : 0;
    case ActivationKind::kLeakyRelu: return v > 0 ? 1 : alpha;
    case ActivationKind::kClip: return v > alpha && v < beta ? 1 : 0;
    case ActivationKind::kSigmoid: return v * (1 - v);
    case ActivationKind::kTanh: return 1 - v * v;
    case ActivationKind::kGelu:
      return 0.5 * std::erfc(-v * 0.70710678118654752440) + v * 0.39894228040143267794 * std::exp(-0.5 * v * v);
    case ActivationKind::kGeluTanh: {
      const double t = std::tanh(kRoot * (v + kCube * v * v * v));
      return 0.5 * (1 + t) + 0.5 * v * (1 - t * t) * kRoot * (1 + 3 * kCube * v * v);
    }
    case ActivationKind::kSilu: {
      const double s = sigmoid(alpha * v);
      return s + alpha * v * s * (1 - s);
    }
    case ActivationKind::kHardSigmoid: return v > 0 && v < 1 ? alpha : 0;
    case ActivationKind::kHardSwish: {
      const double u = alpha * v + beta;
      return u <= 0 ? 0 : u >= 1 ? 1 : u + alpha * v;
    }
    case ActivationKind::kElu: return alpha < 0 ? (v > 0 ? 1 : alpha * std::exp(v)) : v > 0 ? 1 : v + alpha;
    case ActivationKind::kSelu: return alpha * beta < 0 || beta < 0 ? beta * (v > 0 ? 1 : alpha * std::exp(v)) : v > 0 ? beta : v + alpha * beta;
    case ActivationKind::kCelu: return alpha < 0 ? (v > 0 ? 1 : std::exp(v / alpha)) : v > 0 ? 1 : v / alpha + 1;
    case ActivationKind::kSoftplus: return -std::expm1(-v);
    case ActivationKind::kSoftsign: return 1 / ((1 + std::fabs(v)) * (1 + std::fabs(v)));
    case ActivationKind::kThresholdedRelu: return v > alpha ? 1 : 0;
    case ActivationKind::kMish: {
      const double t = std::tanh(v > 0 ? v + std::log1p(std::exp(-v)) : std::log1p(std::exp(v)));
      return t + v * sigmoid(v) * (1 - t * t);
    }
    case ActivationKind::kAffine: return alpha;
    case ActivationKind::kScaledTanh: {
      const double t = std::tanh(beta * v);
      return alpha * beta * (1 - t * t);
    }
  }
  return 1;
}

}  // namespace

bool activation_grad_reads_result(const Activation& a) {
  switch (a.kind) {
    case ActivationKind::kRelu: case ActivationKind::kClip: case ActivationKind::kSigmoid: case ActivationKind::kTanh:
    case ActivationKind::kHardSigmoid: case ActivationKind::kSoftplus: case ActivationKind::kAffine: return true;
    case ActivationKind::kLeakyRelu: case ActivationKind::kElu: return a.alpha >= 0;
    case ActivationKind::kCelu: return a.alpha >= 0;
    case ActivationKind::kSelu: return a.alpha >= 0 && a.beta >= 0;
    default: return false;
  }
}

double reference::activation_grad(double dy, double v, const Activation& a) { return dy * derivative(v, a.kind, a.alpha, a.beta); }

TIERCEL_KERNEL_DISPATCH(ActivationGradKernels, activation_grad)

}  // namespace tiercel

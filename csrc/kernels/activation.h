// Activation: the pointwise function that GEMM, convolution and recurrent kernels apply before they store.
//
// simd/activation.h evaluates it on registers; activate() below is the reference.
#pragma once
#include <stdint.h>

namespace tiercel {

enum class ActivationKind : uint8_t {
  kNone,             // x
  kRelu,             // max(x, 0)
  kLeakyRelu,        // x < 0 ? alpha x : x
  kClip,             // min(max(x, alpha), beta)
  kSigmoid,          // 1 / (1 + exp(-x))
  kTanh,             // tanh(x)
  kGelu,             // x/2 (1 + erf(x / sqrt 2))
  kGeluTanh,         // x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))
  kSilu,             // x sigmoid(alpha x)
  kHardSigmoid,      // max(0, min(1, alpha x + beta))
  kHardSwish,        // x max(0, min(1, alpha x + beta))
  kElu,              // x < 0 ? alpha (exp(x) - 1) : x
  kSelu,             // beta (x < 0 ? alpha (exp(x) - 1) : x); beta is ONNX's gamma
  kCelu,             // x < 0 ? alpha (exp(x / alpha) - 1) : x
  kSoftplus,         // log(1 + exp(x))
  kSoftsign,         // x / (1 + |x|)
  kThresholdedRelu,  // x > alpha ? x : 0
  kMish,             // x tanh(softplus(x))
  kAffine,           // alpha x + beta
  kScaledTanh,       // alpha tanh(beta x)
};
inline constexpr int kNumActivations = 20;

struct Activation {
  ActivationKind kind = ActivationKind::kNone;
  float alpha = 0, beta = 0;  // as the kind's formula says; unused otherwise
  explicit operator bool() const { return kind != ActivationKind::kNone; }
};

// One element, computed in double and rounded once. NaN gives NaN, infinities the function's limit.
float activate(float x, const Activation& activation);

// Does zero stay zero (and so the padding channels of a blocked layout)?
bool keeps_zero(const Activation& activation);

namespace reference {
double activate(double x, const Activation& activation);
}

}  // namespace tiercel

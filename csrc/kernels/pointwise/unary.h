// Elementwise functions of one f32 array: y[i] = f(x[i]); y may be x.
#pragma once
#include <cstdint>

#include "kernels/activation.h"
#include "kernels/dispatch.h"

namespace tiercel {

// X(name); the meaning of each is the ONNX operator's of that name
#define TIERCEL_UNARY(X) \
  X(Abs) X(Neg) X(Exp) X(Log) X(Sqrt) X(Reciprocal) X(Floor) X(Ceil) X(Round) X(Sign) X(Sin) X(Cos) X(Erf) X(Square)

enum class Unary : uint8_t {
#define TIERCEL_ROW(name) k##name,
  TIERCEL_UNARY(TIERCEL_ROW)
#undef TIERCEL_ROW
};
inline constexpr int kNumUnary = static_cast<int>(Unary::kSquare) + 1;

struct UnaryKernels {
  void (*unary[kNumUnary])(const float* x, float* y, int64_t n);
  void (*activate)(const Activation& a, const float* x, float* y, int64_t n);
};
TIERCEL_KERNEL_TABLE(UnaryKernels, unary)

namespace reference {
double unary(Unary f, double x);
}

}  // namespace tiercel

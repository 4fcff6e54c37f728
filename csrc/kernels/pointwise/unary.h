// Elementwise functions of one array: y[i] = f(x[i]); y may be x.
#pragma once
#include <cstdint>

#include "base/dtype.h"
#include "kernels/activation.h"
#include "kernels/dispatch.h"

namespace tiercel {

using UnaryFn = void (*)(const void* x, void* y, int64_t n);

// X(name); the meaning of each is the ONNX operator's of that name. The first list is vectorised for f32.
#define TIERCEL_VECTOR_UNARY(X) \
  X(Abs) X(Neg) X(Exp) X(Log) X(Sqrt) X(Reciprocal) X(Floor) X(Ceil) X(Round) X(Sign) X(Sin) X(Cos) X(Erf) X(Square) X(Tanh) X(Sigmoid)
#define TIERCEL_LIBRARY_UNARY(X) X(Tan) X(Asin) X(Acos) X(Atan) X(Sinh) X(Cosh) X(Asinh) X(Acosh) X(Atanh)

enum class Unary : uint8_t {
#define TIERCEL_ROW(name) k##name,
  TIERCEL_VECTOR_UNARY(TIERCEL_ROW) TIERCEL_LIBRARY_UNARY(TIERCEL_ROW)
#undef TIERCEL_ROW
};
inline constexpr int kNumVectorUnary = static_cast<int>(Unary::kSigmoid) + 1;
inline constexpr int kNumUnary = static_cast<int>(Unary::kAtanh) + 1;

struct UnaryKernels {
  UnaryFn f32[kNumVectorUnary];
  void (*activate)(const Activation& a, const float* x, float* y, int64_t n);
};
TIERCEL_KERNEL_TABLE(UnaryKernels, unary)

// f for f32, f64 and the integers where it means something there (Abs, Neg, Sign); null otherwise.
UnaryFn unary_fn(Unary f, DType t);

namespace reference {
double unary(Unary f, double x);
}

}  // namespace tiercel

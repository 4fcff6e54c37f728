#include "kernels/pointwise/unary.h"
#include "simd/activation.h"

namespace tiercel::TIERCEL_ISA {
namespace {

template <Unary U> inline F compute(F x) {
  if constexpr (U == Unary::kAbs) return abs(x);
  if constexpr (U == Unary::kNeg) return -x;
  if constexpr (U == Unary::kExp) return exp(x);
  if constexpr (U == Unary::kLog) return log(x);
  if constexpr (U == Unary::kSqrt) return sqrt(x);
  if constexpr (U == Unary::kReciprocal) return set1(1.0f) / x;
  if constexpr (U == Unary::kFloor) return floor(x);
  if constexpr (U == Unary::kCeil) return ceil(x);
  if constexpr (U == Unary::kRound) return round(x);
  if constexpr (U == Unary::kSign) return select(eq(x, zero()) | is_nan(x), x, with_sign(set1(1.0f), x));
  if constexpr (U == Unary::kSin) return sin(x);
  if constexpr (U == Unary::kCos) return cos(x);
  if constexpr (U == Unary::kErf) return erf(x);
  if constexpr (U == Unary::kSquare) return x * x;
  if constexpr (U == Unary::kTanh) return tanh(x);
  if constexpr (U == Unary::kSigmoid) return sigmoid(x);
}

template <Unary U> void unary_f32(const void* px, void* py, int64_t n) {
  const float* x = static_cast<const float*>(px);
  float* y = static_cast<float*>(py);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, compute<U>(load(x + i)));
  if (i < n) store(y + i, compute<U>(load(x + i, n - i)), n - i);
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(UnaryKernels, unary){
#define TIERCEL_ROW(name) &unary_f32<Unary::k##name>,
    {TIERCEL_VECTOR_UNARY(TIERCEL_ROW)},
#undef TIERCEL_ROW
    &activate};

}  // namespace tiercel::TIERCEL_ISA

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
}

template <class G> inline void map(const float* x, float* y, int64_t n, G g) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, g(load(x + i)));
  if (i < n) store(y + i, g(load(x + i, n - i)), n - i);
}

template <Unary U> void unary_f32(const float* x, float* y, int64_t n) {
  map(x, y, n, [](F v) { return compute<U>(v); });
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(UnaryKernels, unary){
#define TIERCEL_ROW(name) &unary_f32<Unary::k##name>,
    {TIERCEL_UNARY(TIERCEL_ROW)},
#undef TIERCEL_ROW
    &activate};

}  // namespace tiercel::TIERCEL_ISA

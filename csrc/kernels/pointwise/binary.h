// Elementwise functions of two arrays: y[i] = f(a[i], b[i]); y may be a or b.
#pragma once
#include <cstdint>

#include "base/dtype.h"
#include "kernels/dispatch.h"

namespace tiercel {

using BinaryFn = void (*)(const void* a, const void* b, void* y, int64_t n);

enum class Binary : uint8_t {
  kAdd, kSub, kMul, kDiv,
  kMin, kMax,        // NaN when either operand is
  kPow,
  kPRelu,            // a < 0 ? a b : a
  kMod,              // a - floor(a / b) b
  kFmod,             // a - trunc(a / b) b
  kAnd, kOr, kXor,   // of the bits
  kShl, kShr,        // all bits gone when b is negative or at least the width
};
inline constexpr int kNumVectorBinary = static_cast<int>(Binary::kPRelu) + 1;

enum class Compare : uint8_t { kEqual, kLess, kLessOrEqual, kGreater, kGreaterOrEqual };

// How the operands of a run lie: V n elements; S one element for the whole run; R 16 elements, repeated (n a multiple of 16).
enum class Pair : uint8_t { kVV, kVS, kSV, kVR, kRV };
inline constexpr int kNumPairs = 5;

struct BinaryKernels {
  BinaryFn f32[kNumVectorBinary][kNumPairs];
};
TIERCEL_KERNEL_TABLE(BinaryKernels, binary)

// Two arrays of n elements of type t (f32, f64, integers, bool); null where f means nothing for t.
// Integers wrap; division truncates; x / 0 and x mod 0 are 0, the least integer / -1 is itself.
BinaryFn binary_fn(Binary f, DType t);
// The result is n bools.
BinaryFn compare_fn(Compare f, DType t);
// y[i] = c[i] ? a[i] : b[i], for elements of 1, 2, 4, 8 or 16 bytes
using SelectFn = void (*)(const void* c, const void* a, const void* b, void* y, int64_t n);
SelectFn select_fn(int element_bytes);
// x to the power y for integers: wraps; 0, 1 or -1 for negative y.
int64_t integer_power(int64_t x, int64_t y);

namespace reference {
double binary(Binary f, double a, double b);  // the vectorised ones
}

}  // namespace tiercel

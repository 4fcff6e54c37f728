// The element types other than f32: plain loops, compiled once, vectorised by the compiler where it can.
#ifndef __clang__
#pragma GCC optimize("O3")
#endif
#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels/pointwise/binary.h"
#include "kernels/pointwise/unary.h"

namespace tiercel {
namespace {

template <class T, class R, class F> void loop(const void* pa, const void* pb, void* py, int64_t n, F f) {
  const T* a = static_cast<const T*>(pa);
  const T* b = static_cast<const T*>(pb);
  R* y = static_cast<R*>(py);
  for (int64_t i = 0; i < n; ++i) y[i] = f(a[i], b[i]);
}

template <class T> inline T divide(T a, T b) {
  if (b == 0) return 0;
  if constexpr (std::is_signed_v<T>) if (b == -1) return static_cast<T>(std::make_unsigned_t<T>(0) - static_cast<std::make_unsigned_t<T>>(a));
  return static_cast<T>(a / b);
}
template <class T> inline T remainder(T a, T b) {  // sign of a
  if (b == 0) return 0;
  if constexpr (std::is_signed_v<T>) if (b == -1) return 0;
  return static_cast<T>(a % b);
}
template <class T> inline T modulo(T a, T b) {  // sign of b
  const T r = remainder(a, b);
  if constexpr (std::is_signed_v<T>) if (r != 0 && (r < 0) != (b < 0)) return static_cast<T>(r + b);
  return r;
}
inline double modulo_f(double a, double b) {
  const double r = std::fmod(a, b);
  if (r == 0) return std::isnan(b) ? r : std::copysign(0.0, b);
  return (r < 0) != (b < 0) ? r + b : r;
}

// Wrapping arithmetic and bit operations: the same for signed and unsigned, so by width.
template <class U> BinaryFn wrapping(Binary f) {
  switch (f) {
    case Binary::kAdd: return [](const void* a, const void* b, void* y, int64_t n) { loop<U, U>(a, b, y, n, [](U p, U q) { return static_cast<U>(p + q); }); };
    case Binary::kSub: return [](const void* a, const void* b, void* y, int64_t n) { loop<U, U>(a, b, y, n, [](U p, U q) { return static_cast<U>(p - q); }); };
    case Binary::kMul: return [](const void* a, const void* b, void* y, int64_t n) { loop<U, U>(a, b, y, n, [](U p, U q) { return static_cast<U>(uint64_t{p} * q); }); };
    case Binary::kAnd: return [](const void* a, const void* b, void* y, int64_t n) { loop<U, U>(a, b, y, n, [](U p, U q) { return static_cast<U>(p & q); }); };
    case Binary::kOr: return [](const void* a, const void* b, void* y, int64_t n) { loop<U, U>(a, b, y, n, [](U p, U q) { return static_cast<U>(p | q); }); };
    case Binary::kXor: return [](const void* a, const void* b, void* y, int64_t n) { loop<U, U>(a, b, y, n, [](U p, U q) { return static_cast<U>(p ^ q); }); };
    default: return nullptr;
  }
}

template <class T> inline T shift_left(T a, T b) {
  using U = std::make_unsigned_t<T>;
  return static_cast<U>(b) >= sizeof(T) * 8 ? T(0) : static_cast<T>(static_cast<uint64_t>(static_cast<U>(a)) << b);
}
template <class T> inline T shift_right(T a, T b) {
  using U = std::make_unsigned_t<T>;
  if (static_cast<U>(b) >= sizeof(T) * 8) return static_cast<T>(a < 0 ? -1 : 0);
  return static_cast<T>(a >> b);
}

template <class T> BinaryFn integer(Binary f) {
  switch (f) {
    case Binary::kDiv: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, divide<T>); };
    case Binary::kMod: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, modulo<T>); };
    case Binary::kFmod: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, remainder<T>); };
    case Binary::kMin: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return p < q ? p : q; }); };
    case Binary::kMax: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return p > q ? p : q; }); };
    case Binary::kPow: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return static_cast<T>(integer_power(static_cast<int64_t>(p), static_cast<int64_t>(q))); }); };
    case Binary::kPRelu: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return p < 0 ? static_cast<T>(static_cast<uint64_t>(p) * static_cast<uint64_t>(q)) : p; }); };
    case Binary::kShl: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, shift_left<T>); };
    case Binary::kShr: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, shift_right<T>); };
    default: return wrapping<std::make_unsigned_t<T>>(f);
  }
}

template <class T> BinaryFn floating(Binary f) {
  switch (f) {
    case Binary::kAdd: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return p + q; }); };
    case Binary::kSub: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return p - q; }); };
    case Binary::kMul: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return p * q; }); };
    case Binary::kDiv: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return p / q; }); };
    case Binary::kMin: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return p != p ? p : p < q ? p : q; }); };
    case Binary::kMax: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return p != p ? p : p > q ? p : q; }); };
    case Binary::kPow: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return static_cast<T>(std::pow(p, q)); }); };
    case Binary::kPRelu: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return p < 0 ? p * q : p; }); };
    case Binary::kMod: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return static_cast<T>(modulo_f(p, q)); }); };
    case Binary::kFmod: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, T>(a, b, y, n, [](T p, T q) { return static_cast<T>(std::fmod(p, q)); }); };
    default: return nullptr;
  }
}

template <class T> BinaryFn compare(Compare f) {
  switch (f) {
    case Compare::kEqual: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, bool>(a, b, y, n, [](T p, T q) { return p == q; }); };
    case Compare::kLess: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, bool>(a, b, y, n, [](T p, T q) { return p < q; }); };
    case Compare::kLessOrEqual: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, bool>(a, b, y, n, [](T p, T q) { return p <= q; }); };
    case Compare::kGreater: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, bool>(a, b, y, n, [](T p, T q) { return p > q; }); };
    case Compare::kGreaterOrEqual: return [](const void* a, const void* b, void* y, int64_t n) { loop<T, bool>(a, b, y, n, [](T p, T q) { return p >= q; }); };
  }
  return nullptr;
}

template <class T> void select_loop(const void* pc, const void* pa, const void* pb, void* py, int64_t n) {
  const uint8_t* c = static_cast<const uint8_t*>(pc);
  const T* a = static_cast<const T*>(pa);
  const T* b = static_cast<const T*>(pb);
  T* y = static_cast<T*>(py);
  for (int64_t i = 0; i < n; ++i) y[i] = c[i] ? a[i] : b[i];
}
struct Wide { uint64_t low, high; };

template <class T, class F> void loop1(const void* px, void* py, int64_t n, F f) {
  const T* x = static_cast<const T*>(px);
  T* y = static_cast<T*>(py);
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(f(x[i]));
}
template <class T> UnaryFn integer_unary(Unary f) {
  using U = std::make_unsigned_t<T>;
  switch (f) {
    case Unary::kAbs: return [](const void* x, void* y, int64_t n) { loop1<T>(x, y, n, [](T v) { return v < 0 ? static_cast<T>(U(0) - static_cast<U>(v)) : v; }); };
    case Unary::kNeg: return [](const void* x, void* y, int64_t n) { loop1<T>(x, y, n, [](T v) { return static_cast<T>(U(0) - static_cast<U>(v)); }); };
    case Unary::kSign: return [](const void* x, void* y, int64_t n) { loop1<T>(x, y, n, [](T v) { return (v > 0) - (v < 0); }); };
    default: return nullptr;
  }
}

}  // namespace

int64_t integer_power(int64_t x, int64_t y) {
  if (y < 0) return x == 1 ? 1 : x == -1 ? (y & 1 ? -1 : 1) : 0;
  uint64_t r = 1, base = static_cast<uint64_t>(x);
  for (; y; y >>= 1, base *= base) if (y & 1) r *= base;
  return static_cast<int64_t>(r);
}

BinaryFn binary_fn(Binary f, DType t) {
  switch (t) {
    case DType::kBool: return f == Binary::kAnd || f == Binary::kOr || f == Binary::kXor ? wrapping<uint8_t>(f) : nullptr;
    case DType::kUInt8: return integer<uint8_t>(f);
    case DType::kInt8: return integer<int8_t>(f);
    case DType::kUInt16: return integer<uint16_t>(f);
    case DType::kInt16: return integer<int16_t>(f);
    case DType::kUInt32: return integer<uint32_t>(f);
    case DType::kInt32: return integer<int32_t>(f);
    case DType::kUInt64: return integer<uint64_t>(f);
    case DType::kInt64: return integer<int64_t>(f);
    case DType::kDouble: return floating<double>(f);
    case DType::kFloat: {
      const int i = static_cast<int>(f);
      return i < kNumVectorBinary ? binary().f32[i][static_cast<int>(Pair::kVV)] : floating<float>(f);
    }
    default: return nullptr;
  }
}

BinaryFn compare_fn(Compare f, DType t) {
  switch (t) {
    case DType::kBool: case DType::kUInt8: return compare<uint8_t>(f);
    case DType::kInt8: return compare<int8_t>(f);
    case DType::kUInt16: return compare<uint16_t>(f);
    case DType::kInt16: return compare<int16_t>(f);
    case DType::kUInt32: return compare<uint32_t>(f);
    case DType::kInt32: return compare<int32_t>(f);
    case DType::kUInt64: return compare<uint64_t>(f);
    case DType::kInt64: return compare<int64_t>(f);
    case DType::kFloat: return compare<float>(f);
    case DType::kDouble: return compare<double>(f);
    default: return nullptr;
  }
}

SelectFn select_fn(int element_bytes) {
  switch (element_bytes) {
    case 1: return &select_loop<uint8_t>;
    case 2: return &select_loop<uint16_t>;
    case 4: return &select_loop<uint32_t>;
    case 8: return &select_loop<uint64_t>;
    case 16: return &select_loop<Wide>;
    default: return nullptr;
  }
}

UnaryFn unary_fn(Unary f, DType t) {
  switch (t) {
    case DType::kInt8: return integer_unary<int8_t>(f);
    case DType::kInt16: return integer_unary<int16_t>(f);
    case DType::kInt32: return integer_unary<int32_t>(f);
    case DType::kInt64: return integer_unary<int64_t>(f);
    case DType::kUInt8: return integer_unary<uint8_t>(f);
    case DType::kUInt16: return integer_unary<uint16_t>(f);
    case DType::kUInt32: return integer_unary<uint32_t>(f);
    case DType::kUInt64: return integer_unary<uint64_t>(f);
    default: break;
  }
  if (t == DType::kFloat && static_cast<int>(f) < kNumVectorUnary) return unary().f32[static_cast<int>(f)];
  switch (f) {
#define TIERCEL_ROW(name, library)                                                                                       \
  case Unary::name:                                                                                                      \
    if (t == DType::kFloat) return [](const void* x, void* y, int64_t n) { loop1<float>(x, y, n, [](float v) { return library(v); }); }; \
    if (t == DType::kDouble) return [](const void* x, void* y, int64_t n) { loop1<double>(x, y, n, [](double v) { return library(v); }); }; \
    return nullptr;
    TIERCEL_ROW(kTan, std::tan) TIERCEL_ROW(kAsin, std::asin) TIERCEL_ROW(kAcos, std::acos) TIERCEL_ROW(kAtan, std::atan)
    TIERCEL_ROW(kSinh, std::sinh) TIERCEL_ROW(kCosh, std::cosh) TIERCEL_ROW(kAsinh, std::asinh)
    TIERCEL_ROW(kAcosh, std::acosh) TIERCEL_ROW(kAtanh, std::atanh)
#undef TIERCEL_ROW
#define TIERCEL_ROW(name)                                                                                                \
  case Unary::k##name:                                                                                                   \
    if (t == DType::kDouble) return [](const void* x, void* y, int64_t n) { loop1<double>(x, y, n, [](double v) { return reference::unary(Unary::k##name, v); }); }; \
    return nullptr;
    TIERCEL_VECTOR_UNARY(TIERCEL_ROW)
#undef TIERCEL_ROW
  }
  return nullptr;
}

}  // namespace tiercel

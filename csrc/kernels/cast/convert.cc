#ifndef __clang__
#pragma GCC optimize("O3")
#endif
#include "kernels/cast/convert.h"

#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels/cast/half.h"

namespace tiercel {
namespace {

template <class T, class U> inline U convert(T x) {
  if constexpr (std::is_same_v<U, bool>) {
    return x != 0;
  } else if constexpr (std::is_floating_point_v<T> && std::is_integral_v<U>) {
    if constexpr (sizeof(U) < 4 || std::is_same_v<U, int32_t>) {
      const int32_t i = x > T(-2147483649.0) && x < T(2147483648.0) ? static_cast<int32_t>(x) : std::numeric_limits<int32_t>::min();
      return static_cast<U>(i);
    } else if constexpr (std::is_same_v<U, uint64_t>) {
      if (x >= T(0x1p63) && x < T(0x1p64)) return static_cast<uint64_t>(x);
      return static_cast<uint64_t>(x >= T(-0x1p63) && x < T(0x1p63) ? static_cast<int64_t>(x) : std::numeric_limits<int64_t>::min());
    } else {
      return static_cast<U>(x >= T(-0x1p63) && x < T(0x1p63) ? static_cast<int64_t>(x) : std::numeric_limits<int64_t>::min());
    }
  } else {
    return static_cast<U>(x);
  }
}

template <class T, class U> void row(const void* px, void* py, int64_t n) {
  const T* x = static_cast<const T*>(px);
  U* y = static_cast<U*>(py);
  for (int64_t i = 0; i < n; ++i) y[i] = convert<T, U>(x[i]);
}

// Rounds to odd, so that a second rounding to at most 22 bits gives what one would.
void f64_to_f32_odd(const void* px, void* py, int64_t n) {
  const double* x = static_cast<const double*>(px);
  float* y = static_cast<float*>(py);
  for (int64_t i = 0; i < n; ++i) {
    const float f = static_cast<float>(x[i]);
    const double d = x[i], back = f;
    uint32_t u = std::bit_cast<uint32_t>(f);
    if (back != d && d == d && !(u & 1)) u += std::fabs(back) > std::fabs(d) ? -1 : 1;
    y[i] = std::bit_cast<float>(u);
  }
}

void f16_to_f32(const void* x, void* y, int64_t n) { half().f16_to_f32(static_cast<const uint16_t*>(x), static_cast<float*>(y), n); }
void bf16_to_f32(const void* x, void* y, int64_t n) { half().bf16_to_f32(static_cast<const uint16_t*>(x), static_cast<float*>(y), n); }
void f32_to_f16(const void* x, void* y, int64_t n) { half().f32_to_f16(static_cast<const float*>(x), static_cast<uint16_t*>(y), n); }
void f32_to_bf16(const void* x, void* y, int64_t n) { half().f32_to_bf16(static_cast<const float*>(x), static_cast<uint16_t*>(y), n); }

template <DType t> void narrow_row(const void* px, void* py, int64_t n) {
  const uint8_t* x = static_cast<const uint8_t*>(px);
  float* y = static_cast<float*>(py);
  float table[256];
  const int codes = t == DType::kFloat4E2M1 ? 16 : 256;
  for (int i = 0; i < codes; ++i) table[i] = narrow_to_float(static_cast<uint8_t>(i), t);
  for (int64_t i = 0; i < n; ++i) y[i] = table[x[i] & (codes - 1)];
}

template <class T> ConvertFn from(DType to) {
  switch (to) {
    case DType::kBool: return &row<T, bool>;
    case DType::kUInt8: return &row<T, uint8_t>;
    case DType::kInt8: return &row<T, int8_t>;
    case DType::kUInt16: return &row<T, uint16_t>;
    case DType::kInt16: return &row<T, int16_t>;
    case DType::kUInt32: return &row<T, uint32_t>;
    case DType::kInt32: return &row<T, int32_t>;
    case DType::kUInt64: return &row<T, uint64_t>;
    case DType::kInt64: return &row<T, int64_t>;
    case DType::kFloat: return &row<T, float>;
    case DType::kDouble: return &row<T, double>;
    default: return nullptr;
  }
}

ConvertFn wide(DType f, DType to) {  // both of bool, integers, f32, f64
  switch (f) {
    case DType::kBool: return from<bool>(to);
    case DType::kUInt8: return from<uint8_t>(to);
    case DType::kInt8: return from<int8_t>(to);
    case DType::kUInt16: return from<uint16_t>(to);
    case DType::kInt16: return from<int16_t>(to);
    case DType::kUInt32: return from<uint32_t>(to);
    case DType::kInt32: return from<int32_t>(to);
    case DType::kUInt64: return from<uint64_t>(to);
    case DType::kInt64: return from<int64_t>(to);
    case DType::kFloat: return from<float>(to);
    case DType::kDouble: return from<double>(to);
    default: return nullptr;
  }
}

ConvertFn to_f32(DType f) {
  switch (f) {
    case DType::kFloat16: return &f16_to_f32;
    case DType::kBFloat16: return &bf16_to_f32;
    case DType::kFloat8E4M3FN: return &narrow_row<DType::kFloat8E4M3FN>;
    case DType::kFloat8E4M3FNUZ: return &narrow_row<DType::kFloat8E4M3FNUZ>;
    case DType::kFloat8E5M2: return &narrow_row<DType::kFloat8E5M2>;
    case DType::kFloat8E5M2FNUZ: return &narrow_row<DType::kFloat8E5M2FNUZ>;
    case DType::kFloat8E8M0: return &narrow_row<DType::kFloat8E8M0>;
    case DType::kFloat4E2M1: return &narrow_row<DType::kFloat4E2M1>;
    default: return nullptr;
  }
}

int bytes_each(DType t) { return (bits_of(t) + 7) / 8; }

}  // namespace

Convert::Convert(DType source, DType to, NarrowMode mode) : element_(bytes_each(source)), result_(bytes_each(to)), to_(to), mode_(mode) {
  if (source == to) return;
  narrow_ = is_narrow_float(to);
  const bool half_result = to == DType::kFloat16 || to == DType::kBFloat16;
  const ConvertFn last = to == DType::kFloat16 ? &f32_to_f16 : to == DType::kBFloat16 ? &f32_to_bf16 : nullptr;
  const bool through = narrow_ || half_result;  // the last step starts from f32
  const DType middle = through ? DType::kFloat : to;
  if (const ConvertFn widen = to_f32(source)) {
    first_ = widen;
    if (through) second_ = last;
    else if (to != DType::kFloat) second_ = wide(DType::kFloat, to);
    valid_ = to == DType::kFloat || through || second_;
  } else if (source == DType::kFloat && through) {
    first_ = last;  // null for the narrow ones
  } else {
    first_ = through && source == DType::kDouble ? &f64_to_f32_odd : wide(source, middle);
    second_ = last;
    valid_ = first_ != nullptr;
  }
}

void Convert::operator()(const void* x, void* y, int64_t n) const {
  if (!second_ && !narrow_) return first_(x, y, n);
  constexpr int64_t kChunk = 256;
  float middle[kChunk];
  const char* from_bytes = static_cast<const char*>(x);
  char* to_bytes = static_cast<char*>(y);
  for (int64_t i = 0; i < n; i += kChunk) {
    const int64_t m = n - i < kChunk ? n - i : kChunk;
    const void* source = from_bytes + i * element_;
    if (first_) first_(source, middle, m);
    const float* f = first_ ? middle : static_cast<const float*>(source);
    if (second_) second_(f, to_bytes + i * result_, m);
    else for (int64_t j = 0; j < m; ++j) to_bytes[i + j] = static_cast<char>(float_to_narrow(f[j], to_, mode_));
  }
}

void unpack_bits(const void* px, int64_t begin, int64_t n, int bits, bool is_signed, void* py) {
  const uint8_t* x = static_cast<const uint8_t*>(px);
  int8_t* y = static_cast<int8_t*>(py);
  const int each = 8 / bits, unused = 8 - bits;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t at = begin + i;
    const uint8_t v = static_cast<uint8_t>(x[at / each] >> (at % each * bits) << unused);
    y[i] = is_signed ? static_cast<int8_t>(static_cast<int8_t>(v) >> unused) : static_cast<int8_t>(v >> unused);
  }
}

void pack_bits(const void* px, int64_t begin, int64_t n, int bits, void* py) {
  const uint8_t* x = static_cast<const uint8_t*>(px);
  uint8_t* y = static_cast<uint8_t*>(py) + begin * bits / 8;
  const int each = 8 / bits, mask = (1 << bits) - 1;
  for (int64_t i = 0; i < n; i += each) {
    int v = 0;
    for (int j = 0; j < each && i + j < n; ++j) v |= (x[i + j] & mask) << (j * bits);
    *y++ = static_cast<uint8_t>(v);
  }
}

}  // namespace tiercel

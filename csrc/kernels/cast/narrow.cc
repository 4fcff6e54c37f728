#include "kernels/cast/narrow.h"

#include <bit>
#include <cmath>

namespace tiercel {
namespace {

// sign, exponent and mantissa bits from the left; value (1 + m / 2^mantissa) 2^(e - bias), subnormal for e = 0.
struct Format {
  int exponent, mantissa, bias;
  bool infinities;  // all-ones exponent is inf and NaN (IEEE); otherwise it holds numbers
  bool fnuz;        // the only NaN is the bits of -0
  bool has_nan;
  int max_code() const {  // largest finite magnitude
    const int all = (1 << (exponent + mantissa)) - 1;
    if (infinities) return all - (1 << mantissa);
    return fnuz || !has_nan ? all : all - 1;
  }
};

constexpr Format format_of(DType t) {
  switch (t) {
    case DType::kFloat8E4M3FN: return {4, 3, 7, false, false, true};
    case DType::kFloat8E4M3FNUZ: return {4, 3, 8, false, true, true};
    case DType::kFloat8E5M2: return {5, 2, 15, true, false, true};
    case DType::kFloat8E5M2FNUZ: return {5, 2, 16, false, true, true};
    default: return {2, 1, 1, false, false, false};  // kFloat4E2M1
  }
}

float e8m0_to_float(uint8_t bits) { return bits == 255 ? NAN : std::ldexp(1.0f, bits - 127); }

uint8_t float_to_e8m0(float x, NarrowMode mode) {
  if (std::isnan(x)) return 255;
  const uint32_t u = std::bit_cast<uint32_t>(x) & 0x7fffffffu;
  if (u >= 0x7f800000u) return mode.saturate ? 254 : 255;
  if (u == 0) return mode.saturate ? 0 : 255;
  int e = static_cast<int>(u >> 23);
  const uint32_t m = u & 0x7fffffu;
  if (e == 0) {  // below 2^-126: 2^-127 is code 0
    const bool above = u > 0x400000u;  // 2^-127
    if (mode.round == Rounding::kUp ? above : mode.round == Rounding::kNearest && u >= 0x600000u) return 1;
    return u >= 0x400000u || mode.saturate ? 0 : 255;
  }
  if (mode.round == Rounding::kUp ? m != 0 : mode.round == Rounding::kNearest && m >= 0x400000u) ++e;
  if (e > 254) return mode.saturate ? 254 : 255;
  return static_cast<uint8_t>(e);
}

}  // namespace

bool is_narrow_float(DType t) {
  switch (t) {
    case DType::kFloat8E4M3FN: case DType::kFloat8E4M3FNUZ: case DType::kFloat8E5M2: case DType::kFloat8E5M2FNUZ:
    case DType::kFloat8E8M0: case DType::kFloat4E2M1: return true;
    default: return false;
  }
}

float narrow_to_float(uint8_t bits, DType t) {
  if (t == DType::kFloat8E8M0) return e8m0_to_float(bits);
  const Format f = format_of(t);
  const int width = f.exponent + f.mantissa;
  const int code = bits & ((1 << width) - 1);
  const bool negative = (bits >> width) & 1;
  if (f.fnuz) {
    if (negative && code == 0) return NAN;
  } else if (f.has_nan && code > f.max_code()) {
    if (f.infinities && code == f.max_code() + 1) return negative ? -INFINITY : INFINITY;
    return negative ? -NAN : NAN;
  }
  const int e = code >> f.mantissa, m = code & ((1 << f.mantissa) - 1);
  const float v = e ? std::ldexp(static_cast<float>((1 << f.mantissa) + m), e - f.bias - f.mantissa)
                    : std::ldexp(static_cast<float>(m), 1 - f.bias - f.mantissa);
  return negative ? -v : v;
}

uint8_t float_to_narrow(float x, DType t, NarrowMode mode) {
  if (t == DType::kFloat8E8M0) return float_to_e8m0(x, mode);
  const Format f = format_of(t);
  const int width = f.exponent + f.mantissa;
  const int sign = std::signbit(x) ? 1 << width : 0;
  const auto nan = [&] { return static_cast<uint8_t>(f.fnuz ? 1 << width : (sign | ((1 << width) - 1))); };
  const int max = f.max_code();
  if (std::isnan(x)) return f.has_nan ? nan() : static_cast<uint8_t>(sign);  // no NaN in float4e2m1: zero
  const auto overflow = [&]() -> uint8_t {
    if (mode.saturate || !f.has_nan) return static_cast<uint8_t>(sign | max);
    return f.infinities ? static_cast<uint8_t>(sign | (max + 1)) : nan();
  };
  if (std::isinf(x)) return overflow();
  int e = 0;
  const double v = std::fabs(static_cast<double>(x));
  if (v > 0) e = std::max(std::ilogb(v), 1 - f.bias);
  // Round to a multiple of the last place of the binade, half to even; a carry moves into the exponent by itself.
  const double scaled = std::nearbyint(std::ldexp(v, f.mantissa - e));
  int code = static_cast<int>(std::min(scaled, 1e6));
  code += v > 0 ? (e + f.bias - 1) << f.mantissa : 0;
  if (code > max) return overflow();
  if (f.fnuz && code == 0) return 0;
  return static_cast<uint8_t>(sign | code);
}

}  // namespace tiercel

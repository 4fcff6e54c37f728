// What the numeric operators share: one loop for many dtypes, and f16 and bf16 by way of f32.
#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "ops/registry.h"

namespace tiercel {

// Integers in the order of the values: -0 equals 0, every NaN is the largest.
inline uint32_t float_order(float v) {
  if (v != v) return 0xffffffffu;
  const uint32_t u = std::bit_cast<uint32_t>(v + 0.0f);
  return u & 0x80000000u ? ~u : u | 0x80000000u;
}

template <class T> struct Tag { using type = T; };

// f(Tag<T>()) for the C++ type of an integer dtype or of double; false (nothing called) for the others.
template <class F> bool with_plain_type(DType t, F&& f) {
  switch (t) {
    case DType::kDouble: f(Tag<double>()); return true;
    case DType::kInt8: f(Tag<int8_t>()); return true;
    case DType::kInt16: f(Tag<int16_t>()); return true;
    case DType::kInt32: f(Tag<int32_t>()); return true;
    case DType::kInt64: f(Tag<int64_t>()); return true;
    case DType::kUInt8: f(Tag<uint8_t>()); return true;
    case DType::kUInt16: f(Tag<uint16_t>()); return true;
    case DType::kUInt32: f(Tag<uint32_t>()); return true;
    case DType::kUInt64: f(Tag<uint64_t>()); return true;
    default: return false;
  }
}

inline bool is_half(DType t) { return t == DType::kFloat16 || t == DType::kBFloat16; }
inline bool is_real(DType t) { return t == DType::kFloat || t == DType::kDouble || is_half(t); }

// A double as an integer: truncated, held within T's range, NaN as 0; as a float type: rounded.
template <class T> T saturate(double v) {
  if constexpr (std::is_floating_point_v<T>) return static_cast<T>(v);
  else {
    if (std::isnan(v)) return 0;
    if (v <= static_cast<double>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
    if (v >= static_cast<double>(std::numeric_limits<T>::max())) return std::numeric_limits<T>::max();
    return static_cast<T>(v);
  }
}

// n elements of a f16 or bf16 tensor to and from float.
void halves_to_floats(DType t, const void* from, float* to, int64_t n);
void floats_to_halves(DType t, const float* from, void* to, int64_t n);

// A prepare function that knows f32, for f16 and bf16 too: `prepare` sees f32 in their place, the elements are converted
// before and after its kernel. Rounded once, at the end.
void prepare_half(PrepareContext& ctx, PrepareFn prepare);
template <PrepareFn prepare> void half_as_float(PrepareContext& ctx) { prepare_half(ctx, prepare); }

// Extents before, at and after an axis: [outer, n, inner].
struct AxisView {
  int64_t outer, n, inner;
  AxisView(const Shape& s, int axis) : outer(s.count(0, axis)), n(s[axis]), inner(s.count(axis + 1, s.rank())) {}
};

// Fails unless input i has one of the real dtypes.
void check_real(const InferContext& ctx, int i);

// Grain that gives tasks of about `work` elements.
inline int64_t grain_for(int64_t elements_each, int64_t work = 16384) {
  return std::max<int64_t>(1, work / std::max<int64_t>(elements_each, 1));
}

}  // namespace tiercel

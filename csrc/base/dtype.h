// Element types, numbered as in ONNX TensorProto.DataType.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tiercel {

enum class DType : uint8_t {
  kUndefined = 0,
  kFloat = 1,
  kUInt8 = 2,
  kInt8 = 3,
  kUInt16 = 4,
  kInt16 = 5,
  kInt32 = 6,
  kInt64 = 7,
  kString = 8,
  kBool = 9,
  kFloat16 = 10,
  kDouble = 11,
  kUInt32 = 12,
  kUInt64 = 13,
  kComplex64 = 14,
  kComplex128 = 15,
  kBFloat16 = 16,
  kFloat8E4M3FN = 17,
  kFloat8E4M3FNUZ = 18,
  kFloat8E5M2 = 19,
  kFloat8E5M2FNUZ = 20,
  kUInt4 = 21,
  kInt4 = 22,
  kFloat4E2M1 = 23,
  kFloat8E8M0 = 24,
  kUInt2 = 25,
  kInt2 = 26,
};
inline constexpr int kNumDTypes = 27;

// Bits of one element: 2 and 4 for the sub-byte types (packed, low bits first), 0 for kUndefined.
// A string element is a std::string.
int bits_of(DType t);
// Bytes of a contiguous tensor of n elements; sub-byte types round up.
int64_t bytes_of(DType t, int64_t n);

// "float", "int64", "bfloat16": the names that appear in `tensor(float)`.
std::string_view dtype_name(DType t);

bool is_float(DType t);     // f16, bf16, f32, f64 and the narrow floats
bool is_integer(DType t);   // signed and unsigned, not bool
bool is_signed(DType t);

// Storage-only number formats. Conversions round to nearest even; see float_formats.h.
struct Half { uint16_t bits; };
struct BFloat16 { uint16_t bits; };

template <class T> struct DTypeOf;
#define TIERCEL_DTYPE(T, V) template <> struct DTypeOf<T> { static constexpr DType value = DType::V; };
TIERCEL_DTYPE(float, kFloat) TIERCEL_DTYPE(double, kDouble) TIERCEL_DTYPE(bool, kBool)
TIERCEL_DTYPE(uint8_t, kUInt8) TIERCEL_DTYPE(int8_t, kInt8) TIERCEL_DTYPE(uint16_t, kUInt16)
TIERCEL_DTYPE(int16_t, kInt16) TIERCEL_DTYPE(uint32_t, kUInt32) TIERCEL_DTYPE(int32_t, kInt32)
TIERCEL_DTYPE(uint64_t, kUInt64) TIERCEL_DTYPE(int64_t, kInt64) TIERCEL_DTYPE(Half, kFloat16)
TIERCEL_DTYPE(BFloat16, kBFloat16)
#undef TIERCEL_DTYPE
template <class T> inline constexpr DType dtype_of = DTypeOf<T>::value;

}  // namespace tiercel

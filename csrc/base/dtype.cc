#include "base/dtype.h"

#include <string>

namespace tiercel {
namespace {
struct Row { const char* name; int bits; };
constexpr Row kRows[kNumDTypes] = {
    {"undefined", 0}, {"float", 32}, {"uint8", 8}, {"int8", 8}, {"uint16", 16}, {"int16", 16}, {"int32", 32},
    {"int64", 64}, {"string", 8 * sizeof(std::string)}, {"bool", 8}, {"float16", 16}, {"double", 64}, {"uint32", 32},
    {"uint64", 64}, {"complex64", 64}, {"complex128", 128}, {"bfloat16", 16}, {"float8e4m3fn", 8},
    {"float8e4m3fnuz", 8}, {"float8e5m2", 8}, {"float8e5m2fnuz", 8}, {"uint4", 4}, {"int4", 4}, {"float4e2m1", 4},
    {"float8e8m0", 8}, {"uint2", 2}, {"int2", 2}};
}  // namespace

int bits_of(DType t) { return static_cast<int>(t) < kNumDTypes ? kRows[static_cast<int>(t)].bits : 0; }
int64_t bytes_of(DType t, int64_t n) {
  const int bits = bits_of(t);
  return bits >= 8 ? n * (bits / 8) : (n * bits + 7) / 8;
}
std::string_view dtype_name(DType t) {
  return static_cast<int>(t) < kNumDTypes ? kRows[static_cast<int>(t)].name : "undefined";
}
bool is_float(DType t) {
  switch (t) {
    case DType::kFloat: case DType::kDouble: case DType::kFloat16: case DType::kBFloat16:
    case DType::kFloat8E4M3FN: case DType::kFloat8E4M3FNUZ: case DType::kFloat8E5M2: case DType::kFloat8E5M2FNUZ:
    case DType::kFloat4E2M1: case DType::kFloat8E8M0: return true;
    default: return false;
  }
}
bool is_integer(DType t) {
  switch (t) {
    case DType::kUInt8: case DType::kInt8: case DType::kUInt16: case DType::kInt16: case DType::kInt32:
    case DType::kInt64: case DType::kUInt32: case DType::kUInt64: case DType::kUInt4: case DType::kInt4:
    case DType::kUInt2: case DType::kInt2: return true;
    default: return false;
  }
}
bool is_signed(DType t) {
  switch (t) {
    case DType::kInt8: case DType::kInt16: case DType::kInt32: case DType::kInt64: case DType::kInt4:
    case DType::kInt2: return true;
    default: return is_float(t) && t != DType::kFloat8E8M0;
  }
}

}  // namespace tiercel

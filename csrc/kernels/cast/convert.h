// Rows converted from one element type to another, as ONNX Cast does.
//
// Float to integer truncates; NaN and what is out of range follow the x86 rule on every processor: the least int32 (for targets of at
// most 32 bits, of which the low bits are kept) or the least int64. Integer to integer keeps the low bits. To bool: not zero.
// Double to 16 bits and below rounds once.
#pragma once
#include <cstdint>

#include "base/dtype.h"
#include "kernels/cast/narrow.h"

namespace tiercel {

using ConvertFn = void (*)(const void* x, void* y, int64_t n);

// One or two steps through f32; empty when the types are equal.
class Convert {
 public:
  Convert() = default;
  // Elements of whole bytes: bool, integers, f16, bf16, f32, f64, and the 8-bit floats (float4e2m1 as one byte each). Not valid() for others.
  Convert(DType from, DType to, NarrowMode mode = {});
  bool valid() const { return valid_; }
  explicit operator bool() const { return first_ || narrow_; }
  void operator()(const void* x, void* y, int64_t n) const;

 private:
  ConvertFn first_ = nullptr, second_ = nullptr;
  int element_ = 0;             // bytes of x
  int result_ = 0;              // bytes of y
  bool narrow_ = false;         // the last step is float_to_narrow
  bool valid_ = true;
  DType to_ = DType::kUndefined;
  NarrowMode mode_;
};

// Packed elements of 2 or 4 bits, low bits first, to and from a byte each. `begin` must start a byte.
void unpack_bits(const void* x, int64_t begin, int64_t n, int bits, bool is_signed, void* y);
void pack_bits(const void* x, int64_t begin, int64_t n, int bits, void* y);

}  // namespace tiercel

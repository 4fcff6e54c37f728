// What operators that take indices share. A negative index counts from the end.
#pragma once
#include "ops/movement.h"

namespace tiercel {

inline void check_index_type(const InferContext& ctx, int i) {
  const DType t = ctx.dtype(i);
  ctx.check(t == DType::kInt64 || t == DType::kInt32, "indices should be int32 or int64, not ", dtype_name(t));
}

// An index in [0, extent), or an error that says what it was.
template <class Index> inline int64_t place(Index given, int64_t extent, const std::string& label) {
  const int64_t i = given < 0 ? given + extent : given;
  if (static_cast<uint64_t>(i) >= static_cast<uint64_t>(extent)) [[unlikely]]
    fail(Code::kInvalidArgument, label, ": index ", static_cast<int64_t>(given), " is outside [", -extent, ", ", extent - 1, "]");
  return i;
}

// Calls f with a value of the index type.
template <class F> void with_index_type(DType t, F f) {
  if (t == DType::kInt32) f(int32_t{});
  else f(int64_t{});
}

// Calls f with a zero of a type as big as an element (a std::string for strings): loops that move single elements.
template <class F> void with_element_type(Element e, F f) {
  struct Sixteen { uint64_t a, b; };
  if (e.string) return f(std::string());
  switch (e.size) {
    case 1: return f(uint8_t{});
    case 2: return f(uint16_t{});
    case 4: return f(uint32_t{});
    case 8: return f(uint64_t{});
    default: return f(Sixteen{});
  }
}

}  // namespace tiercel

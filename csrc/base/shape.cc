#include "base/shape.h"

namespace tiercel {

int64_t Shape::count(int first, int last) const {
  int64_t n = 1;
  for (int i = first; i < last; ++i) if (dims_[i] == 0) return 0;
  for (int i = first; i < last; ++i)
    if (__builtin_mul_overflow(n, dims_[i], &n))
      fail(Code::kInvalidArgument, "shape ", str(), " has more elements than a 64-bit count holds");
  return n;
}

std::string Shape::str() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) {
    if (i) s += ',';
    s += is_symbol(dims_[i]) ? "?" : std::to_string(dims_[i]);
  }
  return s + "]";
}

}  // namespace tiercel

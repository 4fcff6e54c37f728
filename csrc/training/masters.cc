#include "training/masters.h"

#include <algorithm>
#include <cstring>

#include "base/float_formats.h"

namespace tiercel {

void copy_widened(const Tensor& from, const Tensor& to) {
  if (from.dtype() == to.dtype()) {
    if (from.bytes()) from.read(0, from.bytes(), to.data());
    return;
  }
  Tensor narrow(from.dtype(), from.shape());
  if (from.bytes()) from.read(0, from.bytes(), narrow.data());
  const auto widen = [&](const auto* x) { std::transform(x, x + from.count(), to.as<float>(), [](auto v) { return to_float(v); }); };
  from.dtype() == DType::kFloat16 ? widen(narrow.as<Half>()) : widen(narrow.as<BFloat16>());
}

Tensor narrowed(const Tensor& from, DType t) {
  Tensor to(t, from.shape());
  const int64_t n = from.count();
  if (t == from.dtype()) {
    if (from.bytes()) std::memcpy(to.data(), from.data(), static_cast<size_t>(from.bytes()));
  } else if (t == DType::kFloat16) {
    std::transform(from.as<float>(), from.as<float>() + n, to.as<Half>(), to_half);
  } else {
    std::transform(from.as<float>(), from.as<float>() + n, to.as<BFloat16>(), to_bfloat16);
  }
  return to;
}

}  // namespace tiercel

#include <cmath>

#include "kernels/quantize/quantize.h"

namespace tiercel::reference {

float dequantize(int32_t x, float zero, float scale) { return (static_cast<float>(x) - zero) * scale; }

int32_t quantize(float x, float zero, float scale, int32_t low, int32_t high) {
  const float v = std::nearbyint(x / scale) + zero;
  if (!(v > static_cast<float>(low))) return low;
  return v >= static_cast<float>(high) ? high : static_cast<int32_t>(v);
}

}  // namespace tiercel::reference

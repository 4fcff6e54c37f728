// Floats of 8 and 4 bits: one value to and from f32.
#pragma once
#include <cstdint>

#include "base/dtype.h"

namespace tiercel {

// How f32 becomes a narrower float. saturate: out-of-range values become the largest finite one, else NaN or an infinity;
// round: of float8e8m0 alone.
enum class Rounding : uint8_t { kUp, kDown, kNearest };
struct NarrowMode {
  bool saturate = true;
  Rounding round = Rounding::kUp;
};

bool is_narrow_float(DType t);  // kFloat8*, kFloat4E2M1
float narrow_to_float(uint8_t bits, DType t);
uint8_t float_to_narrow(float x, DType t, NarrowMode mode);

}  // namespace tiercel

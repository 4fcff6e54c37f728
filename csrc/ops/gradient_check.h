// The result of ai.tiercel.GradientCheck.
#pragma once
#include <cstdint>

namespace tiercel {

inline constexpr int64_t kLossNotFinite = INT64_MAX;  // in place of a gradient's number

}  // namespace tiercel

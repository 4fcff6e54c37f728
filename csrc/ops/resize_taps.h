// Where a resize looks: for each output index along an axis, the input indices and their weights.
// Formulas: ONNX Resize-19 (coordinate_transformation_mode, nearest_mode, antialias); cubic: Keys, IEEE TASSP 1981.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace tiercel {

struct ResizeMode {
  enum class Interpolation { kNearest, kLinear, kCubic } interpolation = Interpolation::kNearest;
  std::string coordinates = "half_pixel", nearest = "round_prefer_floor";  // nearest "legacy": before opset 11
  bool antialias = false, exclude_outside = false;
  double cubic_a = -0.75, extrapolation = 0;
};

struct ResizeTaps {
  int64_t in = 0, out = 0;  // extents
  int taps = 0;
  std::vector<int32_t> index;  // [taps, out], within [0, in)
  std::vector<double> weight;  // [taps, out]
  std::vector<uint8_t> outside;  // [out]: takes the extrapolation value; empty when none does
  bool identity = false;         // output i is input i
};

// scale: output over input extent as asked for (not rounded to whole extents); crop [start, end] in units of the input.
ResizeTaps resize_taps(const ResizeMode& mode, int64_t in, int64_t out, double scale, double crop_start, double crop_end);

}  // namespace tiercel

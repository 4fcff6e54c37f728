#include "ops/resize_taps.h"

#include <algorithm>
#include <cmath>

namespace tiercel {
namespace {

// Source coordinate of output index x, in T (the nearest modes compute in float, so that ties fall where others let them).
template <class T> T source(const ResizeMode& m, T x, T in, T out, T whole_out, T scale, T start, T end) {
  const std::string& c = m.coordinates;
  if (c == "align_corners") return out == 1 ? T(0) : x * (in - 1) / (out - 1);
  if (c == "asymmetric") return x / scale;
  if (c == "tf_half_pixel_for_nn") return (x + T(0.5)) / scale;
  if (c == "tf_crop_and_resize")
    return start * (in - 1) + (out == 1 ? (end - start) * (in - 1) / 2 : x * (end - start) * (in - 1) / (out - 1));
  if (c == "pytorch_half_pixel" && whole_out == 1) return T(0);
  const T half_pixel = (x + T(0.5)) / scale - T(0.5);
  if (c == "half_pixel_symmetric") return in / 2 * (1 - whole_out / out) + half_pixel;
  return half_pixel;
}

double cubic(double x, double a) {
  x = std::fabs(x);
  if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}

int64_t nearest_index(const ResizeMode& m, float x, bool shrinks) {
  const float low = std::floor(x);
  if (m.nearest == "legacy") return static_cast<int64_t>(shrinks ? std::ceil(x) : x);
  if (m.nearest == "floor") return static_cast<int64_t>(low);
  if (m.nearest == "ceil") return static_cast<int64_t>(std::ceil(x));
  const float part = x - low;
  const bool up = m.nearest == "round_prefer_ceil" ? part >= 0.5f : part > 0.5f;
  return static_cast<int64_t>(low) + up;
}

}  // namespace

ResizeTaps resize_taps(const ResizeMode& m, int64_t in, int64_t out, double scale, double start, double end) {
  ResizeTaps r;
  r.in = in;
  r.out = out;
  const bool crops = m.coordinates == "tf_crop_and_resize";
  if (in == out && scale == 1 && (!crops || (start == 0 && end == 1))) {
    r.identity = true;
    return r;
  }
  if (in == 0 || out == 0) return r;
  using enum ResizeMode::Interpolation;
  const double shrink = m.antialias ? std::min(scale, 1.0) : 1.0;  // the filter widens with the step
  const double support = m.interpolation == kCubic ? 2 : 1;
  const int first = static_cast<int>(std::floor(-support / shrink)) + 1;  // taps lie at first .. 1 - first beside floor(x)
  r.taps = m.interpolation == kNearest ? 1 : 2 - 2 * first;
  const size_t n = static_cast<size_t>(out);
  r.index.resize(static_cast<size_t>(r.taps) * n);
  r.weight.assign(static_cast<size_t>(r.taps) * n, 1.0);
  if (crops) r.outside.resize(n);
  std::vector<double> w(static_cast<size_t>(r.taps));
  const double length = scale * static_cast<double>(in), last = static_cast<double>(in - 1);
  for (size_t i = 0; i < n; ++i) {
    const double at = source<double>(m, static_cast<double>(i), static_cast<double>(in), length, static_cast<double>(out), scale, start, end);
    const double x = std::isnan(at) ? -1.0 : at;  // a crop between infinities or NaNs lies outside
    if (crops) r.outside[i] = !(x >= 0 && x <= last);
    if (m.interpolation == kNearest) {
      const float f = source<float>(m, static_cast<float>(i), static_cast<float>(in), static_cast<float>(length), static_cast<float>(out),
                                    static_cast<float>(scale), static_cast<float>(start), static_cast<float>(end));
      const float bounded = std::isnan(f) ? -1.0f : std::clamp(f, -1.0f, static_cast<float>(in));
      r.index[i] = static_cast<int32_t>(std::clamp<int64_t>(nearest_index(m, bounded, scale < 1), 0, in - 1));
      continue;
    }
    const double bounded = std::clamp(x, -1e15, 1e15), floor = std::floor(bounded);
    // At a whole coordinate the window lies one to the left and the fraction is 1, not 0: what antialias windows depend on.
    const double ratio = bounded == floor ? 1.0 : bounded - floor;
    const double base = (bounded == floor ? floor - 1 : floor) + first;
    double sum = 0;
    for (int t = 0; t < r.taps; ++t) {
      const double d = shrink * (first + t - ratio), place = base + t;
      double& v = w[static_cast<size_t>(t)];
      v = m.interpolation == kCubic ? cubic(d, m.cubic_a) : std::max(0.0, 1 - std::fabs(d));
      if (m.exclude_outside && (place < 0 || place > last)) v = 0;
      sum += v;
    }
    for (int t = 0; t < r.taps; ++t) {
      const size_t k = static_cast<size_t>(t) * n + i;
      r.index[k] = static_cast<int32_t>(std::clamp(base + t, 0.0, last));
      r.weight[k] = (m.antialias || m.exclude_outside) && sum != 0 ? w[static_cast<size_t>(t)] / sum : w[static_cast<size_t>(t)];
    }
  }
  if (std::none_of(r.outside.begin(), r.outside.end(), [](uint8_t o) { return o; })) r.outside.clear();
  return r;
}

}  // namespace tiercel

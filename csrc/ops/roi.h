// Where RoiAlign and MaxRoiPool read: for them and for their gradients.
#pragma once
#include <algorithm>
#include <cmath>
#include <utility>

#include "ops/context.h"

namespace tiercel {

template <class T> struct RoiSample {
  int64_t at[4];
  T weight[4], dy[4], dx[4];  // dy, dx: how the weights change with the place
};

// Bilinear taps at (y, x) of an [height, width] plane; zero weights outside.
template <class T> RoiSample<T> roi_sample(T y, T x, int64_t height, int64_t width) {
  RoiSample<T> s{};
  if (!(y >= -1 && y <= static_cast<T>(height) && x >= -1 && x <= static_cast<T>(width)) || height == 0 || width == 0) return s;
  T moves_y = y > 0 ? T(1) : T(0), moves_x = x > 0 ? T(1) : T(0);  // 0 where the place is held at a border
  y = std::max(y, T(0));
  x = std::max(x, T(0));
  int64_t y0 = static_cast<int64_t>(y), x0 = static_cast<int64_t>(x), y1 = y0 + 1, x1 = x0 + 1;
  if (y0 >= height - 1) { y0 = y1 = height - 1; y = static_cast<T>(y0); moves_y = 0; }
  if (x0 >= width - 1) { x0 = x1 = width - 1; x = static_cast<T>(x0); moves_x = 0; }
  const T ly = y - static_cast<T>(y0), lx = x - static_cast<T>(x0), hy = 1 - ly, hx = 1 - lx;
  return {{y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1},
          {hy * hx, hy * lx, ly * hx, ly * lx},
          {-hx * moves_y, -lx * moves_y, hx * moves_y, lx * moves_y},
          {-hy * moves_x, hy * moves_x, -ly * moves_x, ly * moves_x}};
}

// What RoiAlign's attributes make of a region [x1, y1, x2, y2]: bins, and a grid of samples in each.
template <class T> struct RoiAlignForm {
  T scale, shift;
  int64_t ratio, ph, pw;
  bool average, half;
  RoiAlignForm(const Node& node, int opset, int64_t height, int64_t width)
      : scale(static_cast<T>(node.attr_float("spatial_scale", 1))), ratio(node.attr_int("sampling_ratio", 0)), ph(height), pw(width),
        average(node.attr_string("mode", "avg") == "avg"),
        half(opset >= 16 && node.attr_string("coordinate_transformation_mode", "half_pixel") == "half_pixel") {
    shift = half ? T(0.5) : T(0);
  }

  struct Region { T left, top, bin_h, bin_w; int64_t grid_h, grid_w; bool held_h, held_w; };  // held: an extent is the least, 1
  Region region(const T* roi, const std::string& label, int64_t n) const {
    Region r{roi[0] * scale - shift, roi[1] * scale - shift, 0, 0, 0, 0, false, false};
    T roi_w = roi[2] * scale - shift - r.left, roi_h = roi[3] * scale - shift - r.top;
    if (!half) {
      r.held_w = roi_w < T(1);
      r.held_h = roi_h < T(1);
      roi_h = std::max(roi_h, T(1));
      roi_w = std::max(roi_w, T(1));
    }
    r.bin_h = roi_h / static_cast<T>(ph);
    r.bin_w = roi_w / static_cast<T>(pw);
    if (!(std::fabs(r.bin_h) < T(8192) && std::fabs(r.bin_w) < T(8192)))
      fail(Code::kInvalidArgument, label, ": region ", n, " is too large or not finite");
    r.grid_h = ratio ? ratio : std::max<int64_t>(static_cast<int64_t>(std::ceil(r.bin_h)), 0);
    r.grid_w = ratio ? ratio : std::max<int64_t>(static_cast<int64_t>(std::ceil(r.bin_w)), 0);
    return r;
  }
};

// MaxRoiPool: rows or columns of bin k out of `bins` of a region from `first` to `last`: [low, high) of `extent`.
template <class T> std::pair<int64_t, int64_t> roi_bin(int64_t first, int64_t last, int64_t k, int64_t bins, int64_t extent) {
  const T size = static_cast<T>(std::max<int64_t>(last - first + 1, 1)) / static_cast<T>(bins);
  const auto low = static_cast<int64_t>(std::floor(static_cast<T>(k) * size)) + first;
  const auto high = static_cast<int64_t>(std::ceil(static_cast<T>(k + 1) * size)) + first;
  return {std::clamp<int64_t>(low, 0, extent), std::clamp<int64_t>(high, 0, extent)};
}
// [image, x1, y1, x2, y2] in whole pixels.
template <class T> void roi_pixels(const T* roi, T scale, int64_t images, const std::string& label, int64_t n, int64_t* at) {
  for (int k = 0; k < 5; ++k) {
    const T v = k ? std::round(roi[k] * scale) : roi[0];
    if (!(std::fabs(v) < T(1e9))) fail(Code::kInvalidArgument, label, ": region ", n, " is too large or not finite");
    at[k] = static_cast<int64_t>(v);
  }
  if (at[0] < 0 || at[0] >= images) fail(Code::kInvalidArgument, label, ": batch index ", at[0], " is outside [0, ", images - 1, "]");
}

}  // namespace tiercel

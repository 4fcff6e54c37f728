// Where GridSample reads: the taps of one axis at one normalised coordinate, for it and for its gradient.
#pragma once
#include <algorithm>
#include <cmath>
#include <string>

#include "ops/context.h"

namespace tiercel {

struct Sampling {
  enum class Mode { kNearest, kLinear, kCubic } mode = Mode::kLinear;
  enum class Padding { kZeros, kBorder, kReflection } padding = Padding::kZeros;
  bool align_corners = false;
  int taps() const { return mode == Mode::kNearest ? 1 : mode == Mode::kLinear ? 2 : 4; }
};

inline Sampling sampling_of(const Node& node) {
  Sampling s;
  const std::string mode = node.attr_string("mode", "linear"), padding = node.attr_string("padding_mode", "zeros");
  if (mode == "nearest") s.mode = Sampling::Mode::kNearest;
  else if (mode == "cubic" || mode == "bicubic") s.mode = Sampling::Mode::kCubic;
  else if (mode != "linear" && mode != "bilinear") fail(Code::kInvalidGraph, node.label(), ": mode '", mode, "' is not known");
  if (padding == "border") s.padding = Sampling::Padding::kBorder;
  else if (padding == "reflection") s.padding = Sampling::Padding::kReflection;
  else if (padding != "zeros") fail(Code::kInvalidGraph, node.label(), ": padding_mode '", padding, "' is not known");
  s.align_corners = node.attr_int("align_corners", 0) != 0;
  return s;
}

template <class C> C reflect_into(C x, C low, C high) {
  const C range = high - low;
  if (!(range > 0)) return low;
  const C d = x < low ? low - x : x - high;
  if (x >= low && x <= high) return x;
  const C turns = std::floor(d / range), rest = d - turns * range;
  const bool even = std::fmod(turns, C(2)) == 0;
  return (x < low) == even ? low + rest : high - rest;
}

// One axis of one sample: tap indices (-1: outside, worth zero) and weights; `slope` (may be null): how the weights change with the coordinate.
template <class C> void axis_taps(const Sampling& s, C normalised, int64_t extent, int64_t* index, C* weight, C* slope = nullptr) {
  const C length = static_cast<C>(extent), low = s.align_corners ? C(0) : C(-0.5);
  const C high = s.align_corners ? length - 1 : length - C(0.5);
  C x = s.align_corners ? (normalised + 1) / 2 * (length - 1) : ((normalised + 1) * length - 1) / 2;
  const int taps = s.taps();
  C turn = (s.align_corners ? length - 1 : length) / 2;  // dx / d normalised
  if (slope && !(std::fabs(x) < C(1e9))) turn = 0;
  if (!(std::fabs(x) < C(1e9))) x = std::isnan(x) ? C(-1e9) : x < 0 ? C(-1e9) : C(1e9);
  if (s.mode == Sampling::Mode::kNearest) x = std::nearbyint(x);
  // With cubic taps the border is where taps end, not where coordinates do: so PyTorch and onnxruntime have it.
  if (s.padding == Sampling::Padding::kBorder && s.mode != Sampling::Mode::kCubic && (x < low || x > high)) x = std::clamp(x, C(0), length - 1);
  if (slope && s.padding == Sampling::Padding::kReflection && (x < low || x > high) && high > low) {
    const C turns = std::floor((x < low ? low - x : x - high) / (high - low));
    if (std::fmod(turns, C(2)) == 0) turn = -turn;  // mirrored an odd number of times
  }
  if (s.padding == Sampling::Padding::kReflection) x = reflect_into(x, low, high);
  const C floor = s.mode == Sampling::Mode::kNearest ? std::trunc(x) : std::floor(x), t = x - floor;
  const auto base = static_cast<int64_t>(floor);
  const C a = C(-0.75), u = 1 - t, t1 = t + 1, u1 = u + 1;
  switch (s.mode) {
    case Sampling::Mode::kNearest: weight[0] = 1; break;
    case Sampling::Mode::kLinear: weight[0] = u; weight[1] = t; break;
    case Sampling::Mode::kCubic:
      weight[0] = ((a * t1 - 5 * a) * t1 + 8 * a) * t1 - 4 * a;
      weight[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
      weight[2] = ((a + 2) * u - (a + 3)) * u * u + 1;
      weight[3] = ((a * u1 - 5 * a) * u1 + 8 * a) * u1 - 4 * a;
      break;
  }
  if (slope) {
    // At a border and beyond it nothing changes, except with cubic taps, which reach across: so PyTorch has it.
    if (s.padding != Sampling::Padding::kZeros && s.mode == Sampling::Mode::kLinear && (x <= 0 || x >= length - 1)) turn = 0;
    switch (s.mode) {
      case Sampling::Mode::kNearest: slope[0] = 0; break;
      case Sampling::Mode::kLinear: slope[0] = -turn; slope[1] = turn; break;
      case Sampling::Mode::kCubic:
        slope[0] = turn * ((3 * a * t1 - 10 * a) * t1 + 8 * a);
        slope[1] = turn * (3 * (a + 2) * t - 2 * (a + 3)) * t;
        slope[2] = -turn * (3 * (a + 2) * u - 2 * (a + 3)) * u;
        slope[3] = -turn * ((3 * a * u1 - 10 * a) * u1 + 8 * a);
        break;
    }
  }
  for (int k = 0; k < taps; ++k) {
    int64_t i = base + k - (taps == 4 ? 1 : 0);
    if (i < 0 || i >= extent) {
      if (s.padding == Sampling::Padding::kZeros) i = -1;
      else if (s.padding == Sampling::Padding::kBorder) i = std::clamp<int64_t>(i, 0, extent - 1);
      else i = std::clamp<int64_t>(static_cast<int64_t>(reflect_into(static_cast<double>(i), static_cast<double>(low), static_cast<double>(high))), 0, extent - 1);
    }
    index[k] = i;
  }
}

}  // namespace tiercel

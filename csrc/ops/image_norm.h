// What the norms of images share: a [N,C,spatial...] tensor, plain or in NCHW16c, and an affine map for each of its channels.
#pragma once
#include "kernels/norm/norm.h"
#include "ops/numeric.h"

namespace tiercel {

// Moments of two disjoint sets out of the moments of each (Chan et al.); adds the second to the first.
struct Moments {
  double count = 0, mean = 0, m2 = 0;
  void add(double n, double m, double s) {
    if (n == 0) return;
    const double total = count + n, delta = m - mean;
    mean += delta * (n / total);
    m2 += s + delta * delta * (count * n / total);
    count = total;
  }
  void add(const Moments& o) { add(o.count, o.mean, o.m2); }
  double variance() const { return m2 / count; }
};

struct ChannelView {
  int64_t batch, channels, space;  // space: product of the spatial extents
  bool blocked;
  ChannelView(const Shape& s, Layout layout)
      : batch(s.rank() ? s[0] : 1), channels(s.rank() > 1 ? s[1] : 1), space(s.rank() > 2 ? s.count(2, s.rank()) : 1),
        blocked(layout == Layout::kBlocked) {}
  int64_t blocks() const { return ceil_div(channels, kChannelBlock); }
};

// The coefficients of y = act((x - center) scale + shift).
struct ChannelMap {
  float center, scale, shift;
};

inline constexpr int64_t kSpacePiece = 16384;  // elements of a plane that a task maps

// y = act((x - c) a + b), with (c, a, b) = map(n, channel). Padding channels stay zero. Collective; no barrier at its end.
template <class Map> void map_channels(const ChannelView& v, const float* x, float* y, const Activation& act, Worker& w, Map map) {
  if (v.blocked) {
    constexpr int64_t kRows = kSpacePiece / kChannelBlock;
    const int64_t pieces = ceil_div(v.space, kRows), blocks = v.blocks();
    w.parallel_for(v.batch * blocks * pieces, grain_for(std::min(v.space, kRows) * kChannelBlock), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t row = t % pieces * kRows, block = t / pieces, c0 = block % blocks * kChannelBlock;
        float c[kChannelBlock] = {}, a[kChannelBlock] = {}, b[kChannelBlock] = {};
        const int64_t used = std::min<int64_t>(kChannelBlock, v.channels - c0), m = std::min(kRows, v.space - row);
        for (int64_t i = 0; i < used; ++i) {
          const ChannelMap k = map(block / blocks, c0 + i);
          c[i] = k.center;
          a[i] = k.scale;
          b[i] = k.shift;
        }
        const int64_t at = (block * v.space + row) * kChannelBlock;
        norm().affine_rows(x + at, m, kChannelBlock, kChannelBlock, c, a, b, act, y + at);
        if (used < kChannelBlock && activate(0, act) != 0)
          for (int64_t r = 0; r < m; ++r) std::fill(y + at + r * kChannelBlock + used, y + at + (r + 1) * kChannelBlock, 0.0f);
      }
    });
  } else if (v.space < 8) {  // channels side by side
    constexpr int64_t kTogether = 256;
    const int64_t row = v.channels * v.space, pieces = ceil_div(row, kTogether);
    w.parallel_for(v.batch * pieces, grain_for(std::min(row, kTogether)), [&](int64_t begin, int64_t end) {
      float c[kTogether], a[kTogether], b[kTogether];
      for (int64_t t = begin; t < end; ++t) {
        const int64_t n = t / pieces, first = t % pieces * kTogether, m = std::min(kTogether, row - first);
        for (int64_t i = 0; i < m; ++i) {
          const ChannelMap k = map(n, (first + i) / v.space);
          c[i] = k.center;
          a[i] = k.scale;
          b[i] = k.shift;
        }
        norm().affine_rows(x + n * row + first, 1, 0, m, c, a, b, act, y + n * row + first);
      }
    });
  } else {
    const int64_t pieces = ceil_div(v.space, kSpacePiece);
    w.parallel_for(v.batch * v.channels * pieces, grain_for(std::min(v.space, kSpacePiece)), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t plane = t / pieces, first = t % pieces * kSpacePiece, at = plane * v.space + first;
        const ChannelMap k = map(plane / v.channels, plane % v.channels);
        norm().affine(x + at, std::min(kSpacePiece, v.space - first), k.center, k.scale, k.shift, act, y + at);
      }
    });
  }
}

// Moments of each channel of each image: to[n * channels + c]. Collective; no barrier at its end. space > 0.
void channel_moments(const ChannelView& v, const float* x, Moments* to, Worker& w);

// A per-channel operand that may be float or double.
inline double value_at(const void* p, bool single, int64_t i) {
  return single ? static_cast<const float*>(p)[i] : static_cast<const double*>(p)[i];
}

}  // namespace tiercel

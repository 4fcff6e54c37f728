#include "kernels/winograd/winograd.h"

#include <cmath>

#include "simd/activation.h"

namespace tiercel::TIERCEL_ISA {
namespace {

constexpr int kBlock = kWinogradBlock;
constexpr double kRoot2 = 1.41421356237309504880;
constexpr float kA = 0.70710678f, kB = 1.41421356f;  // the points +-a, +-b: ab = 1, a^2 = 1/2, b^2 = 2

alignas(64) const float kZeros[kBlock] = {};
alignas(64) const float kLaneNumbers[kBlock] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

// B^T d along one axis.
template <int m> inline __attribute__((always_inline)) void input_axis(const F (&d)[m + 2], F (&v)[m + 2]) {
  if constexpr (m == 4) {
    const F half = set1(0.5f), two = set1(2.0f), sum = set1(2.5f);
    const F even_a = fnma(two, d[2], d[4]), odd_a = fnma(two, d[1], d[3]);
    const F even_b = fnma(half, d[2], d[4]), odd_b = fnma(half, d[1], d[3]);
    v[0] = fnma(sum, d[2], d[0] + d[4]);
    v[1] = fma(set1(kA), odd_a, even_a);
    v[2] = fnma(set1(kA), odd_a, even_a);
    v[3] = fma(set1(kB), odd_b, even_b);
    v[4] = fnma(set1(kB), odd_b, even_b);
    v[5] = fnma(sum, d[3], d[1] + d[5]);
  } else {
    v[0] = d[0] - d[2];
    v[1] = d[1] + d[2];
    v[2] = d[2] - d[1];
    v[3] = d[3] - d[1];
  }
}

// A^T s along one axis.
template <int m> inline __attribute__((always_inline)) void output_axis(const F (&s)[m + 2], F (&y)[m]) {
  if constexpr (m == 4) {
    const F even_a = s[1] + s[2], odd_a = s[1] - s[2], even_b = s[3] + s[4], odd_b = s[3] - s[4];
    y[0] = s[0] + even_a + even_b;
    y[1] = fma(set1(kA), odd_a, set1(kB) * odd_b);
    y[2] = fma(set1(0.5f), even_a, set1(2.0f) * even_b);
    y[3] = fma(set1(0.5f * kA), odd_a, fma(set1(2.0f * kB), odd_b, s[5]));
  } else {
    y[0] = s[0] + s[1] + s[2];
    y[1] = s[1] - s[2] + s[3];
  }
}

// G g along one axis, over the lanes of a block, in double: it is done once.
template <int m> inline void weight_axis(const double* g0, const double* g1, const double* g2, double (&r)[m + 2][kBlock]) {
  for (int l = 0; l < kBlock; ++l) {
    r[0][l] = g0[l];
    if constexpr (m == 4) {
      const double even_a = g0[l] + 0.5 * g2[l], odd_a = g1[l] * (kRoot2 / 2), even_b = g0[l] + 2 * g2[l], odd_b = g1[l] * kRoot2;
      r[1][l] = (even_a + odd_a) / -1.5;
      r[2][l] = (even_a - odd_a) / -1.5;
      r[3][l] = (even_b + odd_b) / 6;
      r[4][l] = (even_b - odd_b) / 6;
      r[5][l] = g2[l];
    } else {
      r[1][l] = (g0[l] + g2[l] + g1[l]) / 2;
      r[2][l] = (g0[l] + g2[l] - g1[l]) / 2;
      r[3][l] = g2[l];
    }
  }
}

template <int m> void weights_of(const float* w, int64_t outputs, int64_t channels, float* u, int64_t u_step, int64_t u_row) {
  constexpr int n = m + 2;
  for (int64_t o = 0; o < outputs; o += kBlock) {
    const int64_t lanes = outputs - o < kBlock ? outputs - o : kBlock;
    for (int64_t c = 0; c < channels; ++c) {
      double g[9][kBlock] = {};
      for (int64_t l = 0; l < lanes; ++l)
        for (int k = 0; k < 9; ++k) g[k][l] = w[((o + l) * channels + c) * 9 + k];
      double columns[3][n][kBlock];  // G g, a column at a time
      for (int j = 0; j < 3; ++j) weight_axis<m>(g[j], g[3 + j], g[6 + j], columns[j]);
      float* const to = u + c * u_row + o;
      for (int i = 0; i < n; ++i) {
        double row[n][kBlock];
        weight_axis<m>(columns[0][i], columns[1][i], columns[2][i], row);
        for (int j = 0; j < n; ++j)
          for (int64_t l = 0; l < lanes; ++l) to[(i * n + j) * u_step + l] = static_cast<float>(row[j][l]);
      }
    }
  }
}

void weights(int tile, const float* w, int64_t outputs, int64_t channels, float* u, int64_t u_step, int64_t u_row) {
  (tile == 4 ? weights_of<4> : weights_of<2>)(w, outputs, channels, u, u_step, u_row);
}

// One tile, kLanes of its channels. Rows and columns [begin, end) of it lie inside the image, at x + row * x_row + column * kBlock.
struct Window { int64_t begin[2], end[2]; };

template <int m, bool kBorder>
inline void input_tile(const float* x, int64_t x_row, const Window& w, float* v, int64_t v_step) {
  constexpr int n = m + 2;
  F t[n][n];  // B^T d, by columns
#pragma GCC unroll 6
  for (int j = 0; j < n; ++j) {
    F d[n];
#pragma GCC unroll 6
    for (int i = 0; i < n; ++i) {
      if constexpr (kBorder)
        d[i] = i >= w.begin[0] && i < w.end[0] && j >= w.begin[1] && j < w.end[1] ? load(x + i * x_row + j * kBlock) : zero();
      else
        d[i] = load(x + i * x_row + j * kBlock);
    }
    input_axis<m>(d, t[j]);
  }
#pragma GCC unroll 6
  for (int i = 0; i < n; ++i) {
    F d[n], r[n];
#pragma GCC unroll 6
    for (int j = 0; j < n; ++j) d[j] = t[j][i];
    input_axis<m>(d, r);
#pragma GCC unroll 6
    for (int j = 0; j < n; ++j) store(v + (i * n + j) * v_step, r[j]);
  }
}

template <int m> void input_of(const WinogradShape& s, const float* x, int64_t first, int64_t last, float* v, int64_t v_step, int64_t v_row) {
  constexpr int n = m + 2;
  const int64_t x_row = s.in[1] * kBlock;
  int64_t at[2] = {first / s.tiles[1], first % s.tiles[1]};
  for (int64_t t = first; t < last; ++t, v += v_row) {
    Window w;
    int64_t origin[2];
    bool border = false;
    for (int a = 0; a < 2; ++a) {
      origin[a] = at[a] * m - s.pad[a];
      w.begin[a] = origin[a] < 0 ? -origin[a] : 0;
      w.end[a] = s.in[a] - origin[a] < n ? s.in[a] - origin[a] : n;
      border |= w.begin[a] > 0 || w.end[a] < n;
    }
    const float* const from = x + origin[0] * x_row + origin[1] * kBlock;
    for (int lane = 0; lane < kBlock; lane += kLanes) {
      if (border) input_tile<m, true>(from + lane, x_row, w, v + lane, v_step);
      else input_tile<m, false>(from + lane, x_row, w, v + lane, v_step);
    }
    if (++at[1] == s.tiles[1]) { at[1] = 0; ++at[0]; }
  }
}

void input(const WinogradShape& s, const float* x, int64_t first, int64_t last, float* v, int64_t v_step, int64_t v_row) {
  (s.tile == 4 ? input_of<4> : input_of<2>)(s, x, first, last, v, v_step, v_row);
}

// The sums of one tile, kLanes of its channels, into `y` [m][m][kBlock]; false when one may be beyond kWinogradMost or NaN. Every frequency is
// part of one of the four corners at least.
template <int m> inline bool output_tile(const float* s, int64_t step, float* y) {
  constexpr int n = m + 2;
  F t[n][m];  // A^T M, by columns
#pragma GCC unroll 6
  for (int j = 0; j < n; ++j) {
    F d[n];
#pragma GCC unroll 6
    for (int i = 0; i < n; ++i) d[i] = load(s + (i * n + j) * step);
    output_axis<m>(d, t[j]);
  }
  const F most = set1(kWinogradMost);
  bool within = true;
#pragma GCC unroll 4
  for (int i = 0; i < m; ++i) {
    F d[n], r[m];
#pragma GCC unroll 6
    for (int j = 0; j < n; ++j) d[j] = t[j][i];
    output_axis<m>(d, r);
    if (i == 0 || i == m - 1) within &= all(lt(abs(r[0]), most) & lt(abs(r[m - 1]), most));
#pragma GCC unroll 4
    for (int j = 0; j < m; ++j) store(y + (i * m + j) * kBlock, r[j]);
  }
  return within;
}

// Of sums [m][m][kBlock] some of which are large: is one not finite, or drowned?
template <int m> bool drowned(const float* sums) {
  bool bad = false;
  for (int lane = 0; lane < kBlock; lane += kLanes) {
    F least = abs(load(sums + lane)), most = least;
    for (int i = 0; i < m * m; ++i) {
      const F a = abs(load(sums + i * kBlock + lane));
      bad |= !all(lt(a, set1(INFINITY)));  // NaN is not less
      least = min(least, a);
      most = max(most, a);
    }
    bad |= !all(lt(most, set1(kWinogradMost)) | lt(most, least * set1(kWinogradContrast)));
  }
  return bad;
}

template <int m> int64_t output_of(const WinogradShape& s, const WinogradOutput& o, int64_t first, int64_t last, int64_t* odd) {
  const int64_t y_row = s.out[1] * kBlock;
  const F low = set1(o.low), high = set1(o.high);
  int64_t at[2] = {first / s.tiles[1], first % s.tiles[1]}, count = 0;
  alignas(64) float sums[m * m * kBlock];
  for (int64_t t = first; t < last; ++t) {
    const int64_t i0 = at[0] * m, j0 = at[1] * m;
    if (++at[1] == s.tiles[1]) { at[1] = 0; ++at[0]; }
    const float* const from = o.m + (t - first) * o.m_row;
    bool within = true;
    for (int lane = 0; lane < kBlock; lane += kLanes) within &= output_tile<m>(from + lane, o.m_step, sums + lane);
    if (!within && drowned<m>(sums)) {
      odd[count++] = t;
      continue;
    }
    const int64_t rows = s.out[0] - i0 < m ? s.out[0] - i0 : m, columns = s.out[1] - j0 < m ? s.out[1] - j0 : m;
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t at_y = (i0 + i) * y_row + j0 * kBlock;
      float* const sum = sums + i * m * kBlock;
      for (int lane = 0; lane < kBlock; lane += kLanes) {
        const F bias = load(o.bias + lane);
        const M exists = lt(load(kLaneNumbers + lane), set1(static_cast<float>(o.tail)));
        for (int64_t j = 0; j < columns; ++j) {
          F y = load(sum + j * kBlock + lane) + bias;
          if (o.residual) y = y + load(o.residual + at_y + j * kBlock + lane);
          y = min(high, max(low, y));
          if (o.activation) store(sum + j * kBlock + lane, y);
          else store(o.y + at_y + j * kBlock + lane, o.tail < kBlock ? select(exists, y, zero()) : y);
        }
      }
      if (!o.activation) continue;
      activate(*o.activation, sum, o.y + at_y, columns * kBlock);
      if (o.tail < kBlock)
        for (int64_t j = 0; j < columns; ++j)
          for (int c = o.tail; c < kBlock; ++c) o.y[at_y + j * kBlock + c] = 0;
    }
  }
  return count;
}

int64_t output(const WinogradShape& s, const WinogradOutput& o, int64_t first, int64_t last, int64_t* odd) {
  return (s.tile == 4 ? output_of<4> : output_of<2>)(s, o, first, last, odd);
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(WinogradKernels, winograd){&weights, &input, &output};

}  // namespace tiercel::TIERCEL_ISA

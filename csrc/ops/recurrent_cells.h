// What the gradients of RNN, GRU and LSTM share: gates of a chunk of units, and where rows of steps lie.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "kernels/pointwise/activation_grad.h"
#include "kernels/pointwise/unary.h"

namespace tiercel::recurrent_op {

inline constexpr int64_t kChunk = 128;  // units whose cells are computed at a time, on the stack

// ---- arrays of either type

inline void activate(const Activation& a, float* x, int64_t n) { unary().activate(a, x, x, n); }
inline void activate(const Activation& a, double* x, int64_t n) { for (int64_t i = 0; i < n; ++i) x[i] = reference::activate(x[i], a); }
inline void slope(const Activation& a, const float* dy, const float* v, float* dx, int64_t n) { activation_grad().run(a, dy, v, dx, n); }
inline void slope(const Activation& a, const double* dy, const double* v, double* dx, int64_t n) {
  for (int64_t i = 0; i < n; ++i) dx[i] = reference::activation_grad(dy[i], v[i], a);
}

// A gate of n units: v comes as the sum before clip and activation, and goes as the result.
template <class T> struct Gate {
  T v[kChunk], sum[kChunk];
  // `done`: v is the result already.
  void run(const Activation& f, float clip, int64_t n, bool done) {
    if (done) return;
    std::copy_n(v, n, sum);
    if (clip > 0) for (int64_t i = 0; i < n; ++i) v[i] = std::clamp(v[i], static_cast<T>(-clip), static_cast<T>(clip));
    if (!activation_grad_reads_result(f)) std::copy_n(v, n, argument);
    activate(f, v, n);
  }
  // d *= the derivative
  void back(const Activation& f, float clip, int64_t n, T* d) const {
    slope(f, d, activation_grad_reads_result(f) ? v : argument, d, n);
    if (clip > 0) for (int64_t i = 0; i < n; ++i) d[i] = std::fabs(sum[i]) <= static_cast<T>(clip) ? d[i] : T(0);
  }
  T argument[kChunk];
};

// Extents of [directions, rows.., hidden].
struct Extents {
  int64_t steps, batch, hidden, directions;
  bool batch_first, reverse;
  int64_t rows() const { return steps * batch; }
  int64_t row(int64_t t, int64_t b) const { return batch_first ? b * steps + t : t * batch + b; }
  int64_t y_row(int64_t t, int64_t b, int64_t d) const { return batch_first ? (b * steps + t) * directions + d : (t * directions + d) * batch + b; }
  int64_t state_row(int64_t b, int64_t d) const { return batch_first ? b * directions + d : d * batch + b; }
  bool backwards(int64_t d) const { return reverse || d == 1; }
  int64_t length(const int32_t* lengths, int64_t b) const { return lengths ? std::clamp<int64_t>(lengths[b], 0, steps) : steps; }
  // The time at which row b makes its step s; -1: it is past its end.
  int64_t time(const int32_t* lengths, int64_t s, int64_t b, int64_t d) const {
    const int64_t n = length(lengths, b);
    return s >= n ? -1 : backwards(d) ? n - 1 - s : s;
  }
};

}  // namespace tiercel::recurrent_op

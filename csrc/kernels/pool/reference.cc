#include "kernels/pool/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "base/float_formats.h"
#include "base/shape.h"

namespace tiercel::reference {
namespace {

template <class T> double get(T v) {
  if constexpr (std::is_arithmetic_v<T>) return static_cast<double>(v);
  else return to_float(v);
}
template <class T> T put(double v) {
  if constexpr (std::is_same_v<T, Half>) return to_half(static_cast<float>(v));
  else if constexpr (std::is_same_v<T, BFloat16>) return to_bfloat16(static_cast<float>(v));
  else return static_cast<T>(v);
}
template <class T> double lowest() {
  if constexpr (std::is_integral_v<T>) return static_cast<double>(std::numeric_limits<T>::lowest());
  else return -INFINITY;
}

}  // namespace

template <class T>
void pool(const PoolExtents& e, const PoolOptions& options, const T* x, T* y, int64_t* indices, int64_t begin, int64_t end) {
  int64_t in_plane = 1, out_plane = 1;
  for (int a = 0; a < e.rank; ++a) { in_plane *= e.in[a]; out_plane *= e.out[a]; }
  for (int64_t plane = begin; plane < end && out_plane; ++plane) {
    const T* const from = x + plane * in_plane;
    int64_t o[kMaxRank] = {};
    for (int64_t i = 0; i < out_plane; ++i) {
      double acc = options.pool == Pool::kMax ? lowest<T>() : 0;
      int64_t count = 1, where = 0;
      bool found = false, more = true;
      // Taps [first, last) of each axis lie inside: a window may be far larger than the image.
      int64_t k[kMaxRank] = {}, first[kMaxRank] = {}, last[kMaxRank] = {};
      for (int a = 0; a < e.rank; ++a) {
        const int64_t from_a = o[a] * e.stride[a] - e.begin[a], d = e.dilation[a];
        const auto below = [&](int64_t limit) { return limit <= from_a ? 0 : std::min((limit - from_a + d - 1) / d, e.kernel[a]); };
        k[a] = first[a] = from_a >= 0 ? 0 : (-from_a + d - 1) / d;
        last[a] = below(e.in[a]);
        more = more && first[a] < last[a];
        count *= options.count_padding ? below(e.in[a] + e.end[a]) : std::max<int64_t>(last[a] - first[a], 0);
      }
      while (more) {
        int64_t at = 0, column = 0, step = 1;
        for (int a = 0; a < e.rank; ++a) {
          const int64_t c = o[a] * e.stride[a] + k[a] * e.dilation[a] - e.begin[a];
          at = at * e.in[a] + c;
          column += c * step;
          step *= e.in[a];
        }
        const double v = get(from[at]);
        if (options.pool == Pool::kMean) acc += v;
        else if (options.pool == Pool::kLp) acc += std::pow(std::fabs(v), options.p);
        else if (!found || v > acc || (std::isnan(v) && !std::isnan(acc))) {
          acc = v;
          where = options.column_major ? column : at;
          found = true;
        }
        int a = e.rank - 1;
        for (; a >= 0; --a) {
          if (++k[a] < last[a]) break;
          k[a] = first[a];
        }
        more = a >= 0;
      }
      if (options.pool == Pool::kMean) acc /= static_cast<double>(count);
      if (options.pool == Pool::kLp) acc = std::pow(acc, 1 / options.p);
      y[plane * out_plane + i] = put<T>(acc);
      if (indices) indices[plane * out_plane + i] = plane * in_plane + where;
      for (int a = e.rank - 1; a >= 0; --a) {
        if (++o[a] < e.out[a]) break;
        o[a] = 0;
      }
    }
  }
}

#define TIERCEL_INSTANTIATE(T) \
  template void pool(const PoolExtents&, const PoolOptions&, const T*, T*, int64_t*, int64_t, int64_t);
TIERCEL_INSTANTIATE(float)
TIERCEL_INSTANTIATE(double)
TIERCEL_INSTANTIATE(Half)
TIERCEL_INSTANTIATE(BFloat16)
TIERCEL_INSTANTIATE(int8_t)
TIERCEL_INSTANTIATE(uint8_t)
#undef TIERCEL_INSTANTIATE

}  // namespace tiercel::reference

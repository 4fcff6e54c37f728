#include "kernels/conv/reference.h"

#include <type_traits>

#include "base/float_formats.h"
#include "base/shape.h"

namespace tiercel::reference {
namespace {

template <class T> double get(T v) {
  if constexpr (std::is_floating_point_v<T>) return v;
  else return to_float(v);
}
template <class T> T put(double v) {
  if constexpr (std::is_floating_point_v<T>) return static_cast<T>(v);
  else if constexpr (std::is_same_v<T, Half>) return to_half(static_cast<float>(v));
  else return to_bfloat16(static_cast<float>(v));
}

int64_t product(const int64_t* d, int rank) {
  int64_t n = 1;
  for (int i = 0; i < rank; ++i) n *= d[i];
  return n;
}
bool next(int64_t* i, const int64_t* extent, int rank) {  // row-major counter
  for (int a = rank - 1; a >= 0; --a) {
    if (++i[a] < extent[a]) return true;
    i[a] = 0;
  }
  return false;
}

// source(o, k, axis): input coordinate that output o and tap k of an axis meet at, or -1.
template <class T, class Source, class Weight>
void gather(const ConvExtents& e, const T* x, const T* bias, T* y, int64_t begin, int64_t end, Source source, Weight weight) {
  const int64_t in_plane = product(e.in, e.rank), out_plane = product(e.out, e.rank), taps = product(e.kernel, e.rank);
  const int64_t in_group = e.channels / e.groups, out_group = e.outputs / e.groups;
  for (int64_t plane = begin; plane < end && out_plane; ++plane) {
    const int64_t n = plane / e.outputs, oc = plane % e.outputs, g = oc / out_group;
    int64_t o[kMaxRank] = {};
    T* out = y + plane * out_plane;
    do {
      double sum = bias ? get(bias[oc]) : 0;
      int64_t k[kMaxRank] = {}, tap = 0;
      if (taps) do {
        int64_t at = 0;
        for (int a = 0; a < e.rank && at >= 0; ++a) {
          const int64_t i = source(o[a], k[a], a);
          at = i < 0 ? -1 : at * e.in[a] + i;
        }
        if (at >= 0)
          for (int64_t c = 0; c < in_group; ++c)
            sum += get(x[(n * e.channels + g * in_group + c) * in_plane + at]) * get(weight(g, oc, c, tap));
        ++tap;
      } while (next(k, e.kernel, e.rank));
      *out++ = put<T>(sum);
    } while (next(o, e.out, e.rank));
  }
}

}  // namespace

template <class T>
void conv(const ConvExtents& e, const T* x, const T* w, const T* bias, T* y, int64_t begin, int64_t end) {
  const int64_t taps = product(e.kernel, e.rank), in_group = e.channels / e.groups;
  gather(e, x, bias, y, begin, end,
         [&](int64_t o, int64_t k, int a) {
           const int64_t i = o * e.stride[a] + k * e.dilation[a] - e.pad[a];
           return i >= 0 && i < e.in[a] ? i : -1;
         },
         [&](int64_t, int64_t oc, int64_t c, int64_t tap) { return w[(oc * in_group + c) * taps + tap]; });
}

template <class T>
void conv_transpose(const ConvExtents& e, const T* x, const T* w, const T* bias, T* y, int64_t begin, int64_t end) {
  const int64_t taps = product(e.kernel, e.rank), in_group = e.channels / e.groups, out_group = e.outputs / e.groups;
  gather(e, x, bias, y, begin, end,
         [&](int64_t o, int64_t k, int a) -> int64_t {
           const int64_t i = o + e.pad[a] - k * e.dilation[a];
           return i >= 0 && i % e.stride[a] == 0 && i / e.stride[a] < e.in[a] ? i / e.stride[a] : -1;
         },
         [&](int64_t g, int64_t oc, int64_t c, int64_t tap) {
           return w[((g * in_group + c) * out_group + oc % out_group) * taps + tap];
         });
}

#define TIERCEL_INSTANTIATE(T)                                                                              \
  template void conv(const ConvExtents&, const T*, const T*, const T*, T*, int64_t, int64_t);               \
  template void conv_transpose(const ConvExtents&, const T*, const T*, const T*, T*, int64_t, int64_t);
TIERCEL_INSTANTIATE(float)
TIERCEL_INSTANTIATE(double)
TIERCEL_INSTANTIATE(Half)
TIERCEL_INSTANTIATE(BFloat16)
#undef TIERCEL_INSTANTIATE

}  // namespace tiercel::reference

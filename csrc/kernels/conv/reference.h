// Convolution and transposed convolution as plain loops: any rank, any type, sums in double. The fast kernels are tested against
// these, and types other than f32 run on them.
#pragma once
#include <cstdint>

namespace tiercel::reference {

// X [batch, channels, in...], Y [batch, outputs, out...]; spatial arrays have `rank` entries.
struct ConvExtents {
  int64_t batch, channels, outputs, groups;
  int rank;
  const int64_t *in, *out, *kernel, *stride, *dilation, *pad;  // pad: at the begin of each axis
};

// Output planes [begin, end) of batch * outputs. T: float, double, Half, BFloat16; bias may be null.
// W [outputs, channels / groups, kernel...]
template <class T>
void conv(const ConvExtents& e, const T* x, const T* w, const T* bias, T* y, int64_t begin, int64_t end);
// W [channels, outputs / groups, kernel...]; y[i stride + k dilation - pad] += x[i] w[k]
template <class T>
void conv_transpose(const ConvExtents& e, const T* x, const T* w, const T* bias, T* y, int64_t begin, int64_t end);

}  // namespace tiercel::reference

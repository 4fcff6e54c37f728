// Direct convolution on register tiles: several output pixels by one to four blocks of 16 output channels.
//
//   y[p][o] = act(bias[o] + residual[p][o] + sum over taps t, input channels c of x[stride p + origin + tap t][c] w[t][c][o])
//
// One code serves 1-D, 2-D and 3-D, strided, dilated, padded and grouped convolutions, 1x1 as a GEMM over pixels, few-channel
// stems that read plain NCHW, and the sub-pixel phases of a transposed convolution: they differ in ConvShape alone. Taps that fall
// outside the image read zeros, so borders cost no copy and no branch in the inner loop.
#pragma once
#include <cstdint>

#include "kernels/activation.h"
#include "kernels/dispatch.h"

namespace tiercel {

inline constexpr int kConvBlock = 16;    // channels of a block, as kChannelBlock
inline constexpr int kConvMaxBlocks = 4; // output blocks of a panel at most

// What all tasks of a convolution share. Spatial axes are depth, height, width (1 where there are fewer).
struct ConvShape {
  int64_t in[3], out[3];     // extents of the image, of the grid of output pixels
  int64_t stride[3];         // input step of one grid step
  int64_t origin[3];         // input coordinate of displacement 0 for output pixel 0 (minus the padding)
  int64_t kernel[3] = {}, dilation[3] = {};  // tap displacements are all multiples of dilation below kernel, in row-major order; 0: they are others
  int taps;
  int fetch = 0;             // after so many taps, a plane of the kernel, pixels are new to the cache: the next tile's are fetched ahead
  const int32_t* tap;        // displacement of tap t: tap[3 t .. 3 t + 2]
  const int64_t* tap_offset; // the same in floats of x
  bool plain;                // x is NCHW: its blocks are single channels
  int64_t x_pixel, x_block;  // floats between neighbouring pixels of x, and between its blocks
  int64_t y_step[3];         // floats between neighbours of the output grid along each axis
  int64_t y_block;           // and between blocks of output channels
};

struct ConvTask {
  const float* x;         // of one image, at the first input block that the panel reads
  const float* w;         // the panel, packed: see conv_pack.h
  const float* bias;      // 16 floats a block, never null
  const float* residual;  // added before the activation (to the sum, for fewer roundings); lies as y does; may be y; null: none
  float* y;               // of one image, at the panel's first block
  int panel;              // output blocks of the panel
  int blocks;             // input blocks it reads
  int last;               // channels read of the last of them: a multiple of 4 (1 when plain)
  float low, high;        // results are clamped to these
  int tail;               // channels of the panel's last block that exist; the others are stored as zeros
  int pass;               // input blocks of a pass: sums rest in y between passes, and between chains; 0: all
  const float* next = nullptr;  // weights of the task that this thread will probably run next, brought into L2 meanwhile
  int64_t next_size = 0;        // floats of them worth bringing
  bool finite = true;           // are all weights? A tap in the padding of all pixels of a tile is left out then: zeros times infinities are NaN
};

struct ConvKernels {
  int lanes;                       // floats of a register
  int max_panel;                   // widest panel, in blocks
  int rows[kConvMaxBlocks + 1];    // most pixels of a tile, for each panel width
  // Output pixels [begin, end) of the grid, counted in row-major order.
  void (*run)(const ConvShape& shape, const ConvTask& task, int64_t begin, int64_t end);
  // Is a channel of one of n pixels of a block NaN? They lie `step` floats apart.
  bool (*has_nan)(const float* y, int64_t step, int64_t n);
  // y[i] = act(y[i]) over n pixels of a block, for activations that are no clamp; channels from `tail` on become zeros.
  void (*activate)(const Activation& activation, float* y, int64_t n, int tail);
};
TIERCEL_KERNEL_TABLE(ConvKernels, conv)

}  // namespace tiercel

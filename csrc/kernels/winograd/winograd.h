// Winograd convolution: 3x3 kernels at stride 1 over NCHW16c, in tiles of m x m output pixels, m = 4 or 2.
//
//   Y = A^T [ sum over channels c of (G g_c G^T) o (B^T d_c B) ] A        o: elementwise
//   (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015)
//
// The sums are (m + 2)^2 matrix products, one for each frequency f: M_f [tiles, outputs] = V_f [tiles, channels] U_f [channels, outputs].
// Points: 0, +-1/sqrt2, +-sqrt2, infinity for m = 4, whose rounding errors are about half of those of 0, +-1, +-2, infinity;
// 0, +-1, infinity for m = 2.
#pragma once
#include <cstdint>

#include "kernels/activation.h"
#include "kernels/dispatch.h"

namespace tiercel {

inline constexpr int kWinogradBlock = 16;  // channels of a block, as kChannelBlock
// Rounding errors are those of a tile's largest sum. Beyond this one, where a huge value that stands for an infinity may be at work, sums of a
// channel that are this many times smaller than its largest are taken for drowned by it. (Where all values are huge, few are.)
inline constexpr float kWinogradMost = 1e8f, kWinogradContrast = 16384;

// Height and width. Tiles are counted in row-major order within an image; those at the end may reach past the output.
struct WinogradShape {
  int tile = 4;  // m
  int64_t in[2], out[2];
  int64_t pad[2];    // at the begin of each axis
  int64_t tiles[2];  // ceil(out / m)

  int frequencies() const { return (tile + 2) * (tile + 2); }
  int64_t tiles_of_image() const { return tiles[0] * tiles[1]; }
};

struct WinogradOutput {
  const float* m;          // [frequency][tile][16], of the block
  int64_t m_step, m_row;   // floats from a frequency to the next, from a tile to the next
  const float* bias;       // 16 floats
  const float* residual;   // as y, added before the activation; may be y; null: none
  float* y;                // the block of one image
  float low, high;         // results are clamped to these
  const Activation* activation;  // one that is no clamp, or null
  int tail;                // channels of the block that exist; the others are stored as zeros
};

struct WinogradKernels {
  // u[f * u_step + c * u_row + o] = (G g G^T)_f for outputs [0, outputs), channels [0, channels); kernel (o, c) is w[(o channels + c) 9 ..].
  void (*weights)(int tile, const float* w, int64_t outputs, int64_t channels, float* u, int64_t u_step, int64_t u_row);
  // v[f * v_step + (t - first) * v_row + lane] = (B^T d B)_f of tiles [first, last) of one block of 16 channels at x.
  void (*input)(const WinogradShape& shape, const float* x, int64_t first, int64_t last, float* v, int64_t v_step, int64_t v_row);
  // Tiles [first, last) of one block of outputs; o.m is that of tile `first`. Tiles with sums that are not finite, or drowned by one
  // beyond kWinogradMost, are left alone and listed in `odd` (room for last - first). Returns how many.
  int64_t (*output)(const WinogradShape& shape, const WinogradOutput& o, int64_t first, int64_t last, int64_t* odd);
};
TIERCEL_KERNEL_TABLE(WinogradKernels, winograd)

// The kernels g out of u (for one channel: u[f * u_step + lane]), up to rounding: g[tap * 16 + lane].
void winograd_kernels_of(int tile, const float* u, int64_t u_step, float* g);

}  // namespace tiercel

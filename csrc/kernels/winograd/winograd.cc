#include "kernels/winograd/winograd.h"

namespace tiercel {
TIERCEL_KERNEL_DISPATCH(WinogradKernels, winograd)

// Frequencies 0 and the last of an axis hold g0 and g2; the pair of a point p gives (r(p) - r(-p)) N / 2p = g1.
void winograd_kernels_of(int tile, const float* u, int64_t u_step, float* g) {
  const int n = tile + 2, last = n - 1;
  const double middle = tile == 4 ? -1.5 / 1.4142135623730951 : 1.0;
  const auto at = [&](int i, int j, int lane) { return static_cast<double>(u[(i * n + j) * u_step + lane]); };
  const auto axis = [&](int tap, auto value) { return tap == 0 ? value(0) : tap == 2 ? value(last) : (value(1) - value(2)) * middle; };
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 3; ++j)
      for (int lane = 0; lane < kWinogradBlock; ++lane)
        g[(i * 3 + j) * kWinogradBlock + lane] =
            static_cast<float>(axis(i, [&](int a) { return axis(j, [&](int b) { return at(a, b, lane); }); }));
}

}  // namespace tiercel

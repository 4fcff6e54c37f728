// Winograd's transforms on every ISA: with plain products between them they must be the convolution of the plain loops.
#include <cmath>

#include "harness.h"
#include "kernels/conv/reference.h"
#include "kernels/winograd/winograd.h"

namespace tiercel {
namespace {

using testing::random_floats;

struct Problem { int tile; int64_t channels, outputs, in[2], pad[2], pad_end; };

void check(const Problem& p, double bound) {
  WinogradShape s;
  s.tile = p.tile;
  for (int a = 0; a < 2; ++a) {
    s.in[a] = p.in[a];
    s.pad[a] = p.pad[a];
    s.out[a] = p.in[a] + p.pad[a] + p.pad_end - 2;
    if (s.out[a] < 1) return;
    s.tiles[a] = (s.out[a] + p.tile - 1) / p.tile;
  }
  const int64_t in = p.in[0] * p.in[1], out = s.out[0] * s.out[1], tiles = s.tiles_of_image(), f = s.frequencies();
  // Blocks of 16 channels that lie as NCHW16c does.
  const int64_t blocks = (p.channels + 15) / 16, y_blocks = (p.outputs + 15) / 16;
  const auto plain = random_floats(p.channels * in), w = random_floats(p.outputs * p.channels * 9), bias = random_floats(y_blocks * 16);
  std::vector<float> x(blocks * 16 * in, 0.0f);
  for (int64_t c = 0; c < p.channels; ++c)
    for (int64_t i = 0; i < in; ++i) x[(c / 16 * in + i) * 16 + c % 16] = plain[c * in + i];
  std::vector<double> expected(p.outputs * out), xd(plain.begin(), plain.end()), wd(w.begin(), w.end()), bd(bias.begin(), bias.begin() + p.outputs);
  const int64_t extent[3] = {1, p.in[0], p.in[1]}, result[3] = {1, s.out[0], s.out[1]}, kernel[3] = {1, 3, 3}, one[3] = {1, 1, 1}, pad[3] = {0, p.pad[0], p.pad[1]};
  reference::conv<double>({1, p.channels, p.outputs, 1, 3, extent, result, kernel, one, one, pad}, xd.data(), wd.data(), bd.data(), expected.data(), 0, p.outputs);
  testing::for_each_isa([&](Isa isa) {
    testing::scope() += cat(" m", p.tile, " C", p.channels, " O", p.outputs, " in ", p.in[0], "x", p.in[1], " pad ", p.pad[0], ",", p.pad[1], "+", p.pad_end);
    const WinogradKernels& k = *winograd_for(isa);
    const int64_t width = y_blocks * 16, row = blocks * 16;
    std::vector<float> u(f * row * width, 0.0f), v(f * tiles * row, NAN), m(f * tiles * width), y(y_blocks * 16 * out, NAN);
    k.weights(p.tile, w.data(), p.outputs, p.channels, u.data(), row * width, width);
    const int64_t half = tiles / 2;
    for (int64_t b = 0; b < blocks; ++b) {
      k.input(s, &x[b * in * 16], 0, half, &v[b * 16], tiles * row, row);
      k.input(s, &x[b * in * 16], half, tiles, &v[half * row + b * 16], tiles * row, row);
    }
    for (int64_t i = 0; i < f; ++i)
      for (int64_t t = 0; t < tiles; ++t)
        for (int64_t o = 0; o < width; ++o) {
          float sum = 0;
          for (int64_t c = 0; c < row; ++c) sum += v[(i * tiles + t) * row + c] * u[(i * row + c) * width + o];
          m[(i * tiles + t) * width + o] = sum;
        }
    std::vector<int64_t> odd(tiles);
    for (int64_t b = 0; b < y_blocks; ++b) {
      const WinogradOutput o{&m[b * 16], tiles * width, width, &bias[b * 16], nullptr, &y[b * out * 16], -INFINITY, INFINITY, nullptr,
                             static_cast<int>(std::min<int64_t>(16, p.outputs - b * 16))};
      CHECK_EQ(k.output(s, o, 0, half, odd.data()), 0);
      WinogradOutput rest = o;
      rest.m += half * width;
      CHECK_EQ(k.output(s, rest, half, tiles, odd.data()), 0);
    }
    double worst = 0;
    for (int64_t o = 0; o < y_blocks * 16; ++o)
      for (int64_t i = 0; i < out; ++i) {
        const double got = y[(o / 16 * out + i) * 16 + o % 16];
        const double d = std::fabs(got - (o < p.outputs ? expected[o * out + i] : 0.0));
        if (!(d <= worst)) worst = d;
      }
    CHECK_BELOW(worst / (std::sqrt(9.0 * p.channels) + 1), bound);
    // The kernels come back out of their transforms.
    std::vector<float> lane(f * 16), g(9 * 16);
    for (int64_t i = 0; i < f; ++i)
      for (int64_t l = 0; l < 16; ++l) lane[i * 16 + l] = u[i * row * width + l];
    winograd_kernels_of(p.tile, lane.data(), 16, g.data());
    for (int64_t tap = 0; tap < 9; ++tap)
      for (int64_t l = 0; l < std::min<int64_t>(16, p.outputs); ++l) CHECK_BELOW(std::fabs(g[tap * 16 + l] - w[l * p.channels * 9 + tap]), 1e-6);
  });
}

TEST(winograd_is_the_convolution) {
  for (int tile : {2, 4}) {
    const double bound = tile == 4 ? 4e-6 : 2e-6;
    for (int64_t h = 1; h < 11; ++h) check({tile, 16, 16, {h, 12 - h}, {1, 1}, 1}, bound);
    for (int64_t c : {1, 15, 17, 40}) check({tile, c, 33, {9, 14}, {1, 1}, 1}, bound);
    check({tile, 20, 16, {9, 8}, {0, 0}, 0}, bound);
    check({tile, 20, 7, {6, 8}, {2, 0}, 1}, bound);
    check({tile, 20, 7, {6, 8}, {0, 3}, 4}, bound);
    check({tile, 16, 16, {3, 3}, {7, 7}, 7}, bound);  // tiles that see nothing of the image
  }
}

// A tile that holds an infinity or NaN anywhere is told apart, whichever frequency it falls on.
TEST(winograd_finds_tiles_that_are_not_finite) {
  for (int tile : {2, 4})
    testing::for_each_isa([&](Isa isa) {
      const WinogradKernels& k = *winograd_for(isa);
      WinogradShape s;
      s.tile = tile;
      s.in[0] = s.in[1] = s.out[0] = s.out[1] = tile;
      s.pad[0] = s.pad[1] = s.tiles[0] = s.tiles[1] = 1;
      std::vector<float> bias(16, 0.0f), y(tile * tile * 16);
      for (int64_t f = 0; f < s.frequencies(); ++f)
        for (float bad : {INFINITY, -INFINITY, NAN, -3e38f}) {
          std::vector<float> m(s.frequencies() * 16, 1.0f);
          m[f * 16 + f % 16] = bad;
          if (std::isfinite(bad) && f > 0) m[f * 16 - 16 + f % 16] = bad;  // sums that overflow
          int64_t odd = -1;
          const int64_t n = k.output(s, {m.data(), 16, 16, bias.data(), nullptr, y.data(), -INFINITY, INFINITY, nullptr, 16}, 0, 1, &odd);
          if (!std::isfinite(bad) && n != 1) CHECK_EQ(n, 1);
          if (n == 0) for (float v : y) CHECK(std::isfinite(v));
        }
    });
}

// A huge pixel drowns the sums whose windows do not hold it: such a tile is told apart. Where all pixels are huge, hardly any is.
TEST(winograd_finds_tiles_that_are_drowned) {
  for (int tile : {2, 4})
    testing::for_each_isa([&](Isa isa) {
      const WinogradKernels& k = *winograd_for(isa);
      WinogradShape s;
      s.tile = tile;
      const int n = tile + 2;
      s.in[0] = s.in[1] = n;
      s.out[0] = s.out[1] = tile;
      s.pad[0] = s.pad[1] = 0;
      s.tiles[0] = s.tiles[1] = 1;
      const int64_t f = s.frequencies();
      const auto w = testing::random_floats(16 * 16 * 9), bias = std::vector<float>(16, 0.0f);
      std::vector<float> u(f * 256), v(f * 16), m(f * 16), y(tile * tile * 16);
      k.weights(tile, w.data(), 16, 16, u.data(), 256, 16);
      const auto odd_tiles = [&](const std::vector<float>& x) {
        k.input(s, x.data(), 0, 1, v.data(), 16, 16);
        for (int64_t i = 0; i < f; ++i)
          for (int64_t o = 0; o < 16; ++o) {
            double sum = 0;
            for (int64_t c = 0; c < 16; ++c) sum += static_cast<double>(v[i * 16 + c]) * u[i * 256 + c * 16 + o];
            m[i * 16 + o] = static_cast<float>(sum);
          }
        int64_t odd = -1;
        return k.output(s, {m.data(), 16, 16, bias.data(), nullptr, y.data(), -INFINITY, INFINITY, nullptr, 16}, 0, 1, &odd);
      };
      const auto x = testing::random_floats(n * n * 16);
      CHECK_EQ(odd_tiles(x), 0);
      for (int64_t at = 0; at < n * n; ++at) {
        const bool all_hold_it = tile == 2 && at / n % 3 != 0 && at % n % 3 != 0;
        auto bad = x;
        bad[at * 16 + 5] = -1e12f;
        CHECK_EQ(odd_tiles(bad), all_hold_it ? 0 : 1);
      }
      int64_t odd = 0;
      for (int i = 0; i < 50; ++i) {
        auto huge = testing::random_floats(n * n * 16);
        for (float& value : huge) value *= 1e11f;
        odd += odd_tiles(huge);
      }
      CHECK(odd < 10);
    });
}

}  // namespace
}  // namespace tiercel

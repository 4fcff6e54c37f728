// Direct, depthwise and transposed convolution on every ISA against the plain loops.
#include <cmath>

#include "harness.h"
#include "kernels/conv/plan.h"
#include "kernels/conv/reference.h"
#include "kernels/reorder/reorder.h"

namespace tiercel {
namespace {

using testing::integer;
using testing::random_floats;

int64_t blocks_of(int64_t c) { return (c + 15) / 16; }

std::vector<float> to_blocked(const std::vector<float>& x, int64_t batch, int64_t channels, int64_t plane, const ReorderKernels& k) {
  std::vector<float> y(batch * blocks_of(channels) * plane * 16, NAN);
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t b = 0; b < blocks_of(channels); ++b)
      k.to_blocked(&x[(n * channels + b * 16) * plane], plane, static_cast<int>(std::min<int64_t>(16, channels - b * 16)), plane,
                   &y[(n * blocks_of(channels) + b) * plane * 16]);
  return y;
}

// Runs a problem on one ISA; x and the result are NCHW. Also checks that channels past the last are zero.
std::vector<float> run(const ConvProblem& problem, Isa isa, const std::vector<float>& x, const std::vector<float>& w,
                       const std::vector<float>& bias, const std::vector<float>* residual, float low, float high, int pass) {
  const ConvPlan plan = plan_conv(problem, *conv_for(isa));
  const ReorderKernels& reorder = *reorder_for(isa);
  const ConvProblem& p = plan.problem;
  std::vector<float> packed(plan.packed + 1, NAN);
  for (int64_t i = 0; i < conv_pack_parts(plan); ++i) pack_conv(plan, w.data(), packed.data(), i);
  for (int64_t i = 0; i < plan.packed; ++i) CHECK(!std::isnan(packed[i]));
  const std::vector<float> xb = p.x_plain ? x : to_blocked(x, p.batch, p.channels, p.in_plane(), reorder);
  const int64_t y_blocks = blocks_of(p.outputs), x_image = xb.size() / p.batch, y_image = y_blocks * p.out_plane() * 16;
  std::vector<float> rb, bias_padded(y_blocks * 16, 0.0f);
  std::copy(bias.begin(), bias.end(), bias_padded.begin());
  if (residual) rb = to_blocked(*residual, p.batch, p.outputs, p.out_plane(), reorder);
  std::vector<float> yb(p.batch * y_image, NAN);
  for (int64_t n = 0; n < p.batch; ++n) {
    if (plan.algorithm == ConvAlgorithm::kDepthwise) {
      for (int64_t b = 0; b < y_blocks; ++b) {
        const int64_t at = n * y_image + b * p.out_plane() * 16;
        const DepthwiseTask t{&xb[n * x_image + b * p.in_plane() * 16], &packed[b * p.taps() * 16], &bias_padded[b * 16],
                              residual ? &rb[at] : nullptr, &yb[at], low, high,
                              static_cast<int>(std::min<int64_t>(16, p.outputs - b * 16))};
        depthwise_for(isa)->run(plan.depthwise, t, 0, p.out[0] * p.out[1]);
      }
      continue;
    }
    for (size_t i = 0; i < plan.registers.size(); ++i) {
      const GroupedPanel& panel = plan.registers[i];
      const int64_t channel = static_cast<int64_t>(i) * plan.lanes, block = channel / 16, rows = p.out[0] * p.out[1];
      const int64_t at = n * y_image + block * p.out_plane() * 16 + channel % 16;
      const GroupedTask t{&xb[n * x_image], &packed[panel.w], plan.steps.data() + panel.step, panel.steps, panel.uneven, &bias_padded[channel],
                          residual ? &rb[at] : nullptr, &yb[at], low, high, static_cast<int>(std::min<int64_t>(16, p.outputs - channel))};
      grouped_for(isa)->run(plan.grouped, t, 0, rows / 3);
      grouped_for(isa)->run(plan.grouped, t, rows / 3, rows);
    }
    for (const ConvPhase& phase : plan.phases)
      for (const ConvPanel& panel : phase.panels) {
        const int64_t at = n * y_image + panel.y_block * p.out_plane() * 16 + phase.y_origin;
        const ConvTask t{&xb[n * x_image + panel.x_block * phase.shape.x_block], &packed[panel.w], &bias_padded[panel.y_block * 16],
                         residual ? &rb[at] : nullptr, &yb[at], panel.panel, panel.blocks, panel.last, low, high, panel.tail, pass};
        const int64_t pixels = phase.shape.out[0] * phase.shape.out[1] * phase.shape.out[2], half = pixels / 3;
        const auto pixels_run = phase.rows ? conv_plain_for(isa)->run : conv_for(isa)->run;
        pixels_run(phase.shape, t, 0, half);
        pixels_run(phase.shape, t, half, pixels);
      }
  }
  std::vector<float> y(p.batch * p.outputs * p.out_plane(), NAN);
  for (int64_t n = 0; n < p.batch; ++n)
    for (int64_t b = 0; b < y_blocks; ++b) {
      const float* from = &yb[n * y_image + b * p.out_plane() * 16];
      const int c = static_cast<int>(std::min<int64_t>(16, p.outputs - b * 16));
      reorder.to_plain(from, p.out_plane(), &y[(n * p.outputs + b * 16) * p.out_plane()], p.out_plane(), c);
      for (int64_t i = 0; i < p.out_plane(); ++i)
        for (int l = c; l < 16; ++l) CHECK_EQ(from[i * 16 + l], 0.0f);
    }
  return y;
}

void check(ConvProblem p, int pad_end, bool residual = false, float low = -INFINITY, float high = INFINITY, int pass = 0) {
  for (int a = 0; a < 3; ++a) {
    const int64_t reach = (p.kernel[a] - 1) * p.dilation[a];
    const int64_t end = p.kernel[a] > 1 || p.pad[a] ? pad_end : 0;
    if (p.transposed) p.out[a] = (p.in[a] - 1) * p.stride[a] + reach + 1 - p.pad[a] - end + (p.stride[a] > 1 ? 1 : 0);
    else p.out[a] = (p.in[a] + p.pad[a] + end - reach - 1) / p.stride[a] + 1;
    if (p.out[a] < 1) return;
  }
  const auto x = random_floats(p.batch * p.channels * p.in_plane());
  const auto w = random_floats(p.channels * p.outputs / p.groups * p.taps());
  const auto bias = random_floats(p.outputs), add = random_floats(p.batch * p.outputs * p.out_plane());
  const int64_t n = p.batch * p.outputs * p.out_plane();
  std::vector<float> expected(n);
  const reference::ConvExtents e{p.batch, p.channels, p.outputs, p.groups, 3, p.in, p.out, p.kernel, p.stride, p.dilation, p.pad};
  (p.transposed ? reference::conv_transpose<float> : reference::conv<float>)(e, x.data(), w.data(), bias.data(), expected.data(), 0,
                                                                            p.batch * p.outputs);
  for (int64_t i = 0; i < n; ++i) {
    if (residual) expected[i] += add[i];
    expected[i] = std::min(high, std::max(low, expected[i]));
  }
  const double scale = std::sqrt(static_cast<double>(p.channels / p.groups * p.taps())) + 1;
  testing::for_each_isa([&](Isa isa) {
    testing::scope() += cat(" N", p.batch, " C", p.channels, " O", p.outputs, " g", p.groups, " in ", p.in[0], "x", p.in[1], "x", p.in[2],
                            " k ", p.kernel[0], "x", p.kernel[1], "x", p.kernel[2], " s", p.stride[1], ",", p.stride[2], " d", p.dilation[2],
                            " pad ", p.pad[1], ",", p.pad[2], p.transposed ? " transposed" : "", p.x_plain ? " plain" : "");
    const auto y = run(p, isa, x, w, bias, residual ? &add : nullptr, low, high, pass);
    CHECK_BELOW(testing::max_error(y.data(), expected.data(), n, scale), 5e-6);
  });
}

ConvProblem conv2d(int64_t c, int64_t o, int64_t h, int64_t w, int64_t k, int64_t s = 1, int64_t pad = 0, int64_t groups = 1,
                   int64_t d = 1) {
  ConvProblem p;
  p.channels = c; p.outputs = o; p.groups = groups;
  p.in[1] = h; p.in[2] = w;
  p.kernel[1] = p.kernel[2] = k;
  p.stride[1] = p.stride[2] = s;
  p.dilation[1] = p.dilation[2] = d;
  p.pad[1] = p.pad[2] = pad;
  return p;
}

TEST(conv_direct_shapes) {
  for (int64_t o : {1, 16, 24, 33, 48, 64, 80, 144})
    for (int64_t c : {3, 16, 24, 35}) {
      check(conv2d(c, o, 7, 9, 3, 1, 1), 1);
      check(conv2d(c, o, 5, 13, 1), 0);
    }
  for (int64_t s : {1, 2, 3})
    for (int64_t k : {1, 2, 3, 5, 7}) {
      check(conv2d(20, 40, 11, 17, k, s, k / 2), static_cast<int>(k / 2));
      check(conv2d(17, 64, 9, 8, k, s, 0), static_cast<int>(k));  // padding at the end alone
    }
  for (int64_t w = 1; w < 30; ++w) check(conv2d(8, 32, 1, w, 3, 1, 1), 1);
  check(conv2d(16, 16, 2, 2, 5, 1, 2), 2);  // a kernel larger than the image
}

TEST(conv_direct_plain_input) {
  for (int64_t c : {1, 2, 3, 4, 8})
    for (int64_t o : {5, 16, 32, 48, 64}) {
      ConvProblem p = conv2d(c, o, 19, 23, 7, 2, 3);
      p.x_plain = true;
      p.batch = 2;
      check(p, 3, o == 16, 0.0f);
      p = conv2d(c, o, 12, 12, 4, 4);
      p.x_plain = true;
      check(p, 0);
    }
}

TEST(conv_plain_rows) {
  auto plain = [](ConvProblem p) { p.x_plain = true; return p; };
  for (int64_t w = 1; w < 40; ++w)
    for (int64_t o : {16, 24, 40, 64}) check(plain(conv2d(3, o, 3, w, 3, w % 2 + 1, 1)), 1, o == 24, 0.0f);
  for (int64_t k : {1, 2, 3, 5, 7, 8})
    for (int64_t s : {1, 2, 3, 4})  // 3 runs on the tiles of all strides
      for (int64_t d : {1, 2, 5}) {
        const ConvProblem p = plain(conv2d(2, 20, 22, 23, k, s, k / 2, 1, d));
        CHECK_EQ(plan_conv(p, conv()).phases[0].rows, s != 3);
        check(p, static_cast<int>(k / 2));
      }
  check(plain(conv2d(8, 16, 20, 20, 9, 1, 4)), 4);         // sums that are too long for these tiles
  check(plain(conv2d(3, 48, 2, 2, 7, 2, 3)), 3);           // a kernel larger than the image
  check(plain(conv2d(3, 16, 4, 5, 3, 1, 12, 1, 12)), 12);  // rows and columns of padding alone
  check(plain(conv2d(1, 16, 3, 200, 2, 1, 0, 1, 70)), 0);  // out of reach
  ConvProblem p = plain(conv2d(3, 64, 9, 10, 7, 2, 3));
  p.in[0] = 5; p.kernel[0] = 3; p.pad[0] = 1; p.batch = 2;
  check(p, 3, true);
}

TEST(conv_small_groups_keep_infinities) {
  for (int64_t of_group : {3, 5, 12, 20, 24})
    for (int64_t k : {1, 3}) {
      ConvProblem p = conv2d(3 * of_group, 3 * of_group, 6, 9, k, 1, k / 2, 3);
      p.out[1] = 6; p.out[2] = 9;
      const int64_t plane = 54, group = of_group * plane;
      auto x = random_floats(3 * group);
      const auto w = random_floats(3 * of_group * of_group * k * k), bias = random_floats(3 * of_group);
      testing::for_each_isa([&](Isa isa) {
        if (plan_conv(p, *conv_for(isa)).algorithm != ConvAlgorithm::kGrouped) return;  // in others, the operator sees to it
        const auto expected = run(p, isa, x, w, bias, nullptr, -INFINITY, INFINITY, 0);
        auto with = x;
        with[3] = NAN;
        with[group - 1] = INFINITY;
        const auto y = run(p, isa, with, w, bias, nullptr, -INFINITY, INFINITY, 0);
        CHECK(!std::isfinite(y[3]));
        for (int64_t i = group; i < 3 * group; ++i) CHECK_EQ(y[i], expected[i]);
      });
    }
}

TEST(conv_direct_dilated_grouped) {
  for (int64_t d : {2, 3, 8}) check(conv2d(16, 32, 20, 21, 3, 1, d, 1, d), static_cast<int>(d));
  for (int64_t g : {2, 3, 4, 6, 8, 12, 24}) {
    check(conv2d(24, 48, 9, 9, 3, 1, 1, g), 1);
    check(conv2d(48, 24, 6, 7, 3, 2, 1, g), 1);
    check(conv2d(96, 192, 5, 5, 3, 1, 1, g), 1);
  }
  check(conv2d(10, 30, 6, 7, 3, 1, 1, 10), 1);   // a multiplier of 3
  check(conv2d(32, 64, 6, 7, 1, 1, 0, 2), 0);
}

TEST(conv_small_groups) {
  for (int64_t in : {1, 2, 3, 4, 5, 6, 8, 12, 15})       // channels of a group, and outputs
    for (int64_t out : {1, 2, 3, 4, 7, 8, 16, 24}) {
      if (in == 1 && out == 1) continue;
      ConvProblem p = conv2d(in * 12, out * 12, 6, 9, 3, 1, 1, 12);
      CHECK(in > 4 || in > out || plan_conv(p, conv()).algorithm == ConvAlgorithm::kGrouped);
      check(p, 1, out == 4, out == 8 ? 0.25f : -INFINITY, 1.0f);
      check(conv2d(in * 7, out * 7, 7, 8, 3, 2, 1, 7), 1, true);
    }
  for (int64_t k : {1, 2, 3, 5, 7})
    for (int64_t s : {1, 2, 3})
      for (int64_t d : {1, 3}) check(conv2d(40, 40, 15, 16, k, s, k / 2, 10, d), static_cast<int>(k / 2));
  for (int64_t w = 1; w < 44; ++w) check(conv2d(24, 24, 3, w, 3, 1, 1, 6), 1);
  check(conv2d(32, 32, 3, 3, 7, 1, 3, 4), 3);            // a kernel larger than the image
  check(conv2d(32, 32, 2, 3, 3, 1, 4, 8, 4), 4);         // rows of padding alone
  ConvProblem p = conv2d(36, 36, 5, 6, 3, 1, 1, 9);
  p.in[0] = 4; p.kernel[0] = 3; p.pad[0] = 1; p.batch = 2;
  check(p, 1, true, 0.0f);
}

TEST(conv_direct_epilogue) {
  for (int64_t o : {16, 20, 64, 90}) {
    check(conv2d(32, o, 6, 7, 3, 1, 1), 1, true, 0.0f, 6.0f);
    check(conv2d(32, o, 6, 7, 1, 1, 0), 0, true, 0.5f, 1.0f);  // a clamp that does not keep zero
    for (int pass : {1, 2}) check(conv2d(70, o, 6, 7, 3, 1, 1), 1, true, 0.0f, INFINITY, pass);
  }
}

TEST(conv_direct_ranks) {
  ConvProblem p = conv2d(16, 32, 5, 6, 3, 1, 1);
  p.in[0] = 4; p.kernel[0] = 3; p.pad[0] = 1;
  check(p, 1);
  p.stride[0] = 2; p.dilation[0] = 1; p.groups = 4;
  check(p, 0);
  for (int64_t d : {1, 4, 30}) {  // causal: padding in front alone
    ConvProblem q = conv2d(64, 64, 1, 50, 1);
    q.kernel[2] = 2; q.dilation[2] = d; q.pad[2] = d;
    check(q, 0);
  }
}

TEST(conv_depthwise) {
  for (int64_t k : {1, 2, 3, 5, 7, 9})
    for (int64_t s : {1, 2, 3})
      for (int64_t c : {4, 16, 40}) {
        check(conv2d(c, c, 9, 14, k, s, k / 2, c), static_cast<int>(k / 2), c == 40, c == 4 ? 0.25f : 0.0f);
        check(conv2d(c, c, 10, 7, k, s, 0, c), static_cast<int>(k / 2));
      }
  for (int64_t w = 1; w < 27; ++w) check(conv2d(20, 20, 3, w, 3, 1, 1, 20), 1);
  check(conv2d(20, 20, 12, 13, 3, 1, 4, 20, 4), 4);
  check(conv2d(20, 20, 3, 3, 7, 1, 3, 20), 3);
  ConvProblem p = conv2d(18, 18, 5, 6, 3, 1, 1, 18);
  p.in[0] = 4; p.kernel[0] = 3; p.pad[0] = 1; p.batch = 2;
  check(p, 1);
}

TEST(conv_depthwise_ring) {  // bands of rows out of a buffer that holds only the rows they read
  testing::for_each_isa([&](Isa isa) {
    for (int64_t k : {3, 5, 7})
      for (int64_t stride : {1, 2, 3})
        for (int64_t dilation : {1, 2})
          for (int64_t band : {1, 2, 3, 5}) {
            ConvProblem p = conv2d(16, 16, 23, 13, k, stride, k / 2, 16, dilation);
            p.out[1] = (p.in[1] + 2 * p.pad[1] - (k - 1) * dilation - 1) / stride + 1;
            p.out[2] = (p.in[2] + 2 * p.pad[2] - (k - 1) * dilation - 1) / stride + 1;
            const ConvPlan plan = plan_conv(p, *conv_for(isa));
            const auto x = random_floats(p.in_plane() * 16), w = random_floats(p.taps() * 16), bias = random_floats(16);
            std::vector<float> whole(static_cast<size_t>(p.out_plane() * 16)), banded(whole);
            DepthwiseShape s = plan.depthwise;
            DepthwiseTask t{x.data(), w.data(), bias.data(), nullptr, whole.data(), -1.0f, INFINITY, 16};
            depthwise_for(isa)->run(s, t, 0, p.out[1]);
            const int64_t reach = (k - 1) * dilation + 1, row = p.in[2] * 16;
            s.wrap = (band - 1) * stride + reach;
            std::vector<float> ring(static_cast<size_t>(s.wrap * row), 1e30f);
            t.x = ring.data();
            t.y = banded.data();
            for (int64_t i = 0, have = 0; i < p.out[1]; i += band) {
              const int64_t end = std::min(i + band, p.out[1]), stop = std::min(p.in[1], (end - 1) * stride - p.pad[1] + reach);
              for (have = std::max({have, int64_t{0}, i * stride - p.pad[1]}); have < stop; ++have)
                std::copy_n(&x[static_cast<size_t>(have * row)], row, &ring[static_cast<size_t>(have % s.wrap * row)]);
              depthwise_for(isa)->run(s, t, i, end);
            }
            CHECK(banded == whole);  // rows pair up in other ways, sums have the same order
          }
  });
}

TEST(conv_transposed) {
  for (int64_t s : {1, 2, 3})
    for (int64_t k : {1, 2, 3, 4})
      for (int64_t pad : {0, 1})
        for (int64_t g : {1, 2, 12}) {
          ConvProblem p = conv2d(24, 36, 5, 6, k, s, pad, g);
          p.transposed = true;
          check(p, static_cast<int>(pad), false, 0.0f);
          p.dilation[1] = 2;
          check(p, 0, true);
        }
  ConvProblem p = conv2d(3, 40, 5, 6, 4, 2, 1);
  p.transposed = true;
  p.x_plain = true;
  check(p, 1);
  p.in[0] = 3; p.kernel[0] = 3; p.stride[0] = 2;
  check(p, 1);
}

TEST(conv_infinities_stay_in_their_channels) {  // padded channels must stay zero whatever the data
  ConvProblem p = conv2d(16, 20, 3, 3, 1);
  p.out[1] = p.out[2] = 3;
  auto x = random_floats(16 * 9);
  x[5] = INFINITY; x[30] = NAN;
  const auto w = random_floats(16 * 20), bias = random_floats(20);
  std::vector<float> expected(20 * 9);
  const reference::ConvExtents e{1, 16, 20, 1, 3, p.in, p.out, p.kernel, p.stride, p.dilation, p.pad};
  reference::conv(e, x.data(), w.data(), bias.data(), expected.data(), 0, 20);
  testing::for_each_isa([&](Isa isa) {
    const auto y = run(p, isa, x, w, bias, nullptr, -INFINITY, INFINITY, 0);
    CHECK_BELOW(testing::max_error(y.data(), expected.data(), y.size(), 4), 1e-6);
  });
}

TEST(reorder_round_trip) {
  testing::for_each_isa([&](Isa isa) {
    const ReorderKernels& k = *reorder_for(isa);
    for (int channels = 1; channels <= 16; ++channels)
      for (int64_t n : {1, 3, 4, 7, 15, 16, 17, 40}) {
        const auto x = random_floats(channels * n);
        std::vector<float> b(n * 16, NAN), y(channels * n, NAN);
        k.to_blocked(x.data(), n, channels, n, b.data());
        for (int64_t i = 0; i < n; ++i)
          for (int c = 0; c < 16; ++c) CHECK_EQ(b[i * 16 + c], c < channels ? x[c * n + i] : 0.0f);
        k.to_plain(b.data(), n, y.data(), n, channels);
        CHECK(y == x);
      }
  });
}

}  // namespace
}  // namespace tiercel

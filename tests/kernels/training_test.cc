// The kernels of training, of every ISA, against plain loops in double: activations backwards, softmax, norms, optimisers.
#include "harness.h"
#include "kernels/norm/norm_grad.h"
#include "kernels/optimizer/optimizer.h"
#include "kernels/pointwise/activation_grad.h"
#include "kernels/softmax/grad_reference.h"
#include "kernels/softmax/softmax_grad.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {

std::vector<double> wide(const std::vector<float>& v) { return {v.begin(), v.end()}; }
std::vector<float> narrow(const std::vector<double>& v) { return {v.begin(), v.end()}; }
double error(const std::vector<float>& got, const std::vector<double>& want, double scale = 1) {
  return max_error(got.data(), narrow(want).data(), got.size(), scale);
}

}  // namespace

TEST(activation_grad) {
  for_each_isa([](Isa isa) {
    for (int kind = 0; kind < kNumActivations; ++kind)
      for (const float alpha : {0.3f, -0.4f})
        for (int64_t n : {0, 1, 7, 16, 33, 1000}) {
          const Activation a{static_cast<ActivationKind>(kind), alpha, 0.8f};
          auto v = random_floats(static_cast<size_t>(n), -4, 4), dy = random_floats(static_cast<size_t>(n));
          if (n > 3) v[0] = 0, v[1] = NAN, v[2] = 40;
          if (activation_grad_reads_result(a)) for (float& x : v) x = activate(x, a);
          std::vector<float> want(v.size()), dx = dy;
          for (size_t i = 0; i < v.size(); ++i) want[i] = static_cast<float>(reference::activation_grad(dy[i], v[i], a));
          activation_grad_for(isa)->run(a, dx.data(), v.data(), dx.data(), n);  // in place
          for (size_t i = 0; i < v.size(); ++i) {
            if (!std::isfinite(v[i])) continue;  // comparisons with NaN differ from kind to kind
            CHECK(std::fabs(dx[i] - want[i]) <= 4e-6f * std::max(1.0f, std::fabs(want[i])));
          }
        }
  });
}

TEST(softmax_grad) {
  for_each_isa([](Isa isa) {
    for (int64_t n : {0, 1, 3, 15, 16, 17, 33, 100, 1001})
      for (int log = 0; log < 2; ++log) {
        const int64_t rows = 3;
        const auto dy = random_floats(static_cast<size_t>(rows * n));
        auto y = random_floats(dy.size(), 0, 2.0f / static_cast<float>(n + 1));
        if (log) for (float& v : y) v = -5 * v - 1;
        std::vector<double> want(dy.size());
        const auto wy = wide(y), wdy = wide(dy);
        for (int64_t r = 0; r < rows; ++r) reference::softmax_grad(wdy.data() + r * n, wy.data() + r * n, n, 1, log, want.data() + r * n);
        std::vector<float> dx = dy;
        softmax_grad_for(isa)->rows[log](dx.data(), y.data(), rows, n, dx.data());
        CHECK_BELOW(error(dx, want, log ? 1 + std::sqrt(static_cast<double>(n)) : 1), 2e-6);
      }
  });
}

TEST(softmax_grad_of_rows_that_are_all_masked) {
  for_each_isa([](Isa isa) {
    const int64_t n = 37;
    std::vector<float> dy(2 * n, 0.f), y(2 * n, NAN), dx(2 * n, 7.f);
    dy[n + 3] = 1;
    softmax_grad_for(isa)->rows[0](dy.data(), y.data(), 2, n, dx.data());
    for (int64_t i = 0; i < n; ++i) {
      CHECK_EQ(dx[i], 0.f);
      CHECK(std::isnan(dx[n + i]));  // something was asked
    }
  });
}

TEST(layer_norm_grad) {
  for_each_isa([](Isa isa) {
    for (int64_t n : {1, 3, 16, 17, 47, 64, 768})
      for (int form = 0; form < 8; ++form) {
        const int64_t rows = 4;
        const bool rms = form & 1, scaled = form & 2, sums = form & 4;
        const size_t all = static_cast<size_t>(rows * n), row = static_cast<size_t>(n);
        const auto x = random_floats(all, -2, 3), dy = random_floats(all), scale = random_floats(row, 0.5f, 2);
        std::vector<float> dx = dy, dscale(row, 0.5f), dbias(row, 0.25f);
        LayerNormGrad<float> g{dx.data(), x.data(), scaled ? scale.data() : nullptr, dx.data(), sums ? dscale.data() : nullptr,
                               sums ? dbias.data() : nullptr, n, rms, 1e-3};
        const auto wx = wide(x), wdy = wide(dy), wscale = wide(scale);
        std::vector<double> want(all), want_scale(row, 0.5), want_bias(row, 0.25);
        const LayerNormGrad<double> w{wdy.data(), wx.data(), scaled ? wscale.data() : nullptr, want.data(), sums ? want_scale.data() : nullptr,
                                      sums ? want_bias.data() : nullptr, n, rms, 1e-3};
        norm_grad_for(isa)->layer_norm(g, rows);
        reference::layer_norm_grad(w, rows);
        if (n > 1) CHECK_BELOW(error(dx, want, 31), 1e-6);  // 1 / sqrt(epsilon): what little variance makes of a rounding
        CHECK_BELOW(error(dscale, want_scale, 4), 3e-6);
        CHECK_BELOW(error(dbias, want_bias, 4), 3e-6);
      }
  });
}

TEST(channel_grad) {
  for_each_isa([](Isa isa) {
    for (int64_t n : {0, 1, 15, 16, 50, 4096, 4099, 10001}) {
      const auto x = random_floats(static_cast<size_t>(n), 1, 3), dy = random_floats(x.size());
      double got[2] = {1, 2}, want[2] = {1, 2};
      norm_grad_for(isa)->channel_sums(dy.data(), x.data(), n, 2.0f, got);
      const auto wx = wide(x), wdy = wide(dy);
      add_channel_sums(wdy.data(), wx.data(), n, 2.0, want);
      for (int i : {0, 1}) CHECK(std::fabs(got[i] - want[i]) <= 1e-5 * (1 + std::sqrt(static_cast<double>(n))));
      std::vector<float> dx = dy;
      std::vector<double> want_dx(x.size());
      norm_grad_for(isa)->channel(dx.data(), x.data(), n, 0.5f, -0.25f, 2.0f, 0.125f, dx.data());
      channel_grad(wdy.data(), wx.data(), n, 0.5, -0.25, 2.0, 0.125, want_dx.data());
      CHECK_BELOW(error(dx, want_dx), 5e-7);
    }
  });
}

TEST(optimizer_step) {
  for_each_isa([](Isa isa) {
    for (int kind = 0; kind < 6; ++kind)
      for (int form = 0; form < 4; ++form)
        for (int64_t n : {0, 1, 7, 16, 33, 500}) {
          auto p = random_floats(static_cast<size_t>(n)), g = random_floats(p.size()), m = random_floats(p.size()), v = random_floats(p.size(), 0.1f, 1);
          auto wp = wide(p), wg = wide(g), wm = wide(m), wv = wide(v);
          const auto fill = [&](auto& s) {
            s.kind = static_cast<OptimizerKind>(kind);
            s.nesterov = form & 1;
            s.lr = 0.125f, s.scale = 0.5f, s.decay = form & 2 ? 0.25f : 0, s.shrink = form & 2 ? 1 : 0.75f;
            s.momentum = 0.875f, s.beta1 = 0.75f, s.beta2 = 0.875f, s.epsilon = 0.0625f, s.correction1 = 0.5f, s.root_correction2 = 0.625f;
            s.n = n;
          };
          OptimizerStep<float> s;
          OptimizerStep<double> w;
          fill(s), fill(w);
          s.g = g.data(), s.p = p.data(), s.m = m.data(), s.v = v.data();
          w.g = wg.data(), w.p = wp.data(), w.m = wm.data(), w.v = wv.data();
          optimizer_for(isa)->step(s);
          reference::optimizer_step(w);
          CHECK_BELOW(error(p, wp, 2), 1e-6);
          CHECK_BELOW(error(m, wm, 2), 1e-6);
          CHECK_BELOW(error(v, wv), 1e-6);
        }
  });
}

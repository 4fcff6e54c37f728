// Normalisations of every ISA against plain loops in double.
#include "harness.h"
#include "kernels/norm/norm.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {

constexpr int64_t kLengths[] = {1, 2, 7, 15, 16, 17, 33, 64, 100, 384, 768, 1000, 5003};

}  // namespace

TEST(norm_rows) {
  for_each_isa([](Isa isa) {
    for (int64_t n : kLengths)
      for (int options = 0; options < 16; ++options)
        for (bool rms : {false, true}) {
          const int64_t rows = 3;
          const size_t count = static_cast<size_t>(rows * n);
          auto x = random_floats(count, 2, 5);
          const auto skip = random_floats(count), shift = random_floats(static_cast<size_t>(n)),
                     scale = random_floats(static_cast<size_t>(n)), bias = random_floats(static_cast<size_t>(n));
          std::vector<float> y(count), sum(count), want(count), want_sum(count);
          float stats[6], want_stats[6];
          RowNorm a{.x = x.data(), .y = y.data(), .n = n, .epsilon = 1e-5f};
          if (options & 1) a.skip = skip.data();
          if (options & 2) a.shift = shift.data();
          if (options & 4) a.scale = scale.data();
          if (options & 8) a.bias = bias.data();
          if (options & 5) a.sum = sum.data();
          a.mean = stats;
          a.rstd = stats + 3;
          RowNorm b = a;
          b.y = want.data();
          if (b.sum) b.sum = want_sum.data();
          b.mean = want_stats;
          b.rstd = want_stats + 3;
          reference::row_norm(b, rows, rms);
          (rms ? norm_for(isa)->rms_norm : norm_for(isa)->layer_norm)(a, rows);
          const double bound = n == 1 ? 1e-4 : n == 2 ? 2e-3 : 2e-5;  // relative error of a tiny spread around a mean of 3
          CHECK_BELOW(max_error(y.data(), want.data(), count), bound);
          if (a.sum) CHECK_BELOW(max_error(sum.data(), want_sum.data(), count), 1e-6);
          for (int i = 0; i < 3; ++i) {
            CHECK_BELOW(std::fabs(stats[i] - want_stats[i]), 2e-6);
            CHECK_BELOW(std::fabs(stats[i + 3] / want_stats[i + 3] - 1), n <= 2 ? 1e-2 : 1e-5);
          }
          if (!a.sum && !a.skip) {  // in place
            a.y = x.data();
            (rms ? norm_for(isa)->rms_norm : norm_for(isa)->layer_norm)(a, rows);
            CHECK_EQ(max_error(x.data(), y.data(), count), 0.0);
          }
        }
  });
}

TEST(norm_columns) {
  for_each_isa([](Isa isa) {
    for (int64_t n : {3, 16, 17, 96})
      for (int64_t cols : {1, 7, 16, 40, 256})
        for (int options = 0; options < 8; ++options) {
          const int64_t stride = cols + 2;
          const auto x = random_floats(static_cast<size_t>(n * stride), 1, 4), scale = random_floats(static_cast<size_t>(n)),
                     bias = random_floats(static_cast<size_t>(n));
          std::vector<float> y = x, want = x, column(static_cast<size_t>(n)), result(static_cast<size_t>(n));
          ColumnNorm a{.x = x.data(), .y = y.data(), .n = n, .stride = stride, .cols = cols, .epsilon = 1e-3f};
          if (options & 1) a.scale = scale.data();
          if (options & 2) a.bias = bias.data();
          const bool rms = options & 4;
          for (int64_t c = 0; c < cols; ++c) {
            for (int64_t i = 0; i < n; ++i) column[i] = x[i * stride + c];
            const RowNorm r{.x = column.data(), .scale = a.scale, .bias = a.bias, .y = result.data(), .n = n, .epsilon = 1e-3f};
            reference::row_norm(r, 1, rms);
            for (int64_t i = 0; i < n; ++i) want[i * stride + c] = result[i];
          }
          (rms ? norm_for(isa)->rms_norm_columns : norm_for(isa)->layer_norm_columns)(a);
          CHECK_BELOW(max_error(y.data(), want.data(), y.size()), 2e-5);
        }
  });
}

TEST(norm_moments) {
  for_each_isa([](Isa isa) {
    for (int64_t n : {1, 2, 3, 16, 100, 4096, 4097, 20001})
      for (float offset : {0.0f, 100.0f}) {
        const auto x = random_floats(static_cast<size_t>(16 * n), offset - 1, offset + 1);
        double mean, m2, want_mean, want_m2, means[16], m2s[16];
        norm_for(isa)->moments(x.data(), n, &mean, &m2);
        reference::moments(x.data(), n, 1, &want_mean, &want_m2);
        CHECK_BELOW(std::fabs(mean - want_mean), 4e-7 * (offset + 1));
        CHECK_BELOW(std::fabs(m2 - want_m2), 1e-5 * want_m2 + 1e-9);
        norm_for(isa)->moments16(x.data(), n, means, m2s);
        for (int c = 0; c < 16; ++c) {
          reference::moments(x.data() + c, n, 16, &want_mean, &want_m2);
          CHECK_BELOW(std::fabs(means[c] - want_mean), 4e-7 * (offset + 1));
          CHECK_BELOW(std::fabs(m2s[c] - want_m2), 1e-5 * want_m2 + 1e-9);
        }
      }
  });
}

TEST(norm_affine) {
  const Activation acts[] = {{}, {ActivationKind::kRelu}, {ActivationKind::kSilu, 1}, {ActivationKind::kTanh}};
  for_each_isa([&](Isa isa) {
    for (int64_t n : {1, 5, 16, 17, 40, 5000})
      for (const Activation& act : acts) {
        const int64_t rows = n > 100 ? 1 : 4, stride = n + 3;
        const auto x = random_floats(static_cast<size_t>(rows * stride));
        const auto a = random_floats(static_cast<size_t>(n)), b = random_floats(static_cast<size_t>(n)),
                   c = random_floats(static_cast<size_t>(n));
        std::vector<float> y(x.size(), 5.0f), want(x.size(), 5.0f);
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t i = 0; i < n; ++i) {
            const auto at = static_cast<size_t>(r * stride + i);
            want[at] = activate((x[at] - c[i]) * a[i] + b[i], act);
          }
        norm_for(isa)->affine_rows(x.data(), rows, stride, n, c.data(), a.data(), b.data(), act, y.data());
        CHECK_BELOW(max_error(y.data(), want.data(), y.size()), 1e-6);
        for (int64_t i = 0; i < n; ++i) want[i] = activate((x[i] - 0.5f) * 0.25f + 0.125f, act);
        norm_for(isa)->affine(x.data(), n, 0.5f, 0.25f, 0.125f, act, y.data());
        CHECK_BELOW(max_error(y.data(), want.data(), static_cast<size_t>(n)), 1e-6);
      }
  });
}

TEST(norm_lrn) {
  for_each_isa([](Isa isa) {
    for (int64_t n : {1, 16, 19})
      for (int64_t channels : {1, 3, 8}) {
        const int64_t stride = n + 1;
        const auto x = random_floats(static_cast<size_t>(channels * stride), -3, 3);
        std::vector<float> y(x.size()), want(x.size());
        norm_for(isa)->lrn(x.data(), channels, stride, n, 2, 1, 1.5f, 0.1f, 0.75f, y.data());
        reference::lrn(x.data(), channels, stride, n, 2, 1, 1.5f, 0.1f, 0.75f, want.data());
        CHECK_BELOW(max_error(y.data(), want.data(), y.size()), 1e-6);
      }
  });
}

// Pooling on every ISA against the plain loops.
#include <cmath>

#include "harness.h"
#include "kernels/pool/pool.h"
#include "kernels/pool/reference.h"

namespace tiercel {
namespace {

struct Axis { int64_t in, kernel, stride, dilation, begin, end; };

void check(std::initializer_list<Axis> axes, bool count_padding, bool with_nan = false) {
  PoolShape s{{1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}, count_padding};
  int64_t end[3] = {}, begin[3] = {};
  int a = 3 - static_cast<int>(axes.size());
  for (const Axis& x : axes) {
    s.in[a] = x.in; s.kernel[a] = x.kernel; s.stride[a] = x.stride; s.dilation[a] = x.dilation;
    s.origin[a] = -x.begin; s.limit[a] = x.in + x.end;
    begin[a] = x.begin; end[a] = x.end;
    const int64_t room = x.in + x.begin + x.end - (x.kernel - 1) * x.dilation - 1;
    if (room < 0) return;
    s.out[a++] = (room + x.stride - 1) / x.stride + 1;  // as with ceil_mode: windows may hang over the end
  }
  const int64_t in = s.in[0] * s.in[1] * s.in[2], out = s.out[0] * s.out[1] * s.out[2], rows = s.out[0] * s.out[1];
  const int tail = 13;
  auto planes = testing::random_floats(16 * in);
  if (with_nan) planes[in / 2] = NAN;
  const reference::PoolExtents e{3, s.in, s.out, s.kernel, s.stride, s.dilation, begin, end};
  for (const bool largest : {true, false}) {
    std::vector<float> expected(16 * out);
    reference::pool(e, {largest ? reference::Pool::kMax : reference::Pool::kMean, count_padding}, planes.data(), expected.data(), nullptr,
                    0, 16);
    std::vector<float> blocked(16 * in), want(16 * out);
    for (int c = 0; c < 16; ++c) {
      for (int64_t i = 0; i < in; ++i) blocked[i * 16 + c] = planes[c * in + i];
      for (int64_t i = 0; i < out; ++i) want[i * 16 + c] = c < tail ? expected[c * out + i] : 0;
    }
    testing::for_each_isa([&](Isa isa) {
      testing::scope() += cat(largest ? " max" : " mean", " in ", s.in[1], "x", s.in[2], " k ", s.kernel[2], " s ", s.stride[2], " pad ",
                              begin[2], ",", end[2]);
      const PoolKernels& k = *pool_for(isa);
      std::vector<float> y(16 * out, NAN), line(s.in[2]);
      (largest ? k.max_block : k.mean_block)(s, blocked.data(), y.data(), tail, 0, rows / 2);
      (largest ? k.max_block : k.mean_block)(s, blocked.data(), y.data(), tail, rows / 2, rows);
      CHECK_BELOW(testing::max_error(y.data(), want.data(), y.size()), 1e-6);
      for (int c = 0; c < 16; ++c) (largest ? k.max_plane : k.mean_plane)(s, &planes[c * in], &y[c * out], line.data(), 0, rows);
      CHECK_BELOW(testing::max_error(y.data(), expected.data(), y.size()), 1e-6);
    });
  }
}

TEST(pool_windows) {
  for (int64_t k : {1, 2, 3, 5, 7})
    for (int64_t s : {1, 2, 3})
      for (int64_t pad : {int64_t{0}, k / 2})
        for (bool count : {false, true}) {
          check({{9, k, s, 1, pad, pad}, {17, k, s, 1, pad, pad}}, count);
          check({{4, k, s, 1, 0, pad}, {5, k, s, 2, pad, 0}}, count, true);
        }
  check({{30, 3, 2, 1, 1, 1}}, true);
  check({{5, 2, 2, 1, 0, 1}, {6, 3, 1, 1, 1, 1}, {7, 3, 2, 1, 1, 1}}, false);
}

TEST(pool_global) {
  for (int64_t n : {1, 3, 4, 15, 16, 17, 64, 100}) {
    const auto planes = testing::random_floats(16 * n);
    std::vector<float> blocked(16 * n), largest(16, -INFINITY), mean(16);
    for (int c = 0; c < 16; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) {
        blocked[i * 16 + c] = planes[c * n + i];
        largest[c] = std::max(largest[c], planes[c * n + i]);
        sum += planes[c * n + i];
      }
      mean[c] = static_cast<float>(sum / static_cast<double>(n));
    }
    testing::for_each_isa([&](Isa isa) {
      const PoolKernels& k = *pool_for(isa);
      std::vector<float> y(16);
      for (int c = 0; c < 16; ++c) k.global_max_plane(&planes[c * n], n, &y[c]);
      CHECK(y == largest);
      for (int c = 0; c < 16; ++c) k.global_mean_plane(&planes[c * n], n, &y[c]);
      CHECK_BELOW(testing::max_error(y.data(), mean.data(), 16), 1e-6);
      k.global_mean_block(blocked.data(), n, y.data(), 16);
      CHECK_BELOW(testing::max_error(y.data(), mean.data(), 16), 1e-6);
      k.global_max_block(blocked.data(), n, y.data(), 3);
      for (int c = 0; c < 16; ++c) CHECK_EQ(y[c], c < 3 ? largest[c] : 0);
    });
  }
}

}  // namespace
}  // namespace tiercel

// Reductions of every ISA against plain loops in double.
#include "harness.h"
#include "kernels/reduce/reduce.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {

constexpr int64_t kLengths[] = {0, 1, 2, 3, 7, 15, 16, 17, 31, 33, 64, 65, 100, 257, 1000, 5001};

// Error of a sum relative to the sum of magnitudes, which bounds what rounding can do.
void check_one(ReduceMap map, float got, const float* x, int64_t n, int64_t stride, float shift) {
  if (map == ReduceMap::kProd && n > 100) return;  // it underflows, and then infinities depend on the order
  const double want = reference::reduce(map, x, n, stride, shift);
  double scale = std::fabs(want);
  if (map == ReduceMap::kSum) scale = std::max(reference::reduce(ReduceMap::kSumAbs, x, n, stride, 0), 1e-30);
  const float w = static_cast<float>(want);
  const double bound = map == ReduceMap::kProd ? 1e-7 * static_cast<double>(n + 2) : 1e-6;
  if (map == ReduceMap::kMax || map == ReduceMap::kMin || !std::isfinite(w)) CHECK(got == w || (std::isnan(got) && std::isnan(w)));
  else CHECK_BELOW(std::fabs(got - want), bound * scale + 1e-37);
}

std::vector<float> data(size_t n, int special) {
  auto x = random_floats(n, -2, 2);
  if (special && n) x[n / 2] = special == 1 ? NAN : special == 2 ? INFINITY : -INFINITY;
  return x;
}

}  // namespace

TEST(reduce_rows) {
  for_each_isa([](Isa isa) {
    const auto& k = *reduce_for(isa);
    for (int64_t n : kLengths)
      for (int special = 0; special < 4; ++special) {
        const int64_t rows = 3, stride = n + 2;
        const auto x = data(static_cast<size_t>(rows * stride), special);
        const float shift[3] = {0.5f, -0.25f, 1};
        for (int m = 0; m < kNumReduceMaps; ++m) {
          float y[3];
          k.rows[m](x.data(), rows, stride, n, shift, y);
          for (int64_t r = 0; r < rows; ++r) check_one(static_cast<ReduceMap>(m), y[r], x.data() + r * stride, n, 1, shift[r]);
        }
      }
  });
}

TEST(reduce_columns) {
  for_each_isa([](Isa isa) {
    const auto& k = *reduce_for(isa);
    for (int64_t rows : {0, 1, 3, 8, 9, 30, 300})
      for (int64_t cols : {1, 2, 3, 5, 8, 15, 16, 17, 40, 129})
        for (int64_t gap : {0, 5})
          for (int special = 0; special < 4; special += (rows > 8 ? 3 : 1)) {
            const int64_t stride = cols + gap;
            const auto x = data(static_cast<size_t>(rows * stride), special);
            const auto shift = random_floats(static_cast<size_t>(cols));
            for (int m = 0; m < kNumReduceMaps; ++m) {
              std::vector<float> y(static_cast<size_t>(cols) + 1, 77.0f);
              const auto map = static_cast<ReduceMap>(m);
              const int64_t half = rows / 2;
              k.columns[m](x.data(), half, stride, cols, shift.data(), false, y.data());
              k.columns[m](x.data() + half * stride, rows - half, stride, cols, shift.data(), true, y.data());
              for (int64_t c = 0; c < cols; ++c) check_one(map, y[c], x.data() + c, rows, stride, shift[c]);
              CHECK_EQ(y[cols], 77.0f);
            }
          }
  });
}

TEST(reduce_long_sums_stay_accurate) {
  const size_t n = 1 << 22;
  const auto x = random_floats(n, 0, 1);
  const double want = reference::reduce(ReduceMap::kSum, x.data(), n, 1, 0);
  for_each_isa([&](Isa isa) {
    float y;
    reduce_for(isa)->rows[0](x.data(), 1, 0, n, nullptr, &y);
    CHECK_BELOW(std::fabs(y - want) / want, 4e-7);
  });
}

TEST(beyond) {
  for_each_isa([](Isa isa) {
    for (int64_t n : kLengths)
      for (int special = 0; special < 4; ++special)
        for (float limit : {-0.5f, 0.0f, 1.0f, INFINITY, -INFINITY, NAN})
          for (bool above : {false, true}) {
            auto x = data(static_cast<size_t>(n), special);
            for (float& v : x) v = std::round(4 * v) / 4;
            std::vector<int32_t> at(static_cast<size_t>(n) + 1, -1);
            const int64_t count = reduce_for(isa)->beyond(x.data(), n, limit, above, at.data());
            int64_t expected = 0;
            for (int64_t i = 0; i < n; ++i)
              if (above ? !(x[i] <= limit) : !(x[i] >= limit)) CHECK_EQ(at[expected++], i);
            CHECK_EQ(count, expected);
            CHECK_EQ(at[static_cast<size_t>(n)], -1);
          }
  });
}

TEST(arg_reduce) {
  for_each_isa([](Isa isa) {
    const auto& k = *reduce_for(isa);
    for (int64_t n : kLengths)
      for (int special = 0; special < 5; ++special)
        for (int min = 0; min < 2; ++min)
          for (bool last : {false, true}) {
            if (n == 0) continue;
            auto x = data(static_cast<size_t>(n), special % 4);
            for (float& v : x) v = std::round(4 * v) / 4;  // ties
            if (special == 4) { x[0] = NAN; x[n - 1] = NAN; }
            int64_t y;
            k.arg_rows[min](x.data(), 1, n, n, last, &y);
            CHECK_EQ(y, reference::arg_reduce(x.data(), n, 1, min, last));
          }
    for (int64_t rows : {1, 2, 5, 40})
      for (int64_t cols : {1, 7, 16, 33, 513, 1030})
        for (int min = 0; min < 2; ++min)
          for (bool last : {false, true}) {
            auto x = data(static_cast<size_t>(rows * cols), 0);
            for (float& v : x) v = std::round(4 * v) / 4;
            x[0] = NAN;
            x[x.size() - 1] = NAN;
            std::vector<int64_t> y(static_cast<size_t>(cols));
            k.arg_columns[min](x.data(), rows, cols, cols, last, y.data());
            for (int64_t c = 0; c < cols; ++c) CHECK_EQ(y[c], reference::arg_reduce(x.data() + c, rows, cols, min, last));
          }
  });
}

TEST(reduce_finish) {
  for_each_isa([](Isa isa) {
    const auto& k = *reduce_for(isa);
    for (int64_t n : {0, 1, 15, 16, 40}) {
      const auto x = random_floats(static_cast<size_t>(n), 0.1f, 9), shift = random_floats(static_cast<size_t>(n));
      auto a = x, b = x, c = x, d = x;
      k.divide(a.data(), n, 3);
      k.sqrt(b.data(), n);
      k.log(c.data(), n, nullptr);
      k.log(d.data(), n, shift.data());
      for (size_t i = 0; i < x.size(); ++i) {
        CHECK_EQ(a[i], x[i] / 3);
        CHECK_EQ(b[i], std::sqrt(x[i]));
        CHECK_BELOW(std::fabs(c[i] - std::log(x[i])), 1e-6);
        CHECK_BELOW(std::fabs(d[i] - std::log(x[i]) - shift[i]), 1e-6);
      }
    }
  });
}

// Softmax of every ISA against plain loops in double.
#include "harness.h"
#include "kernels/softmax/softmax.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {

std::vector<float> data(size_t n, int special) {
  auto x = random_floats(n, -20, 20);
  if (!n) return x;
  if (special == 1) x[n / 2] = NAN;
  if (special == 2) x[n / 2] = INFINITY;
  if (special == 3) x[n / 2] = -INFINITY;
  if (special == 4) for (float& v : x) v = -INFINITY;
  if (special == 5) for (float& v : x) v = v * 1e37f;
  return x;
}

}  // namespace

TEST(softmax_rows) {
  for_each_isa([](Isa isa) {
    for (int64_t n : {0, 1, 2, 3, 5, 8, 15, 16, 17, 31, 33, 64, 100, 197, 1000, 4099})
      for (int special = 0; special < 6; ++special)
        for (int log = 0; log < 2; ++log) {
          const int64_t rows = 3;
          const auto x = data(static_cast<size_t>(rows * n), special);
          std::vector<float> want(x.size()), y = x;
          for (int64_t r = 0; r < rows; ++r) reference::softmax(x.data() + r * n, n, 1, log, want.data() + r * n);
          softmax_for(isa)->rows[log](y.data(), rows, n, y.data());  // in place
          if (log) {
            for (size_t i = 0; i < y.size(); ++i)
              CHECK(y[i] == want[i] || (std::isnan(y[i]) && std::isnan(want[i])) ||
                    std::fabs(y[i] - want[i]) <= 4e-7 * std::max(1.0f, std::fabs(want[i])));
          } else {
            CHECK_BELOW(max_error(y.data(), want.data(), y.size()), 3e-7);
          }
        }
  });
}

TEST(softmax_columns) {
  for_each_isa([](Isa isa) {
    for (int64_t n : {0, 1, 3, 16, 100, 3001})
      for (int64_t cols : {1, 2, 3, 4, 7, 8, 13, 15, 16, 17, 50, 256})
        for (int special = 0; special < 10; ++special)
          for (int log = 0; log < 2; ++log) {
            const int64_t stride = cols + 3 * (special & 1);  // narrow ones that lie together are another loop
            const auto x = data(static_cast<size_t>(n * stride), special / 2);
            std::vector<float> want = x, y = x;
            for (int64_t c = 0; c < cols; ++c) reference::softmax(x.data() + c, n, stride, log, want.data() + c);
            softmax_for(isa)->columns[log](x.data(), n, stride, cols, y.data());
            CHECK_BELOW(max_error(y.data(), want.data(), y.size(), log ? 20 : 1), 4e-7);
          }
  });
}

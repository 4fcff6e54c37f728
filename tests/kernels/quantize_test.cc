// Quantisation of every ISA against plain loops.
#include "harness.h"
#include "kernels/quantize/quantize.h"

using namespace tiercel;
using namespace tiercel::testing;

TEST(quantize_bytes) {
  for_each_isa([](Isa isa) {
    const auto& k = *quantize_for(isa);
    for (int64_t n : {0, 1, 7, 16, 33, 300}) {
      auto x = random_floats(static_cast<size_t>(n), -40, 40);
      for (size_t i = 0; i < x.size(); i += 3) x[i] = std::round(x[i]) * 0.25f;  // halves of the scale: ties
      if (n > 10) x[1] = NAN, x[2] = INFINITY, x[3] = -INFINITY, x[4] = 1e30f, x[5] = -1e30f;
      std::vector<uint8_t> u(x.size());
      std::vector<int8_t> s(x.size());
      k.quantize_u8(x.data(), n, 100, 0.5f, u.data());
      k.quantize_s8(x.data(), n, -3, 0.5f, s.data());
      for (size_t i = 0; i < x.size(); ++i) {
        CHECK_EQ(static_cast<int>(u[i]), reference::quantize(x[i], 100, 0.5f, 0, 255));
        CHECK_EQ(static_cast<int>(s[i]), reference::quantize(x[i], -3, 0.5f, -128, 127));
      }
      std::vector<float> a(x.size()), b(x.size());
      k.dequantize_u8(u.data(), n, 100, 0.3f, a.data());
      k.dequantize_s8(s.data(), n, -3, 0.3f, b.data());
      for (size_t i = 0; i < x.size(); ++i) {
        CHECK_EQ(a[i], reference::dequantize(u[i], 100, 0.3f));
        CHECK_EQ(b[i], reference::dequantize(s[i], -3, 0.3f));
      }
    }
  });
}

TEST(quantize_products) {
  for_each_isa([](Isa isa) {
    for (int64_t n : {1, 16, 63, 64, 65, 200})
      for (int64_t k : {0, 1, 5, 40}) {
        std::vector<int16_t> a(static_cast<size_t>(k)), b(static_cast<size_t>(k * (n + 1)));
        for (auto& v : a) v = static_cast<int16_t>(integer(-255, 255));
        for (auto& v : b) v = static_cast<int16_t>(integer(-255, 255));
        std::vector<int32_t> c(static_cast<size_t>(n), 7);
        quantize_for(isa)->add_products(a.data(), b.data(), k, n, n + 1, c.data());
        for (int64_t j = 0; j < n; ++j) {
          int32_t want = 7;
          for (int64_t i = 0; i < k; ++i) want += a[i] * b[i * (n + 1) + j];
          CHECK_EQ(c[j], want);
        }
      }
  });
}

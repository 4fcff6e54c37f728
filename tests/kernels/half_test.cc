// Every 16-bit float, and floats around every rounding boundary, against the scalar conversions.
#include <bit>

#include "base/float_formats.h"
#include "harness.h"
#include "kernels/cast/half.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {
bool same(float a, float b) { return std::isnan(a) ? std::isnan(b) : std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }
}  // namespace

TEST(half_conversions) {
  for_each_isa([](Isa isa) {
    const HalfKernels& k = *half_for(isa);
    std::vector<uint16_t> h(65536);
    for (int i = 0; i < 65536; ++i) h[i] = static_cast<uint16_t>(i);
    std::vector<float> f16(65536), bf16(65536);
    k.f16_to_f32(h.data(), f16.data(), 65536);
    k.bf16_to_f32(h.data(), bf16.data(), 65536);
    for (int i = 0; i < 65536; ++i) {
      CHECK(same(f16[i], to_float(Half{h[i]})));
      CHECK(same(bf16[i], to_float(BFloat16{h[i]})));
    }
    std::vector<float> x = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 65519.99f, 65520.0f, 3.4e38f, 1e-45f, 6e-8f, 2.9e-8f, 2.98e-8f};
    for (uint32_t u = 0; u < 0x7f800000u; u += 0x1000 - 1) {
      x.push_back(std::bit_cast<float>(u));
      x.push_back(-std::bit_cast<float>(u));
    }
    std::vector<uint16_t> a(x.size()), b(x.size());
    k.f32_to_f16(x.data(), a.data(), static_cast<int64_t>(x.size()));
    k.f32_to_bf16(x.data(), b.data(), static_cast<int64_t>(x.size()));
    for (size_t i = 0; i < x.size(); ++i) {
      if (std::isnan(x[i])) { CHECK(std::isnan(to_float(Half{a[i]})) && std::isnan(to_float(BFloat16{b[i]}))); continue; }
      CHECK_EQ(a[i], to_half(x[i]).bits);
      CHECK_EQ(b[i], to_bfloat16(x[i]).bits);
    }
    for (int64_t n = 0; n < 40; ++n) {
      std::vector<uint16_t> y(n + 1, 7);
      k.f32_to_f16(x.data(), y.data(), n);
      CHECK_EQ(y[n], 7);
      std::vector<float> z(n + 1, 7.0f);
      k.f16_to_f32(h.data(), z.data(), n);
      CHECK_EQ(z[n], 7.0f);
    }
  });
}

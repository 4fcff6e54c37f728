// Binary f32 kernels in every pairing against double, on every ISA; the typed loops' integer rules.
#include <limits>

#include "harness.h"
#include "kernels/pointwise/binary.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {

// Relative error in units of 2^-24; infinite where NaN-ness or an infinity differs.
double error(float got, double want) {
  const float rounded = static_cast<float>(want);
  if (got == rounded || (std::isnan(got) && std::isnan(rounded))) return 0;
  if (std::isnan(got) || std::isnan(rounded) || std::isinf(got) || std::isinf(rounded)) return INFINITY;
  return std::fabs(got - want) / std::max(std::fabs(want) * 0x1p-24, 0x1p-149);
}

std::vector<float> values(int64_t n, Binary f) {
  const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1.0f, -1.0f, 2.0f, 0.5f, -2.0f};
  std::vector<float> v = random_floats(static_cast<size_t>(n), f == Binary::kPow ? 0.1f : -4.0f, 4.0f);
  for (int64_t i = 0; i < n; i += 3) v[i] = special[integer(0, 9)];
  return v;
}

}  // namespace

TEST(binary_pairs_match_the_reference) {
  for_each_isa([](Isa isa) {
    for (int op = 0; op < kNumVectorBinary; ++op)
      for (int pair = 0; pair < kNumPairs; ++pair)
        for (int64_t n : {0, 1, 3, 7, 16, 17, 64, 208, 1000}) {
          const Pair p = static_cast<Pair>(pair);
          const bool rows = p == Pair::kVR || p == Pair::kRV;
          if (rows && n % 16) continue;
          const Binary f = static_cast<Binary>(op);
          const std::vector<float> a = values(p == Pair::kSV ? 1 : p == Pair::kRV ? 16 : n, f);
          const std::vector<float> b = values(p == Pair::kVS ? 1 : p == Pair::kVR ? 16 : n, f);
          std::vector<float> y(n + 1, 77.0f);
          binary_for(isa)->f32[op][pair](a.data(), b.data(), y.data(), n);
          for (int64_t i = 0; i < n; ++i) {
            const double want = reference::binary(f, a[p == Pair::kSV ? 0 : p == Pair::kRV ? i % 16 : i], b[p == Pair::kVS ? 0 : p == Pair::kVR ? i % 16 : i]);
            if (!(error(y[i], want) <= 4)) report(__FILE__, __LINE__, cat("op ", op, " pair ", pair, " n ", n, " at ", i, ": ", y[i], " instead of ", want));
          }
          CHECK_EQ(y[n], 77.0f);
        }
  });
}

TEST(power_by_a_scalar) {
  for_each_isa([](Isa isa) {
    for (float s : {0.0f, 1.0f, 2.0f, 3.0f, 4.0f, 0.5f, -0.5f, -1.0f, -2.0f, 2.5f, -3.0f, INFINITY}) {
      const std::vector<float> x = values(301, Binary::kAdd);
      std::vector<float> y(x.size());
      binary_for(isa)->f32[static_cast<int>(Binary::kPow)][static_cast<int>(Pair::kVS)](x.data(), &s, y.data(), 301);
      for (size_t i = 0; i < x.size(); ++i)
        if (!(error(y[i], std::pow(static_cast<double>(x[i]), static_cast<double>(s))) <= 4))
          report(__FILE__, __LINE__, cat(x[i], " ^ ", s, " = ", y[i]));
    }
  });
}

TEST(integer_arithmetic_is_defined) {
  const auto one = [](Binary f, auto a, auto b) {
    decltype(a) y{};
    binary_fn(f, dtype_of<decltype(a)>)(&a, &b, &y, 1);
    return y;
  };
  constexpr int32_t least = std::numeric_limits<int32_t>::min();
  CHECK_EQ(one(Binary::kDiv, 7, 0), 0);
  CHECK_EQ(one(Binary::kDiv, least, -1), least);
  CHECK_EQ(one(Binary::kDiv, -7, 2), -3);
  CHECK_EQ(one(Binary::kMod, least, -1), 0);
  CHECK_EQ(one(Binary::kMod, -7, 3), 2);
  CHECK_EQ(one(Binary::kMod, 7, -3), -2);
  CHECK_EQ(one(Binary::kMod, 7, 0), 0);
  CHECK_EQ(one(Binary::kFmod, -7, 3), -1);
  CHECK_EQ(one(Binary::kAdd, std::numeric_limits<int64_t>::max(), int64_t{1}), std::numeric_limits<int64_t>::min());
  CHECK_EQ(one(Binary::kMul, uint16_t{65535}, uint16_t{65535}), uint16_t{1});
  CHECK_EQ(one(Binary::kShl, uint8_t{255}, uint8_t{8}), uint8_t{0});
  CHECK_EQ(one(Binary::kShl, uint32_t{1}, uint32_t{31}), 0x80000000u);
  CHECK_EQ(one(Binary::kShr, int32_t{-8}, int32_t{1}), -4);
  CHECK_EQ(one(Binary::kShr, int32_t{-8}, int32_t{40}), -1);
  CHECK_EQ(one(Binary::kShr, uint64_t{8}, uint64_t{64}), uint64_t{0});
  CHECK_EQ(integer_power(3, 4), 81);
  CHECK_EQ(integer_power(-1, -3), -1);
  CHECK_EQ(integer_power(2, -1), 0);
  CHECK_EQ(integer_power(0, 0), 1);
}

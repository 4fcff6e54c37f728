// Vector maths against double, over dense samples of all floats, on every ISA.
#include <bit>

#include "harness.h"
#include "kernels/pointwise/unary.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {

// Every 997th float of both signs, the special ones, and a fine grid where functions bend.
const std::vector<float>& samples() {
  static const std::vector<float> v = [] {
    std::vector<float> s = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, std::bit_cast<float>(0x7f800001u), std::bit_cast<float>(0xffc00123u),
                            3.4028235e38f, -3.4028235e38f, 1.17549435e-38f, 1e-45f, -1e-45f, 88.72283f, 88.722839f, 88.7229f,
                            -87.33654f, -87.3366f, -103.9f, -104.1f, 1.0f, -1.0f, 0.5f, 1.5f, 2.5f, -2.5f};
    for (uint32_t u = 0; u < 0x7f800000u; u += 997)
      s.push_back(std::bit_cast<float>(u)), s.push_back(std::bit_cast<float>(u | 0x80000000u));
    for (double x = -110; x < 110; x += 0.00037) s.push_back(static_cast<float>(x));
    return s;
  }();
  return v;
}

// What x e^x loses where e^x is flushed to zero.
constexpr double kFlushed = 0x1p-119;

// Distance in units of the last place of the result; subnormal results count as zero. floor: the least unit, for
// functions whose relative error is not held near their zeros.
double ulps(float got, double want, double floor) {
  if (std::isnan(want)) return std::isnan(got) ? 0 : INFINITY;
  const float rounded = static_cast<float>(want);
  if (std::isinf(rounded) || std::isinf(got)) return rounded == got ? 0 : std::fabs(want) > 3.4028230e38 && std::fabs(got) > 3.4028230e38f && (got > 0) == (want > 0) ? 0 : INFINITY;
  const double unit = std::max(std::ldexp(1.0, std::max(std::ilogb(want), -126) - 23), floor);
  if (std::fabs(want) < 1.1754944e-38) return got == 0 ? 0 : std::fabs(got - want) / unit;
  if (std::fabs(want) < 1.1754950e-38 && got == 0) return 0;
  return std::fabs(got - want) / unit;
}

template <class Kernel, class Reference> void check(const char* name, Kernel kernel, Reference want, double bound, double floor = 0, double limit = INFINITY) {
  const std::vector<float>& x = samples();
  std::vector<float> y(x.size());
  kernel(x.data(), y.data(), static_cast<int64_t>(x.size()));
  double worst = 0;
  float at = 0, got = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::fabs(x[i]) > limit) continue;
    const double e = ulps(y[i], want(x[i]), floor);
    if (!(e <= worst)) worst = e, at = x[i], got = y[i];
  }
  if (std::getenv("TIERCEL_TEST_VERBOSE")) std::printf("%s %s: %.2f ulp at %.9g\n", scope().c_str(), name, worst, at);
  if (!(worst <= bound)) report(name, 0, cat(worst, " ulp at ", at, ": got ", got, ", want ", want(at)));
}

void check_unary(Isa isa, Unary f, const char* name, double bound, double floor = 0) {
  check(name, unary_for(isa)->f32[static_cast<int>(f)], [&](float x) { return reference::unary(f, x); }, bound, floor);
}

void check_activation(Isa isa, Activation a, double bound, double floor = 0) {
  const std::string name = cat("activation ", static_cast<int>(a.kind), "(", a.alpha, ",", a.beta, ")");
  check(name.c_str(), [&](const float* x, float* y, int64_t n) { unary_for(isa)->activate(a, x, y, n); },
        [&](float x) { return reference::activate(x, a); }, bound, floor);
}

}  // namespace

TEST(vector_math_is_accurate) {
  for_each_isa([](Isa isa) {
    check_unary(isa, Unary::kExp, "exp", 1);
    check_unary(isa, Unary::kLog, "log", 1);
    check_unary(isa, Unary::kErf, "erf", 1.2);
    check_unary(isa, Unary::kSin, "sin", 2, 0x1p-25);
    check_unary(isa, Unary::kCos, "cos", 2, 0x1p-25);
    for (Unary f : {Unary::kAbs, Unary::kNeg, Unary::kSqrt, Unary::kReciprocal, Unary::kFloor, Unary::kCeil, Unary::kRound, Unary::kSign,
                    Unary::kSquare})
      check_unary(isa, f, "exact", 0.5001);
  });
}

TEST(activations_are_accurate) {
  for_each_isa([](Isa isa) {
    check_activation(isa, {ActivationKind::kNone}, 0);
    check_activation(isa, {ActivationKind::kRelu}, 0);
    check_activation(isa, {ActivationKind::kLeakyRelu, 0.01f, 0}, 0.5001);
    check_activation(isa, {ActivationKind::kClip, -1.5f, 6.0f}, 0);
    check_activation(isa, {ActivationKind::kSigmoid}, 2.5);
    check_activation(isa, {ActivationKind::kTanh}, 2.5);
    check_activation(isa, {ActivationKind::kGelu}, 4, 0x1p-26);
    check_activation(isa, {ActivationKind::kGeluTanh}, 4, 0x1p-26);
    check_activation(isa, {ActivationKind::kSilu, 1, 0}, 2.5, kFlushed);
    check_activation(isa, {ActivationKind::kSilu, 1.702f, 0}, 4, 0x1p-28);
    check_activation(isa, {ActivationKind::kHardSigmoid, 0.2f, 0.5f}, 1, 0x1p-25);
    check_activation(isa, {ActivationKind::kHardSwish, 1.0f / 6, 0.5f}, 2.5, 0x1p-25);
    check_activation(isa, {ActivationKind::kElu, 1, 0}, 3);
    check_activation(isa, {ActivationKind::kElu, 0.7f, 0}, 4);
    check_activation(isa, {ActivationKind::kSelu, 1.6732632f, 1.050701f}, 4);
    check_activation(isa, {ActivationKind::kCelu, 1.3f, 0}, 4);
    check_activation(isa, {ActivationKind::kSoftplus}, 2.5);
    check_activation(isa, {ActivationKind::kSoftsign}, 2);
    check_activation(isa, {ActivationKind::kMish}, 4, kFlushed);
    check_activation(isa, {ActivationKind::kThresholdedRelu, 0.8f, 0}, 0);
    check_activation(isa, {ActivationKind::kAffine, 1.5f, 0}, 0.5001);
    check_activation(isa, {ActivationKind::kScaledTanh, 1.7159f, 0.6666667f}, 4);
  });
}

TEST(unary_tails_stay_inside) {
  for_each_isa([](Isa isa) {
    for (int64_t n = 0; n < 70; ++n) {
      std::vector<float> x = random_floats(n + 1), y(n + 1, 7.0f);
      unary_for(isa)->f32[static_cast<int>(Unary::kNeg)](x.data(), y.data(), n);
      for (int64_t i = 0; i < n; ++i) CHECK_EQ(y[i], -x[i]);
      CHECK_EQ(y[n], 7.0f);
    }
  });
}

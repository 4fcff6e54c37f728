#include "kernels/attention/attention.h"

#include <vector>

#include "harness.h"

using namespace tiercel;
using tiercel::testing::random_floats;

namespace {

// A whole head on the kernels, the products done in double, against the reference.
double head_error(Isa isa, int64_t q, int64_t k, int mask_kind, bool nan_to_zero, float poison) {
  const int64_t d = 3, dv = 5;
  const AttentionKernels& a = *attention_for(isa);
  auto Q = random_floats(q * d, -2, 2), K = random_floats(k * d, -2, 2), V = random_floats(k * dv), mask = random_floats(q * k);
  if (poison != 0 && k > 1) Q[0] = poison;
  const float scale = 0.7f;
  if (mask_kind == 1) for (int64_t i = 0; i < q; ++i) for (int64_t j = 0; j < k; ++j) mask[i * k + j] = mask[i * k];
  std::vector<double> Qd(Q.begin(), Q.end()), Kd(K.begin(), K.end()), Vd(V.begin(), V.end()), Md(mask.begin(), mask.end()), want(q * dv);
  reference::attention(Qd.data(), Kd.data(), Vd.data(), mask_kind ? Md.data() : nullptr, q, k, d, dv, scale, nan_to_zero, want.data());
  const int64_t row = k + 7;
  std::vector<float> s(q * row, 99.f), inverse(q), y(q * dv + 1, 99.f);
  for (int64_t i = 0; i < q; ++i)
    for (int64_t j = 0; j < k; ++j) {
      double t = 0;
      for (int64_t c = 0; c < d; ++c) t += Qd[i * d + c] * Kd[j * d + c];
      s[i * row + j] = static_cast<float>(t);
    }
  a.weights(s.data(), row, q, k, scale, mask_kind ? mask.data() : nullptr, k, mask_kind == 2, nan_to_zero, inverse.data());
  for (int64_t i = 0; i < q; ++i) CHECK_EQ(s[i * row + k], 99.f);
  for (int64_t i = 0; i < q; ++i)
    for (int64_t c = 0; c < dv; ++c) {
      double t = 0;
      for (int64_t j = 0; j < k; ++j) t += static_cast<double>(s[i * row + j]) * Vd[j * dv + c];
      y[i * dv + c] = static_cast<float>(t);
    }
  a.scale_rows(y.data(), dv, q, dv, inverse.data());
  CHECK_EQ(y[q * dv], 99.f);
  double worst = 0;
  for (int64_t i = 0; i < q * dv; ++i) {
    if (std::isnan(want[i]) || std::isnan(y[i])) { if (std::isnan(want[i]) != std::isnan(y[i])) return INFINITY; continue; }
    worst = std::max(worst, std::fabs(y[i] - want[i]));
  }
  return worst;
}

}  // namespace

TEST(attention_weights_match_the_reference) {
  testing::for_each_isa([](Isa isa) {
    for (int64_t k : {1, 2, 7, 15, 16, 17, 31, 32, 33, 100})
      for (int64_t q : {1, 3})
        for (int mask : {0, 1, 2}) CHECK_BELOW(head_error(isa, q, k, mask, false, 0), 3e-6);
  });
}

TEST(attention_weights_pass_on_or_clear_nan) {
  testing::for_each_isa([](Isa isa) {
    for (const float poison : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()})
      for (const bool clear : {false, true}) CHECK_BELOW(head_error(isa, 3, 40, 0, clear, poison), 3e-6);
    std::vector<float> s(20, -INFINITY), inverse(1);
    attention_for(isa)->weights(s.data(), 20, 1, 20, 1, nullptr, 0, 0, true, inverse.data());
    CHECK(inverse[0] == 0 && s[3] == 0);
  });
}

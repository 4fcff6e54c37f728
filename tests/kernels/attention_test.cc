#include "kernels/attention/attention.h"

#include <bit>
#include <vector>

#include "harness.h"

using namespace tiercel;
using tiercel::testing::random_floats;

namespace {

struct Case {
  int64_t q, k;
  int mask = 0;  // 1: one value for the row, 2: one an element
  float cap = 0, scale = 0.7f;
  int64_t block = 1000;  // keys at a time
  float poison = 0;      // in the first query
};

// A whole head on the kernels, the products done in double, against the reference.
double head_error(Isa isa, const Case& t) {
  const int64_t d = 3, dv = 5, q = t.q, k = t.k;
  const AttentionKernels& a = *attention_for(isa);
  auto Q = random_floats(q * d, -2, 2), K = random_floats(k * d, -2, 2), V = random_floats(k * dv), mask = random_floats(q * k);
  if (t.poison != 0 && k > 1) Q[0] = t.poison;
  if (t.mask == 1) for (int64_t i = 0; i < q; ++i) for (int64_t j = 0; j < k; ++j) mask[i * k + j] = mask[i * k];
  std::vector<double> Qd(Q.begin(), Q.end()), Kd(K.begin(), K.end()), Vd(V.begin(), V.end()), Md(mask.begin(), mask.end()), want(q * dv);
  reference::attention(Qd.data(), Kd.data(), Vd.data(), t.mask ? Md.data() : nullptr, q, k, d, dv, t.scale, t.cap, false, want.data());
  const int64_t row = k + 7;
  std::vector<float> s(q * row, 99.f), most(q, -INFINITY), sum(q), factor(q), y(q * dv + 1, 99.f);
  std::vector<double> total(q * dv);
  for (int64_t i = 0; i < q; ++i)
    for (int64_t j = 0; j < k; ++j) {
      double x = 0;
      for (int64_t c = 0; c < d; ++c) x += Qd[i * d + c] * Kd[j * d + c];
      s[i * row + j] = static_cast<float>(x);
    }
  for (int64_t first = 0; first < k; first += t.block) {
    const int64_t n = std::min(t.block, k - first);
    const float* const m = !t.mask ? nullptr : mask.data() + (t.mask == 2 ? first : 0);
    const bool changed = a.weights({s.data() + first, row, q, n, t.scale, t.cap, m, k, t.mask == 2, most.data(), sum.data(), factor.data()});
    for (int64_t i = 0; i < q; ++i) {
      if (!changed) CHECK_EQ(factor[i], 1.f);
      for (int64_t c = 0; c < dv; ++c) {
        double x = first ? total[i * dv + c] * factor[i] : 0;
        for (int64_t j = first; j < first + n; ++j) x += static_cast<double>(s[i * row + j]) * Vd[j * dv + c];
        total[i * dv + c] = x;
      }
    }
  }
  for (int64_t i = 0; i < q; ++i) CHECK_EQ(s[i * row + k], 99.f);
  for (int64_t i = 0; i < q * dv; ++i) y[i] = static_cast<float>(total[i]);
  for (float& x : sum) x = 1 / x;
  a.scale_rows(y.data(), dv, q, dv, sum.data());
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
      for (int64_t q : {1, 3, 40})
        for (int mask : {0, 1, 2})
          for (float cap : {0.f, 1.5f}) {
            CHECK_BELOW(head_error(isa, {q, k, mask, cap}), 3e-6);
            CHECK_BELOW(head_error(isa, {q, k, mask, cap, -0.7f}), 3e-6);
            CHECK_BELOW(head_error(isa, {q, k, mask, cap, 0.7f, 13}), 3e-6);
          }
  });
}

TEST(attention_weights_pass_on_nan) {
  testing::for_each_isa([](Isa isa) {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    for (const float poison : {nan, -nan, std::bit_cast<float>(0x7f800001u), std::numeric_limits<float>::infinity()})
      for (const int64_t block : {1000, 8})
        for (const int mask : {0, 2}) {
          Case t{3, 40, mask};
          t.block = block;
          t.poison = poison;
          CHECK_BELOW(head_error(isa, t), 3e-6);
        }
  });
}

TEST(attention_weights_of_rows_that_see_nothing) {
  testing::for_each_isa([](Isa isa) {
    const AttentionKernels& a = *attention_for(isa);
    float most = -INFINITY, sum = 0, factor = 9;
    std::vector<float> s(20, -INFINITY);
    CHECK(!a.weights({s.data(), 20, 1, 20, 1, 0, nullptr, 0, 0, &most, &sum, &factor}));
    CHECK(sum == 0 && factor == 1 && s[3] == 0 && s[19] == 0);
    std::vector<float> t(20, 2.f);  // and something in the block after it
    CHECK(a.weights({t.data(), 20, 1, 20, 1, 0, nullptr, 0, 0, &most, &sum, &factor}));
    CHECK(sum == 20 && factor == 0 && t[19] == 1 && most == 2);
    t.assign(20, -200.f);  // weights below the smallest float
    CHECK(!a.weights({t.data(), 20, 1, 20, 1, 0, nullptr, 0, 0, &most, &sum, &factor}));
    CHECK(sum == 20 && t[0] == 0);
  });
}

TEST(attention_weights_to_two_units_of_the_last_place) {
  testing::for_each_isa([](Isa isa) {
    std::vector<float> s{0}, x{0};
    for (float v = -87; v < 0; v += 0.0037f) s.push_back(v), x.push_back(v);
    float most = -INFINITY, sum = 0, factor = 0;
    const int64_t n = static_cast<int64_t>(s.size());
    attention_for(isa)->weights({s.data(), n, 1, n, 1, 0, nullptr, 0, 0, &most, &sum, &factor});
    CHECK_EQ(s[0], 1.f);
    for (int64_t j = 0; j < n; ++j) {
      const double want = std::exp(static_cast<double>(x[j])), unit = std::ldexp(1.0, std::max(std::ilogb(want), -126) - 23);
      CHECK_BELOW(std::fabs(s[j] - want) / unit, 2.1 - 1.23 * x[j]);  // log2 e is rounded (0.22 / 2^24), and so is the argument times it (1 / 2^24)
    }
  });
}

TEST(attention_masks_are_found_to_be_low) {
  testing::for_each_isa([](Isa isa) {
    const AttentionKernels& a = *attention_for(isa);
    for (int64_t n : {1, 7, 16, 33, 70}) {
      std::vector<float> x(3 * 80, 5.f);
      for (int64_t i = 0; i < 3; ++i) std::fill_n(x.begin() + i * 80, n, i == 1 ? -INFINITY : -1e31f);
      CHECK(a.all_below(x.data(), 80, 1, 3, n, -1e30f));
      CHECK(a.all_below(x.data(), 80, 0, 3, n, -1e30f));
      for (const float other : {-1e29f, std::numeric_limits<float>::quiet_NaN()}) {
        x[2 * 80 + n - 1] = other;
        CHECK(!a.all_below(x.data(), 80, 1, 3, n, -1e30f));
      }
    }
  });
}

TEST(attention_magnitudes) {
  testing::for_each_isa([](Isa isa) {
    const AttentionKernels& a = *attention_for(isa);
    for (int64_t n : {1, 7, 16, 33, 70}) {
      std::vector<float> x(2 * 80, 1e9f);
      for (int64_t i = 0; i < 2; ++i) std::fill_n(x.begin() + i * 80, n, -0.5f);
      CHECK_EQ(a.magnitude(x.data(), 80, 2, n), 0.5f);
      x[80 + n - 1] = -3;
      CHECK_EQ(a.magnitude(x.data(), 80, 2, n), 3.f);
      for (const float other : {-INFINITY, INFINITY, std::numeric_limits<float>::quiet_NaN()}) {
        x[n / 2] = other;
        CHECK_EQ(a.magnitude(x.data(), 80, 2, n), INFINITY);
      }
      CHECK_EQ(a.magnitude(x.data(), 80, 0, n), 0.f);
    }
  });
}

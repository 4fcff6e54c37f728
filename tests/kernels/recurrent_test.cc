#include "kernels/recurrent/recurrent.h"

#include "harness.h"

using namespace tiercel;
using tiercel::testing::random_floats;

namespace {

// One step of one block on a kernel, against the reference with unit matrices: W x is x itself, R h is r h with R = diag(r / h).
std::vector<Cell> cells() {
  std::vector<Cell> v(3);
  v[0].f.kind = ActivationKind::kSigmoid;
  v[0].g.kind = v[0].h.kind = ActivationKind::kTanh;
  v[1] = v[0];
  v[1].clip = 0.5f;
  v[1].input_forget = true;
  v[2].f = {ActivationKind::kHardSigmoid, 0.2f, 0.5f};
  v[2].g = {ActivationKind::kElu, 0.7f, 0};
  v[2].h.kind = ActivationKind::kSoftsign;
  return v;
}

// The reference run on a single step with hidden = 16, batch 1 and weights that reproduce x and r.
struct Expected { std::vector<double> h, c; };
Expected expect(RecurrentKind kind, const Cell& cell, const float* x, const float* r, const float* p, const float* c,
                const float* h_prev, bool before_reset) {
  const int gates = gates_of(kind), n = gates * kUnits;
  std::vector<double> w(n), R(n * kUnits, 0), b(2 * n, 0), in{1.0}, peep(3 * kUnits), h0(kUnits), c0(kUnits), y(kUnits), yh(kUnits), yc(kUnits);
  for (int j = 0; j < n; ++j) {
    w[j] = x[j];
    R[j * kUnits + j % kUnits] = r[j] / h_prev[j % kUnits];
  }
  for (int j = 0; p && j < 3 * kUnits; ++j) peep[j] = p[j];
  for (int j = 0; j < kUnits; ++j) { h0[j] = h_prev[j]; c0[j] = c ? c[j] : 0; }
  reference::recurrent({kind, 1, 1, 1, kUnits, false, before_reset, cell, in.data(), w.data(), R.data(), b.data(),
                        p ? peep.data() : nullptr, h0.data(), c0.data(), nullptr, y.data(), yh.data(), yc.data()});
  return {yh, yc};
}

double worst(const float* got, const std::vector<double>& want, int n = kUnits) {
  double e = 0;
  for (int i = 0; i < n; ++i) e = std::max(e, std::fabs(got[i] - want[i]));
  return e;
}

}  // namespace

TEST(cells_match_the_reference) {
  testing::for_each_isa([](Isa isa) {
    const RecurrentKernels& k = *recurrent_for(isa);
    for (const Cell& cell : cells())
      for (int n : {1, 5, 8, 15, 16}) {
        const auto x = random_floats(4 * kUnits, -2, 2), r = random_floats(4 * kUnits, -2, 2), p = random_floats(3 * kUnits);
        auto h_prev = random_floats(kUnits, 0.1f, 1), c = random_floats(kUnits, -2, 2);
        std::vector<float> h(kUnits), y(kUnits + 1, 77.f);
        Expected e = expect(RecurrentKind::kRnn, cell, x.data(), r.data(), nullptr, nullptr, h_prev.data(), false);
        k.rnn(cell, x.data(), r.data(), h.data(), y.data(), n);
        CHECK_BELOW(worst(h.data(), e.h), 2e-6);
        CHECK_BELOW(worst(y.data(), e.h, n), 2e-6);
        CHECK_EQ(y[n], 77.f);
        for (const float* peep : {static_cast<const float*>(nullptr), p.data()}) {
          auto c1 = c;
          e = expect(RecurrentKind::kLstm, cell, x.data(), r.data(), peep, c.data(), h_prev.data(), false);
          k.lstm(cell, x.data(), r.data(), peep, c1.data(), h.data(), nullptr, n, nullptr);
          CHECK_BELOW(worst(h.data(), e.h), 3e-6);
          CHECK_BELOW(worst(c1.data(), e.c), 4e-6);
        }
        const std::vector<float> zero(kUnits, 0.f);
        e = expect(RecurrentKind::kGru, cell, x.data(), r.data(), nullptr, nullptr, h_prev.data(), true);
        k.gru(cell, x.data(), r.data(), zero.data(), h_prev.data(), h.data(), y.data(), n);
        CHECK_BELOW(worst(h.data(), e.h), 3e-6);
        e = expect(RecurrentKind::kGru, cell, x.data(), r.data(), nullptr, nullptr, h_prev.data(), false);
        auto q = r;
        std::vector<float> sh(kUnits), rn(kUnits);
        k.gru_gates(cell, x.data(), q.data(), h_prev.data(), sh.data());
        for (int i = 0; i < kUnits; ++i) rn[i] = r[2 * kUnits + i] / h_prev[i] * sh[i];
        k.gru_rest(cell, x.data(), q.data(), rn.data(), h_prev.data(), h.data(), y.data(), n);
        CHECK_BELOW(worst(h.data(), e.h), 5e-6);
      }
  });
}

TEST(kept_gates_make_the_state) {
  testing::for_each_isa([](Isa isa) {
    for (int n : {1, 7, 16}) {
      const auto x = random_floats(4 * kUnits, -2, 2), r = random_floats(4 * kUnits, -2, 2);
      auto c = random_floats(kUnits, -2, 2);
      const auto before = c;
      constexpr int kStride = kUnits + 3;
      std::vector<float> h(kUnits), gates(4 * kStride, 77.f), cells_now(kUnits + 1, 77.f);
      const LstmKept kept{gates.data(), kStride, cells_now.data()};
      recurrent_for(isa)->lstm(cells()[0], x.data(), r.data(), nullptr, c.data(), h.data(), nullptr, n, &kept);
      for (int j = 0; j < n; ++j) {
        const auto gate = [&](int k) { return static_cast<double>(gates[k * kStride + j]); };
        CHECK_BELOW(std::fabs(gate(2) * before[j] + gate(0) * gate(3) - c[j]), 1e-6);
        CHECK_BELOW(std::fabs(gate(1) * std::tanh(static_cast<double>(c[j])) - h[j]), 1e-6);
        CHECK_EQ(cells_now[j], c[j]);
      }
      for (int k = 0; k < 4; ++k) CHECK_EQ(gates[k * kStride + n], 77.f);
      CHECK_EQ(cells_now[n], 77.f);
    }
  });
}

TEST(lstm_back_is_its_formula) {
  testing::for_each_isa([](Isa isa) {
    for (int n : {1, 3, 16, 37})
      for (int form = 0; form < 8; ++form) {
        const int stride = n + 2;
        const auto gates = random_floats(4 * stride, 0.05f, 0.95f), prev = random_floats(n, -2, 2), now = random_floats(n, -2, 2);
        const auto p = random_floats(3 * stride, -1, 1), dy = random_floats(n, -1, 1);
        auto dh = random_floats(n, -1, 1), dc = random_floats(n, -1, 1);
        const auto dh0 = dh, dc0 = dc;
        std::vector<float> dx(4 * stride, 77.f);
        const bool has_c = form & 1, has_p = form & 2, has_dy = form & 4;
        recurrent_for(isa)->lstm_back({gates.data(), has_c ? prev.data() : nullptr, now.data(), has_p ? p.data() : nullptr, has_dy ? dy.data() : nullptr,
                                       dh.data(), dc.data(), dx.data(), stride}, n);
        for (int j = 0; j < n; ++j) {
          const auto gate = [&](int k) { return static_cast<double>(gates[k * stride + j]); };
          const auto peep = [&](int k) { return has_p ? static_cast<double>(p[k * stride + j]) : 0.0; };
          const double i = gate(0), o = gate(1), f = gate(2), g = gate(3), t = std::tanh(static_cast<double>(now[j]));
          const double h = dh0[j] + (has_dy ? dy[j] : 0.0), d_o = h * t * o * (1 - o), c = dc0[j] + h * o * (1 - t * t) + peep(1) * d_o;
          const double di = c * g * i * (1 - i), df = has_c ? c * prev[j] * f * (1 - f) : 0, dg = c * i * (1 - g * g);
          const double want[] = {di, d_o, df, dg};
          for (int k = 0; k < 4; ++k) CHECK_BELOW(std::fabs(dx[k * stride + j] - want[k]), 2e-6);
          CHECK_BELOW(std::fabs(dc[j] - (c * f + peep(0) * di + peep(2) * df)), 4e-6);
          CHECK_EQ(dh[j], 0.f);
        }
        for (int k = 0; k < 4; ++k) CHECK_EQ(dx[k * stride + n], 77.f);
      }
  });
}

TEST(cells_pass_on_nan) {
  testing::for_each_isa([](Isa isa) {
    std::vector<float> x(64, 0.f), r(64, 0.f), c(16, 1.f), h(16);
    x[3] = NAN;
    recurrent_for(isa)->lstm(cells()[0], x.data(), r.data(), nullptr, c.data(), h.data(), nullptr, 16, nullptr);
    CHECK(std::isnan(h[3]) && std::isnan(c[3]) && !std::isnan(h[2]));
  });
}

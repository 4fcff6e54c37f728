#include <algorithm>
#include <vector>

#include "kernels/recurrent/recurrent.h"

namespace tiercel::reference {

void recurrent(const Recurrent& a) {
  const int gates = gates_of(a.kind);
  const int64_t H = a.hidden, N = gates * H;
  std::vector<double> h(a.batch * H, 0), c(a.batch * H, 0), x(N), r(N), next(H);
  if (a.initial_h) std::copy_n(a.initial_h, h.size(), h.begin());
  if (a.initial_c) std::copy_n(a.initial_c, c.size(), c.begin());
  std::fill_n(a.y, a.steps * a.batch * H, 0.0);
  auto act = [&](const Activation& f, double v) {
    if (a.cell.clip > 0) v = std::clamp(v, -static_cast<double>(a.cell.clip), static_cast<double>(a.cell.clip));
    return activate(v, f);
  };
  auto dot = [](const double* u, const double* v, int64_t n) {
    double s = 0;
    for (int64_t i = 0; i < n; ++i) s += u[i] * v[i];
    return s;
  };
  for (int64_t b = 0; b < a.batch; ++b) {
    double *hb = &h[b * H], *cb = &c[b * H];
    const int64_t length = a.lengths ? a.lengths[b] : a.steps;
    for (int64_t s = 0; s < length; ++s) {
      const int64_t t = a.reverse ? length - 1 - s : s;
      const double* in = a.x + (t * a.batch + b) * a.inputs;
      for (int64_t j = 0; j < N; ++j) {
        x[j] = dot(a.w + j * a.inputs, in, a.inputs) + (a.b ? a.b[j] : 0);
        r[j] = dot(a.r + j * H, hb, H) + (a.b ? a.b[N + j] : 0);
      }
      if (a.kind == RecurrentKind::kRnn) {
        for (int64_t j = 0; j < H; ++j) next[j] = act(a.cell.f, x[j] + r[j]);
      } else if (a.kind == RecurrentKind::kLstm) {
        for (int64_t j = 0; j < H; ++j) {
          auto gate = [&](int g) { return x[g * H + j] + r[g * H + j]; };
          auto peep = [&](int g, double cell) { return a.p ? a.p[g * H + j] * cell : 0; };
          const double i = act(a.cell.f, gate(0) + peep(0, cb[j]));
          const double f = a.cell.input_forget ? 1 - i : act(a.cell.f, gate(2) + peep(2, cb[j]));
          cb[j] = f * cb[j] + i * act(a.cell.g, gate(3));
          next[j] = act(a.cell.f, gate(1) + peep(1, cb[j])) * activate(cb[j], a.cell.h);
        }
      } else {
        std::vector<double> z(H), reset(H);
        for (int64_t j = 0; j < H; ++j) {
          z[j] = act(a.cell.f, x[j] + r[j]);
          reset[j] = act(a.cell.f, x[H + j] + r[H + j]);
        }
        std::vector<double> gated(H);
        for (int64_t j = 0; j < H; ++j) gated[j] = reset[j] * hb[j];
        for (int64_t j = 0; j < H; ++j) {
          const double bias = a.b ? a.b[N + 2 * H + j] : 0;
          const double n = a.linear_before_reset ? reset[j] * r[2 * H + j] : dot(a.r + (2 * H + j) * H, gated.data(), H) + bias;
          next[j] = (1 - z[j]) * act(a.cell.g, x[2 * H + j] + n) + z[j] * hb[j];
        }
      }
      std::copy(next.begin(), next.end(), hb);
      std::copy(next.begin(), next.end(), a.y + (t * a.batch + b) * H);
    }
  }
  std::copy(h.begin(), h.end(), a.y_h);
  if (a.y_c) std::copy(c.begin(), c.end(), a.y_c);
}

}  // namespace tiercel::reference

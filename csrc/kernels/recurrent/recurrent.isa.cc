#include "kernels/recurrent/recurrent.h"

#include "simd/activation.h"

namespace tiercel::TIERCEL_ISA {
namespace {

// Sixteen units: as many registers as that takes.
constexpr int kRegs = kUnits / kLanes;
struct U { F v[kRegs]; };

inline U get(const float* p) {
  U u;
  for (int i = 0; i < kRegs; ++i) u.v[i] = load(p + i * kLanes);
  return u;
}
inline void put(float* p, const U& u) {
  for (int i = 0; i < kRegs; ++i) store(p + i * kLanes, u.v[i]);
}
inline void put(float* p, const U& u, int n) {
  for (int i = 0; i < kRegs && n > 0; ++i, n -= kLanes) {
    if (n >= kLanes) store(p + i * kLanes, u.v[i]);
    else store(p + i * kLanes, u.v[i], n);
  }
}
#define TIERCEL_EACH(expr) U u; for (int i = 0; i < kRegs; ++i) u.v[i] = (expr); return u
inline U operator+(const U& a, const U& b) { TIERCEL_EACH(a.v[i] + b.v[i]); }
inline U operator*(const U& a, const U& b) { TIERCEL_EACH(a.v[i] * b.v[i]); }
inline U one_minus(const U& a) { TIERCEL_EACH(set1(1.0f) - a.v[i]); }
inline U clamp(const U& a, float c) { TIERCEL_EACH(min(set1(c), max(set1(-c), a.v[i]))); }
inline U sigmoids(const U& a) { TIERCEL_EACH(sigmoid(a.v[i])); }
inline U tanhs(const U& a) { TIERCEL_EACH(tanh(a.v[i])); }
#undef TIERCEL_EACH

inline U act(const Activation& a, const Cell& cell, U u) {
  if (cell.clip > 0) u = clamp(u, cell.clip);
  if (a.kind == ActivationKind::kSigmoid) return sigmoids(u);
  if (a.kind == ActivationKind::kTanh) return tanhs(u);
  float t[kUnits];
  put(t, u);
  activate(a, t, t, kUnits);
  return get(t);
}

void rnn(const Cell& cell, const float* x, const float* r, float* h, float* y, int n) {
  const U u = act(cell.f, cell, get(x) + get(r));
  put(h, u);
  if (y) put(y, u, n);
}

void lstm(const Cell& cell, const float* x, const float* r, const float* p, float* c, float* h, float* y, int n,
          const LstmKept* kept) {
  const U before = get(c);
  U i = get(x) + get(r), f = get(x + 2 * kUnits) + get(r + 2 * kUnits);
  if (p) {
    i = i + get(p) * before;
    f = f + get(p + 2 * kUnits) * before;
  }
  i = act(cell.f, cell, i);
  f = cell.input_forget ? one_minus(i) : act(cell.f, cell, f);
  const U g = act(cell.g, cell, get(x + 3 * kUnits) + get(r + 3 * kUnits));
  const U now = f * before + i * g;
  U o = get(x + kUnits) + get(r + kUnits);
  if (p) o = o + get(p + kUnits) * now;
  Cell unclipped = cell;  // the cell state itself is not clamped
  unclipped.clip = 0;
  o = act(cell.f, cell, o);
  const U out = o * act(cell.h, unclipped, now);
  if (kept) {
    const U* const gates[] = {&i, &o, &f, &g};
    for (int k = 0; k < 4; ++k) put(kept->gates + k * kept->stride, *gates[k], n);
    put(kept->c, now, n);
  }
  put(c, now);
  put(h, out);
  if (y) put(y, out, n);
}

// One register of units; `in(p)` reads and `out(p, v)` writes it, all lanes or those that there are.
template <class In, class Out> inline void lstm_back_units(const LstmBack& a, int64_t u, const In& in, const Out& out) {
  const F one = set1(1.0f);
  const auto gate = [&](const float* from, int k) { return in(from + k * a.stride + u); };
  const F i = gate(a.gates, 0), o = gate(a.gates, 1), f = gate(a.gates, 2), g = gate(a.gates, 3);
  F dh = in(a.dh + u);
  if (a.dy) dh = dh + in(a.dy + u);
  const F t = tanh(in(a.c + u)), d_o = dh * t * (o * (one - o));
  F dc = fma(dh * o, fnma(t, t, one), in(a.dc + u));
  if (a.p) dc = fma(gate(a.p, 1), d_o, dc);
  const F di = dc * g * (i * (one - i)), dg = dc * i * fnma(g, g, one);
  const F df = a.c_prev ? dc * in(a.c_prev + u) * (f * (one - f)) : zero();
  F next = dc * f;
  if (a.p) next = fma(gate(a.p, 0), di, fma(gate(a.p, 2), df, next));
  out(a.dx + u, di);
  out(a.dx + a.stride + u, d_o);
  out(a.dx + 2 * a.stride + u, df);
  out(a.dx + 3 * a.stride + u, dg);
  out(a.dc + u, next);
  out(a.dh + u, zero());
}

void lstm_back(const LstmBack& a, int64_t n) {
  int64_t u = 0;
  for (; u + kLanes <= n; u += kLanes)
    lstm_back_units(a, u, [](const float* p) { return load(p); }, [](float* p, F v) { store(p, v); });
  if (const int64_t rest = n - u; rest > 0)
    lstm_back_units(a, u, [rest](const float* p) { return load(p, rest); }, [rest](float* p, F v) { store(p, v, rest); });
}

inline void gru_end(const Cell& cell, const U& z, U sum, const float* h_prev, float* h, float* y, int n) {
  const U fresh = act(cell.g, cell, sum);
  const U out = one_minus(z) * fresh + z * get(h_prev);
  put(h, out);
  if (y) put(y, out, n);
}

void gru(const Cell& cell, const float* x, const float* r, const float* b, const float* h_prev, float* h, float* y, int n) {
  const U z = act(cell.f, cell, get(x) + get(r)), s = act(cell.f, cell, get(x + kUnits) + get(r + kUnits));
  gru_end(cell, z, get(x + 2 * kUnits) + s * (get(r + 2 * kUnits) + get(b)), h_prev, h, y, n);
}

void gru_gates(const Cell& cell, const float* x, float* r, const float* h_prev, float* sh) {
  const U s = act(cell.f, cell, get(x + kUnits) + get(r + kUnits));
  put(sh, s * get(h_prev));
  put(r, act(cell.f, cell, get(x) + get(r)));
}

void gru_rest(const Cell& cell, const float* x, const float* z, const float* r_n, const float* h_prev, float* h, float* y, int n) {
  gru_end(cell, get(z), get(x + 2 * kUnits) + get(r_n), h_prev, h, y, n);
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(RecurrentKernels, recurrent){&rnn, &lstm, &lstm_back, &gru, &gru_gates, &gru_rest};

}  // namespace tiercel::TIERCEL_ISA

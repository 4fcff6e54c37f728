// Cells of recurrent networks: what stands after the two matrix products of a time step.
//
//   x, r   the products W x_t (with all biases that may be added there) and R h_{t-1}, 16 units a gate: [gate][16]
//   RNN    h = f(x + r)
//   GRU    z = f(xz + rz), s = f(xr + rr), n = g(xn + s (rn + b)) or g(xn + r(s h)), h = (1 - z) n + z h_prev
//   LSTM   i = f(xi + ri + Pi c_prev), f likewise, g = g(xc + rc), c = f c_prev + i g, o = f(xo + ro + Po c), h = o h(c)
// as the ONNX operators define them; every sum is clamped to [-clip, clip] before its activation.
#pragma once
#include <cstdint>

#include "kernels/activation.h"
#include "kernels/dispatch.h"

namespace tiercel {

inline constexpr int kUnits = 16;  // hidden units of a block

struct Cell {
  Activation f, g, h;
  float clip = 0;             // 0: none
  bool input_forget = false;  // LSTM: f = 1 - i
};

// What a step of training keeps of an LSTM's block: the activated gates i, o, f, g, each `stride` floats after the other, and the new c.
struct LstmKept {
  float* gates;
  int64_t stride;
  float* c;
};

// Backwards through the cells of n units of one row, of an LSTM of sigmoids and tanhs without a clip. With dh' = dh + dy and t = tanh(c):
//   do = dh' t o', dc' = dc + dh' o (1 - t^2) + Po do, di = dc' g i', df = dc' c_prev f', dg = dc' i (1 - g^2), where i' = i (1 - i) and so on;
//   dc = dc' f + Pi di + Pf df, dh = 0
struct LstmBack {
  const float *gates, *c_prev, *c, *p, *dy;  // c_prev (zero), p and dy may be null; gates, p and dx have `stride` from gate to gate
  float *dh, *dc, *dx;                       // dh and dc are read and written
  int64_t stride;
};

struct RecurrentKernels {
  // One block of units of one row. `n` <= 16 units exist: y gets those alone, h and c all 16. y may be null.
  void (*rnn)(const Cell& cell, const float* x, const float* r, float* h, float* y, int n);
  // Gates i, o, f, c. `p`: peepholes [3][16] i, o, f, or null. c is read and written. kept may be null; it gets n units.
  void (*lstm)(const Cell& cell, const float* x, const float* r, const float* p, float* c, float* h, float* y, int n,
               const LstmKept* kept);
  void (*lstm_back)(const LstmBack& a, int64_t n);
  // Gates z, r, n. The whole cell with linear_before_reset: `b`, the recurrent bias of n, may not be null.
  void (*gru)(const Cell& cell, const float* x, const float* r, const float* b, const float* h_prev, float* h, float* y, int n);
  // Without it: first z into r[0], s h_prev into sh; then, with r_n = R (s h_prev), the rest.
  void (*gru_gates)(const Cell& cell, const float* x, float* r, const float* h_prev, float* sh);
  void (*gru_rest)(const Cell& cell, const float* x, const float* z, const float* r_n, const float* h_prev, float* h, float* y, int n);
};
TIERCEL_KERNEL_TABLE(RecurrentKernels, recurrent)

enum class RecurrentKind { kRnn, kGru, kLstm };
inline int gates_of(RecurrentKind k) { return k == RecurrentKind::kRnn ? 1 : k == RecurrentKind::kGru ? 3 : 4; }

namespace reference {

// One direction of the ONNX operator, as its text says. Row-major; null where an optional input or output is left out.
struct Recurrent {
  RecurrentKind kind;
  int64_t steps, batch, inputs, hidden;
  bool reverse = false, linear_before_reset = false;
  Cell cell;
  const double *x;                                // [steps, batch, inputs]
  const double *w, *r, *b, *p;                    // [gates hidden, inputs], [gates hidden, hidden], [2 gates hidden], [3 hidden]
  const double *initial_h, *initial_c;            // [batch, hidden]
  const int64_t* lengths;                         // [batch]
  double *y, *y_h, *y_c;                          // [steps, batch, hidden], [batch, hidden] x 2; never null
};
void recurrent(const Recurrent& a);

}  // namespace reference
}  // namespace tiercel

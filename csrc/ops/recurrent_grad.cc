// What goes back through RNN, GRU and LSTM, beside the large products that the rule (recurrent_rule.cc) writes as MatMul nodes.
// "Rows" are those of X: time and batch, or batch and time where layout = 1.
//   ai.tiercel.RecurrentGrad (x, r?, rn?, R, previous, dY?, dY_h?, dY_c?, lengths?, initial_c?, P?, c?) -> dx, dr, dh0, dc0, dP
//     x [directions, rows, gates hidden]: what stands before the activations (`done` = 1: their results, and c, [directions, rows, hidden], the
//     states of an LSTM's cells); of a GRU the part W x alone, and r
//     that of R h with its bias, rn [directions, rows, hidden] that of R (s h) where linear_before_reset = 0
//     dx: of x; dr: of r where linear_before_reset = 1 (else it is dx)
// The walk goes backwards through time. Rows of the batch do not meet there, so threads take rows, and no barrier is needed; where R is too
// large for a core's cache they share the hidden units instead. Either way each sum is the same.
#include <cstring>

#include "kernels/gemm/gemm.h"
#include "ops/numeric.h"
#include "ops/recurrent.h"
#include "ops/recurrent_cells.h"

namespace tiercel {
namespace {

using namespace recurrent_op;

enum GradInput { kSums, kStateSums, kLateSums, kWeights, kPrevious, kDy, kDyH, kDyC, kSteps, kCell, kPeep, kKept };
enum GradOutput { kDx, kDr, kDh0, kDc0, kDp };

RecurrentKind grad_kind(const Node& node) {
  const std::string kind = node.attr_string("kind", "RNN");
  return kind == "LSTM" ? RecurrentKind::kLstm : kind == "GRU" ? RecurrentKind::kGru : RecurrentKind::kRnn;
}

void infer_grad(InferContext& ctx) {
  check_real(ctx, kSums);
  const DType t = ctx.dtype(kSums);
  for (int i = 0; i < ctx.num_inputs(); ++i)
    if (ctx.has_input(i) && i != kSteps) ctx.check(ctx.dtype(i) == t, "all inputs should have one type");
  if (ctx.has_input(kSteps)) ctx.check(ctx.dtype(kSteps) == DType::kInt32, "the lengths should be int32");
  for (int i : {kWeights, kPrevious}) ctx.input(i);
  for (int i : {kDx, kDr}) ctx.set_output(i, ctx.type(kSums));
  for (int i : {kDh0, kDc0, kDp}) ctx.set_output(i, Type::tensor(t));
  if (!ctx.ranked(kPrevious)) return;
  const Shape& h = ctx.shape(kPrevious);
  ctx.check(h.rank() == 4, "the states should have 4 axes, got ", h);
  const bool batch_first = ctx.node.attr_int("layout", 0) == 1;
  const Shape state = batch_first ? Shape{h[1], h[0], h[3]} : Shape{h[0], h[2], h[3]};
  for (int i : {kDh0, kDc0}) ctx.set_output(i, t, state);
  ctx.set_output(kDp, t, {h[0], is_symbol(h[3]) ? ctx.fresh() : 3 * h[3]});
}

// A [k, n] matrix that every step multiplies by: packed where the kernel wants it so, and cut by columns.
struct Factor {
  int64_t at = 0, k = 0, first = 0;  // place in the workspace; its rows are those of R from `first` on
};

template <class T> class RecurrentGrad final : public Kernel {
 public:
  explicit RecurrentGrad(PrepareContext& ctx) : kind_(grad_kind(ctx.node)) {
    const Shape& h = ctx.shape(kPrevious);
    const bool batch_first = ctx.node.attr_int("layout", 0) == 1;
    e_ = {h[batch_first ? 2 : 1], h[batch_first ? 1 : 2], h[3], h[0], batch_first, ctx.node.attr_string("direction", "forward") == "reverse"};
    gates_ = gates_of(kind_);
    wide_ = gates_ * e_.hidden;
    late_ = kind_ == RecurrentKind::kGru && ctx.node.attr_int("linear_before_reset", 0) == 0;
    apart_ = kind_ == RecurrentKind::kGru && !late_;
    done_ = ctx.node.attr_int("done", 0) != 0;
    const Shape all{e_.directions, e_.rows(), wide_};
    const auto expect = [&](int i, const Shape& s, const char* what) {
      if (ctx.has_input(i) && ctx.shape(i).count() != s.count()) ctx.fail(what, " should have the extents ", s, ", got ", ctx.shape(i));
    };
    if (e_.directions < 1 || e_.directions > 2) ctx.fail("there should be 1 or 2 directions, got ", e_.directions);
    expect(kSums, all, "x");
    expect(kStateSums, all, "r");
    expect(kLateSums, {e_.directions, e_.rows(), e_.hidden}, "rn");
    expect(kWeights, {e_.directions, wide_, e_.hidden}, "R");
    expect(kDy, {e_.steps, e_.directions, e_.batch, e_.hidden}, "dY");
    for (int i : {kDyH, kDyC, kCell}) expect(i, {e_.directions, e_.batch, e_.hidden}, i == kDyH ? "dY_h" : i == kDyC ? "dY_c" : "initial_c");
    expect(kSteps, {e_.batch}, "lengths");
    expect(kPeep, {e_.directions, 3 * e_.hidden}, "P");
    if (kind_ == RecurrentKind::kGru && !ctx.has_input(kStateSums)) ctx.fail("the gradient of a GRU requires r");
    if (late_ && !ctx.has_input(kLateSums)) ctx.fail("the gradient of a GRU with linear_before_reset = 0 requires rn");
    for (int d = 0; d < e_.directions; ++d) {
      cell_[d] = cell_of(ctx.node, kind_, d);
      const Cell& c = cell_[d];
      const bool enough = c.clip <= 0 && activation_grad_reads_result(c.f) && (kind_ == RecurrentKind::kRnn || activation_grad_reads_result(c.g));
      if (done_ && (kind_ == RecurrentKind::kGru || !enough)) ctx.fail("results of activations do not say enough");
      plain_[d] = c.f.kind == ActivationKind::kSigmoid && c.g.kind == ActivationKind::kTanh && c.h.kind == ActivationKind::kTanh && !c.input_forget;
    }
    if (done_ && kind_ == RecurrentKind::kLstm && !ctx.has_input(kKept)) ctx.fail("the gradient of an LSTM whose gates are given requires c");
    expect(kKept, {e_.directions, e_.rows(), e_.hidden}, "c");
    for (int i = 0; i < 5; ++i) gives_[i] = ctx.has_output(i);
    int64_t floats = 0;
    const auto take = [&](int64_t n) { const int64_t at = floats; floats += round_up(n, 16); return at; };
    const int64_t state = e_.directions * e_.batch * e_.hidden;
    at_h_ = take(state), at_c_ = take(state), at_late_ = take(late_ ? state : 0);
    at_cells_ = take(kind_ == RecurrentKind::kLstm && !done_ ? e_.rows() * e_.directions * e_.hidden : 0);
    at_dx_ = take(gives_[kDx] ? 0 : e_.directions * e_.rows() * wide_);
    at_dr_ = take(apart_ && !gives_[kDr] ? e_.directions * e_.rows() * wide_ : 0);
    early_.k = late_ ? 2 * e_.hidden : wide_;
    reset_.k = late_ ? e_.hidden : 0, reset_.first = 2 * e_.hidden;
    if constexpr (std::is_same_v<T, float>)
      for (Factor* f : {&early_, &reset_}) f->at = take(e_.directions * packed(*f));
    ctx.workspace(floats * static_cast<int64_t>(sizeof(T)));
    step_flops_ = 2.0 * static_cast<double>(e_.batch * wide_) * static_cast<double>(e_.hidden);
    const double cells = static_cast<double>(e_.directions * e_.rows() * wide_);
    ctx.cost(static_cast<double>(e_.directions * e_.steps) * step_flops_ + 40 * cells, 4.0 * sizeof(T) * cells);
  }

  void run(const Args& a, Worker& w) const override {
    if constexpr (std::is_same_v<T, float>) {
      pack(a, w, early_);
      if (late_) pack(a, w, reset_);
      w.barrier();
    }
    const int32_t* lengths = a.in<int32_t>(kSteps);
    const int64_t D = e_.directions, B = e_.batch, H = e_.hidden;
    const bool large = wide_ * H * static_cast<int64_t>(sizeof(T)) > kOwnCache || D * B < w.count();
    if (large && step_flops_ > kSharedStep && w.count() > 1) {  // units are shared
      const int64_t panel = gemm().panel, panels = ceil_div(H, panel);
      const int64_t u0 = std::min(H, panels * w.index() / w.count() * panel), u1 = std::min(H, panels * (w.index() + 1) / w.count() * panel);
      for (int64_t d = 0; d < D; ++d) walk(Walk{a, w, lengths, d, 0, B, u0, u1});
    } else {  // rows are
      Worker one = alone();
      const int64_t first = D * B * w.index() / w.count(), last = D * B * (w.index() + 1) / w.count();
      for (int64_t d = 0; d < D; ++d) {
        const int64_t b0 = std::clamp<int64_t>(first - d * B, 0, B), b1 = std::clamp<int64_t>(last - d * B, 0, B);
        if (b0 < b1) walk(Walk{a, one, lengths, d, b0, b1, 0, H});
      }
    }
    if (!gives_[kDp] || kind_ != RecurrentKind::kLstm) return;
    w.barrier();
    peepholes(a, w, lengths);
  }

 private:
  static constexpr double kSharedStep = 60e3;         // FLOPs of a step below which sharing it costs more than it gives
  static constexpr int64_t kOwnCache = 1 << 20;       // bytes of R that a core's cache holds

  int64_t packed(const Factor& f) const { return gemm_packed_floats(gemm(), f.k, e_.hidden); }
  void pack(const Args& a, Worker& w, const Factor& f) const {
    const int64_t panel = gemm().panel, H = e_.hidden, panels = ceil_div(H, panel);
    w.parallel_for(e_.directions * panels, 1, [&](int64_t i, int64_t) {
      const int64_t d = i / panels, first = i % panels * panel;
      gemm().pack_b(a.in<float>(kWeights) + (d * wide_ + f.first) * H, H, 1, f.k, H, first, std::min(H, first + panel), a.workspace<float>() + f.at + d * packed(f));
    });
  }

  // One direction's steps, for some rows of the batch and some units.
  struct Walk {
    const Args& a;
    Worker& w;
    const int32_t* lengths;
    int64_t d, b0, b1, u0, u1;
  };

  T* place(const Walk& k, int64_t at, int64_t b) const { return k.a.template workspace<T>() + at + (k.d * e_.batch + b) * e_.hidden; }
  T* dx(const Walk& k, int64_t row) const {
    return (gives_[kDx] ? k.a.template out<T>(kDx) : k.a.template workspace<T>() + at_dx_) + (k.d * e_.rows() + row) * wide_;
  }
  T* dr(const Walk& k, int64_t row) const {
    if (!apart_) return dx(k, row);
    return (gives_[kDr] ? k.a.template out<T>(kDr) : k.a.template workspace<T>() + at_dr_) + (k.d * e_.rows() + row) * wide_;
  }
  const T* cells(const Walk& k, int64_t row) const {
    return (done_ ? k.a.template in<T>(kKept) : k.a.template workspace<T>() + at_cells_) + (k.d * e_.rows() + row) * e_.hidden;
  }

  // c[rows b0 to b1][units] (+)= a R; rows of `a` are `stride` apart.
  void product(const Walk& k, const Factor& f, const T* from, int64_t stride, int64_t rows, T* to, bool accumulate) const {
    if (k.u0 >= k.u1 || rows == 0) return;
    const int64_t H = e_.hidden;
    if constexpr (std::is_same_v<T, float>) {
      const float* b = k.a.template workspace<float>() + f.at + k.d * packed(f) + f.k * k.u0;
      GemmArgs g;
      g.m = rows;
      g.n = k.u1 - k.u0;
      g.k = f.k;
      g.a = &from;
      g.a_row = stride;
      g.b = &b;
      g.c = to + k.u0;
      g.c_row = H;
      g.accumulate = accumulate;
      gemm().gemm(g);
    } else {
      const T* b = k.a.template in<T>(kWeights) + (k.d * wide_ + f.first) * H;
      for (int64_t i = 0; i < rows; ++i) {
        T* c = to + i * H;
        if (!accumulate) std::fill(c + k.u0, c + k.u1, T(0));
        for (int64_t x = 0; x < f.k; ++x)
          for (int64_t j = k.u0; j < k.u1; ++j) c[j] += from[i * stride + x] * b[x * H + j];
      }
    }
  }

  void walk(const Walk& k) const {
    const int64_t H = e_.hidden;
    const auto state = [&](int input, int64_t at) {
      const T* from = k.a.template in<T>(input);
      for (int64_t b = k.b0; b < k.b1; ++b) {
        if (from) std::copy(from + e_.state_row(b, k.d) * H + k.u0, from + e_.state_row(b, k.d) * H + k.u1, place(k, at, b) + k.u0);
        else std::fill(place(k, at, b) + k.u0, place(k, at, b) + k.u1, T(0));
      }
    };
    state(kDyH, at_h_);
    if (kind_ == RecurrentKind::kLstm) {
      state(kDyC, at_c_);
      for (int64_t b = k.b0; b < k.b1 && !done_; ++b) forward_cells(k, b);
    }
    bool ragged = false;
    for (int64_t b = 0; b < e_.batch; ++b) ragged |= e_.length(k.lengths, b) != e_.steps;
    for (int64_t s = e_.steps - 1; s >= 0; --s) {
      for (int64_t b = k.b0; b < k.b1; ++b) {
        const int64_t t = e_.time(k.lengths, s, b, k.d);
        if (t >= 0) cell(k, t, b);
        else clear(k, e_.row(s, b));
      }
      k.w.barrier();
      if (late_) {
        products(k, s, ragged, [&](int64_t row, int64_t stride, int64_t b, int64_t n) {
          product(k, reset_, dx(k, row) + 2 * H, stride, n, place(k, at_late_, b), false);
        });
        for (int64_t b = k.b0; b < k.b1; ++b)
          if (const int64_t t = e_.time(k.lengths, s, b, k.d); t >= 0) reset_gate(k, t, b);
        k.w.barrier();
      }
      products(k, s, ragged, [&](int64_t row, int64_t stride, int64_t b, int64_t n) { product(k, early_, dr(k, row), stride, n, place(k, at_h_, b), true); });
    }
    for (const auto& [output, at] : {std::pair{kDh0, at_h_}, std::pair{kDc0, at_c_}}) {
      if (!gives_[output]) continue;
      for (int64_t b = k.b0; b < k.b1; ++b) {
        T* to = k.a.template out<T>(output) + e_.state_row(b, k.d) * H;
        if (output == kDc0 && kind_ != RecurrentKind::kLstm) std::fill(to + k.u0, to + k.u1, T(0));
        else std::copy(place(k, at, b) + k.u0, place(k, at, b) + k.u1, to + k.u0);
      }
    }
  }

  // f(row, stride of rows, first row of the batch, how many): all at once, or one by one where lengths differ.
  template <class F> void products(const Walk& k, int64_t s, bool ragged, F&& f) const {
    if (!ragged) return f(e_.row(e_.time(nullptr, s, k.b0, k.d), k.b0), e_.batch_first ? e_.steps * wide_ : wide_, k.b0, k.b1 - k.b0);
    for (int64_t b = k.b0; b < k.b1; ++b)
      if (const int64_t t = e_.time(k.lengths, s, b, k.d); t >= 0) f(e_.row(t, b), wide_, b, 1);
  }

  void clear(const Walk& k, int64_t row) const {
    for (int64_t g = 0; g < gates_; ++g) {
      std::fill(dx(k, row) + g * e_.hidden + k.u0, dx(k, row) + g * e_.hidden + k.u1, T(0));
      if (apart_) std::fill(dr(k, row) + g * e_.hidden + k.u0, dr(k, row) + g * e_.hidden + k.u1, T(0));
    }
  }

  template <class F> void chunks(const Walk& k, F&& f) const {
    for (int64_t u = k.u0; u < k.u1; u += kChunk) f(u, std::min(kChunk, k.u1 - u));
  }

  const T* before(const Walk& k, int64_t t, int64_t b, int64_t u) const {
    return k.a.template in<T>(kPrevious) + (k.d * e_.rows() + e_.row(t, b)) * e_.hidden + u;
  }
  const T* sums(const Walk& k, int input, int64_t t, int64_t b, int64_t gate, int64_t u) const {
    return k.a.template in<T>(input) + (k.d * e_.rows() + e_.row(t, b)) * wide_ + gate * e_.hidden + u;
  }
  // The cell's state before step (t, b); null: zero.
  const T* cell_before(const Walk& k, int64_t t, int64_t b, int64_t u) const {
    const int64_t n = e_.length(k.lengths, b), at = e_.backwards(k.d) ? t + 1 : t - 1;
    if (at >= 0 && at < n) return cells(k, e_.row(at, b)) + u;
    const T* c = k.a.template in<T>(kCell);
    return c ? c + e_.state_row(b, k.d) * e_.hidden + u : nullptr;
  }

  struct LstmGates { Gate<T> i, o, f, g; };

  // i, f, g and the new state; o follows from that.
  void lstm(const Walk& k, int64_t t, int64_t b, int64_t u, int64_t n, LstmGates& q, const T* c, const T* p) const {
    const Cell& cell = cell_[k.d];
    const auto gate = [&](Gate<T>& g, int64_t index, const Activation& f, int peep) {
      const T* x = sums(k, kSums, t, b, index, u);
      if (p && peep >= 0 && c && !done_) for (int64_t j = 0; j < n; ++j) g.v[j] = x[j] + p[peep * e_.hidden + u + j] * c[j];
      else std::copy_n(x, n, g.v);
      g.run(f, cell.clip, n, done_);
    };
    gate(q.i, 0, cell.f, 0);
    if (cell.input_forget) for (int64_t j = 0; j < n; ++j) q.f.v[j] = 1 - q.i.v[j];
    else gate(q.f, 2, cell.f, 2);
    gate(q.g, 3, cell.g, -1);
  }

  const T* peephole(const Walk& k) const {
    const T* p = k.a.template in<T>(kPeep);
    return p ? p + k.d * 3 * e_.hidden : nullptr;
  }

  // The states of the cell of one row, through time.
  void forward_cells(const Walk& k, int64_t b) const {
    LstmGates q;
    const T* p = peephole(k);
    for (int64_t s = 0; s < e_.length(k.lengths, b); ++s) {
      const int64_t t = e_.time(k.lengths, s, b, k.d);
      chunks(k, [&](int64_t u, int64_t n) {
        const T* c = cell_before(k, t, b, u);
        lstm(k, t, b, u, n, q, c, p);
        T* now = k.a.template workspace<T>() + at_cells_ + (k.d * e_.rows() + e_.row(t, b)) * e_.hidden + u;
        for (int64_t j = 0; j < n; ++j) now[j] = (c ? q.f.v[j] * c[j] : T(0)) + q.i.v[j] * q.g.v[j];
      });
    }
  }

  void cell(const Walk& k, int64_t t, int64_t b) const {
    const int64_t H = e_.hidden, row = e_.row(t, b);
    const T* dy = k.a.template in<T>(kDy);
    if (dy) dy += e_.y_row(t, b, k.d) * H;
    if constexpr (std::is_same_v<T, float>)
      if (kind_ == RecurrentKind::kLstm && done_ && plain_[k.d]) {
        const int64_t u = k.u0;
        const T* p = peephole(k);
        return recurrent().lstm_back({sums(k, kSums, t, b, 0, u), cell_before(k, t, b, u), cells(k, row) + u, p ? p + u : nullptr, dy ? dy + u : nullptr,
                                      place(k, at_h_, b) + u, place(k, at_c_, b) + u, dx(k, row) + u, H}, k.u1 - u);
      }
    if (dy) {
      T* dh = place(k, at_h_, b);
      for (int64_t u = k.u0; u < k.u1; ++u) dh[u] += dy[u];
    }
    chunks(k, [&](int64_t u, int64_t n) {
      T *dh = place(k, at_h_, b) + u, *to = dx(k, row) + u;
      if (kind_ == RecurrentKind::kRnn) {
        Gate<T> g;
        std::copy_n(sums(k, kSums, t, b, 0, u), n, g.v);
        g.run(cell_[k.d].f, cell_[k.d].clip, n, done_);
        std::copy_n(dh, n, to);
        g.back(cell_[k.d].f, cell_[k.d].clip, n, to);
        std::fill_n(dh, n, T(0));
      } else if (kind_ == RecurrentKind::kLstm) {
        lstm_back(k, t, b, u, n, dh, to);
      } else {
        gru_back(k, t, b, u, n, dh, to);
      }
    });
  }

  void lstm_back(const Walk& k, int64_t t, int64_t b, int64_t u, int64_t n, T* dh, T* to) const {
    const Cell& cell = cell_[k.d];
    const int64_t H = e_.hidden;
    const T *p = peephole(k), *c = cell_before(k, t, b, u), *now = cells(k, e_.row(t, b)) + u, *x = sums(k, kSums, t, b, 1, u);
    LstmGates q;
    lstm(k, t, b, u, n, q, c, p);
    for (int64_t j = 0; j < n; ++j) q.o.v[j] = x[j] + (p && !done_ ? p[H + u + j] * now[j] : T(0));
    q.o.run(cell.f, cell.clip, n, done_);
    Gate<T> h;
    std::copy_n(now, n, h.v);
    h.run(cell.h, 0, n, false);
    T *dc = place(k, at_c_, b) + u, *di = to, *d_o = to + H, *df = to + 2 * H, *dg = to + 3 * H, through[kChunk];
    for (int64_t j = 0; j < n; ++j) {
      d_o[j] = dh[j] * h.v[j];
      through[j] = dh[j] * q.o.v[j];
      dh[j] = 0;
    }
    q.o.back(cell.f, cell.clip, n, d_o);
    h.back(cell.h, 0, n, through);
    for (int64_t j = 0; j < n; ++j) {
      dc[j] += through[j] + (p ? d_o[j] * p[H + u + j] : T(0));
      df[j] = c ? dc[j] * c[j] : T(0);
      di[j] = dc[j] * q.g.v[j];
      dg[j] = dc[j] * q.i.v[j];
    }
    if (cell.input_forget) {
      for (int64_t j = 0; j < n; ++j) di[j] -= df[j], df[j] = 0;
    } else {
      q.f.back(cell.f, cell.clip, n, df);
    }
    q.i.back(cell.f, cell.clip, n, di);
    q.g.back(cell.g, cell.clip, n, dg);
    for (int64_t j = 0; j < n; ++j) dc[j] = dc[j] * q.f.v[j] + (p ? di[j] * p[u + j] + df[j] * p[2 * H + u + j] : T(0));
  }

  // z, s, n of a GRU; `rn`: what R gives to n, before s times it where that comes after.
  void gru(const Walk& k, int64_t t, int64_t b, int64_t u, int64_t n, Gate<T> (&q)[3], const T* rn) const {
    const Cell& cell = cell_[k.d];
    for (int64_t g = 0; g < 2; ++g) {
      const T *x = sums(k, kSums, t, b, g, u), *r = sums(k, kStateSums, t, b, g, u);
      for (int64_t j = 0; j < n; ++j) q[g].v[j] = x[j] + r[j];
      q[g].run(cell.f, cell.clip, n, false);
    }
    const T* x = sums(k, kSums, t, b, 2, u);
    for (int64_t j = 0; j < n; ++j) q[2].v[j] = x[j] + (apart_ ? q[1].v[j] * rn[j] : rn[j]);
    q[2].run(cell.g, cell.clip, n, false);
  }
  const T* new_sums(const Walk& k, int64_t t, int64_t b, int64_t u) const {
    return apart_ ? sums(k, kStateSums, t, b, 2, u) : k.a.template in<T>(kLateSums) + (k.d * e_.rows() + e_.row(t, b)) * e_.hidden + u;
  }

  void gru_back(const Walk& k, int64_t t, int64_t b, int64_t u, int64_t n, T* dh, T* to) const {
    const Cell& cell = cell_[k.d];
    const int64_t H = e_.hidden;
    const T *h = before(k, t, b, u), *rn = new_sums(k, t, b, u);
    Gate<T> q[3];
    gru(k, t, b, u, n, q, rn);
    T *dz = to, *ds = to + H, *dn = to + 2 * H;
    for (int64_t j = 0; j < n; ++j) {
      dz[j] = dh[j] * (h[j] - q[2].v[j]);
      dn[j] = dh[j] * (1 - q[0].v[j]);
      dh[j] *= q[0].v[j];
    }
    q[0].back(cell.f, cell.clip, n, dz);
    q[2].back(cell.g, cell.clip, n, dn);
    if (!apart_) return;  // the rest when R (s h) has been gone back through
    for (int64_t j = 0; j < n; ++j) ds[j] = dn[j] * rn[j];
    q[1].back(cell.f, cell.clip, n, ds);
    T* r = dr(k, e_.row(t, b)) + u;
    std::copy_n(dz, n, r);
    std::copy_n(ds, n, r + H);
    for (int64_t j = 0; j < n; ++j) r[2 * H + j] = dn[j] * q[1].v[j];
  }

  // d (s h) = dn R: into s, and into h.
  void reset_gate(const Walk& k, int64_t t, int64_t b) const {
    chunks(k, [&](int64_t u, int64_t n) {
      const T *x = sums(k, kSums, t, b, 1, u), *r = sums(k, kStateSums, t, b, 1, u), *h = before(k, t, b, u), *d = place(k, at_late_, b) + u;
      T *dh = place(k, at_h_, b) + u, *ds = dx(k, e_.row(t, b)) + e_.hidden + u;
      Gate<T> s;
      for (int64_t j = 0; j < n; ++j) s.v[j] = x[j] + r[j];
      s.run(cell_[k.d].f, cell_[k.d].clip, n, false);
      for (int64_t j = 0; j < n; ++j) {
        dh[j] += d[j] * s.v[j];
        ds[j] = d[j] * h[j];
      }
      s.back(cell_[k.d].f, cell_[k.d].clip, n, ds);
    });
  }

  // dP: of i and f times the state before, of o times the state after; each unit's sum in the order of the rows.
  void peepholes(const Args& a, Worker& w, const int32_t* lengths) const {
    const int64_t H = e_.hidden, blocks = ceil_div(H, kChunk);
    w.parallel_for(e_.directions * blocks, 1, [&](int64_t i, int64_t) {
      Worker one = alone();
      const int64_t u = i % blocks * kChunk, n = std::min(kChunk, H - u);
      const Walk k{a, one, lengths, i / blocks, 0, e_.batch, u, u + n};
      T* to = a.out<T>(kDp) + k.d * 3 * H + u;
      for (int g = 0; g < 3; ++g) std::fill_n(to + g * H, n, T(0));
      for (int64_t b = 0; b < e_.batch; ++b)
        for (int64_t t = 0; t < e_.length(lengths, b); ++t) {
          const T *d = dx(k, e_.row(t, b)) + u, *c = cell_before(k, t, b, u), *now = cells(k, e_.row(t, b)) + u;
          for (int64_t j = 0; j < n; ++j) to[H + j] += d[H + j] * now[j];
          if (!c) continue;
          for (int64_t j = 0; j < n; ++j) {
            to[j] += d[j] * c[j];
            to[2 * H + j] += d[2 * H + j] * c[j];
          }
        }
    });
  }

  RecurrentKind kind_;
  Extents e_{};
  Cell cell_[2];
  int64_t gates_ = 1, wide_ = 0;
  bool late_ = false, apart_ = false, done_ = false, plain_[2] = {}, gives_[5] = {};
  Factor early_, reset_;
  int64_t at_h_ = 0, at_c_ = 0, at_late_ = 0, at_cells_ = 0, at_dx_ = 0, at_dr_ = 0;
  double step_flops_ = 0;
};

void prepare_grad(PrepareContext& ctx) {
  if (ctx.dtype(kSums) == DType::kDouble) ctx.kernel(std::make_unique<RecurrentGrad<double>>(ctx));
  else ctx.kernel(std::make_unique<RecurrentGrad<float>>(ctx));
}

const OpRegistration rows({{"RecurrentGrad", kTiercelDomain, 1, infer_grad, half_as_float<prepare_grad>}});

}  // namespace
}  // namespace tiercel

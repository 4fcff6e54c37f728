// RNN, GRU, LSTM (ONNX opsets 1, 7, 14, 22).
//
// The input product of all time steps is one GEMM; a step then multiplies the hidden state by R and runs the cells. Hidden
// units lie in blocks of 16 with their gates side by side, so that a thread owns whole units: two small directions run side by
// side without a barrier, else the team shares each step where a step is long enough.
#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

#include "base/memory.h"
#include "kernels/gemm/gemm.h"
#include "kernels/recurrent/recurrent.h"
#include "ops/numeric.h"
#include "ops/recurrent.h"
#include "ops/registry.h"

namespace tiercel {
namespace {

using namespace recurrent_op;

// ---- f32

// A [gates * hidden, k] matrix for one direction, its rows permuted to (block, gate, unit), as a packed GEMM operand.
struct PackedPlan {
  Dims d;
  int64_t k;
  int64_t direction_floats() const { return gemm_packed_floats(gemm(), k, d.columns()); }

  void pack(const float* from, float* to) const {
    const int64_t panel = gemm().panel, columns = d.columns();
    std::vector<float> rows(static_cast<size_t>(panel * std::max<int64_t>(k, 1)));
    for (int64_t first = 0; first < columns; first += panel) {
      const int64_t n = std::min(panel, columns - first);
      for (int64_t i = 0; i < n; ++i) {
        const int64_t j = first + i, block = j / (d.gates * kUnits), gate = j / kUnits % d.gates, unit = block * kUnits + j % kUnits;
        float* row = rows.data() + i * k;
        if (unit < d.hidden) std::copy_n(from + (gate * d.hidden + unit) * k, k, row);
        else std::fill_n(row, k, 0.0f);
      }
      gemm().pack_b(rows.data(), 1, k, k, n, 0, n, to + k * first);
    }
  }
};

class FloatKernel final : public Kernel {
 public:
  FloatKernel(PrepareContext& ctx, const Dims& dims) : d_(dims), kind_(kind_of(ctx.node)) {
    w_ = {d_, d_.inputs};
    r_ = {d_, d_.hidden};
    const int64_t columns = d_.gates * kUnits;
    share_ = std::lcm(columns, int64_t{gemm().panel}) / columns;
    reverse_[0] = ctx.node.attr_string("direction", "forward") == "reverse";
    reverse_[1] = true;
    for (int i = 0; i < d_.directions; ++i) cell_[i] = cell_of(ctx.node, kind_, i);
    for (int i = 0; i < 3; ++i) has_out_[i] = ctx.has_output(i);
    if (kind_ == RecurrentKind::kLstm && ctx.has_output(kGates) != ctx.has_output(kCells)) ctx.fail("gates and states of cells are kept together");
    keeps_ = kind_ == RecurrentKind::kLstm && ctx.has_output(kGates);
    before_reset_ = kind_ == RecurrentKind::kGru && ctx.node.attr_int("linear_before_reset", 0) != 0;
    late_gate_ = kind_ == RecurrentKind::kGru && !before_reset_;
    auto all = [this](const PackedPlan& plan, const float* from, float* to) {
      const int64_t rows = d_.gates * d_.hidden;
      for (int i = 0; i < d_.directions; ++i) plan.pack(from + i * rows * plan.k, to + i * plan.direction_floats());
    };
    auto constant = [&](int input, const PackedPlan& plan, const char* key) -> Buffer {
      if (!ctx.constant(input)) return nullptr;
      ctx.drops(input);
      return ctx.pack(input, key, [&](const Tensor& t) {
        Buffer b = allocate(static_cast<size_t>(d_.directions * plan.direction_floats()) * sizeof(float));
        all(plan, t.as<float>(), static_cast<float*>(b.get()));
        return b;
      });
    };
    packed_w_ = constant(kW, w_, "recurrent_w");
    packed_r_ = constant(kR, r_, "recurrent_r");
    plan_workspace();
    ctx.workspace(floats_ * static_cast<int64_t>(sizeof(float)));
    const double products = static_cast<double>(d_.directions) * d_.steps * d_.batch * d_.columns();
    step_flops_ = 2.0 * d_.batch * d_.columns() * d_.hidden;
    ctx.cost(2.0 * products * (d_.inputs + d_.hidden) + 30 * products, 4 * products);
  }

  void run(const Args& a, Worker& w) const override {
    float* const base = a.workspace<float>();
    const float* pw = static_cast<const float*>(packed_w_.get());
    const float* pr = static_cast<const float*>(packed_r_.get());
    if (!pw) pw = pack_now(a, w, kW, w_, base + at_w_);
    if (!pr) pr = pack_now(a, w, kR, r_, base + at_r_);
    fill_state(a, w, base);
    w.barrier();
    input_product(a, w, base, pw);
    w.barrier();
    const bool large = r_.direction_floats() * 4 > kOwnCache && step_flops_ > kSharedStep;
    if (d_.directions == 2 && w.count() > 1 && !large) {
      w.parallel_for(2, 1, [&](int64_t i, int64_t) {
        Worker one = alone();
        steps(a, one, base, pr, static_cast<int>(i));
      });
    } else {
      for (int i = 0; i < d_.directions; ++i) {
        if (step_flops_ > kSharedStep && w.count() > 1) {
          steps(a, w, base, pr, i);
        } else if (w.index() == 0) {
          Worker one = alone();
          steps(a, one, base, pr, i);
        }
      }
    }
  }

 private:
  static constexpr double kSharedStep = 60e3;  // FLOPs of a step below which sharing it costs more than it gives
  // Bytes of R above which a core's L2 gives them slowly: then the team shares each direction's step, and a core keeps its part of R.
  static constexpr int64_t kOwnCache = 640 << 10;

  // Workspace, in floats from its start, each direction after the other: biases, peepholes, products of the input,
  // products of the state, two hidden states, the cell state, s * h.
  void plan_workspace() {
    auto take = [this](int64_t n) { const int64_t at = floats_; floats_ += round_up(n, kUnits); return at; };
    const int64_t n = d_.directions, state = d_.batch * d_.padded();
    at_bias_ = take(n * 2 * d_.columns());
    at_peep_ = take(n * 3 * d_.padded());
    at_x_ = take(n * d_.steps * d_.batch * d_.columns());
    at_rec_ = take(n * d_.batch * d_.columns());
    at_h_ = take(n * 2 * state);
    at_c_ = take(n * state);
    at_sh_ = take(n * state);
    if (!packed_w_) at_w_ = take(n * w_.direction_floats());
    if (!packed_r_) at_r_ = take(n * r_.direction_floats());
  }

  const float* pack_now(const Args& a, Worker& w, int input, const PackedPlan& plan, float* to) const {
    if (w.index() == 0)
      for (int i = 0; i < d_.directions; ++i)
        plan.pack(a.in<float>(input) + i * d_.gates * d_.hidden * plan.k, to + i * plan.direction_floats());
    return to;
  }

  // Biases and peepholes in the order of the cells, initial states.
  void fill_state(const Args& a, Worker& w, float* base) const {
    if (w.index() != 0) return;
    const int64_t H = d_.hidden, G = d_.gates, state = d_.batch * d_.padded();
    const float *b = a.in<float>(kB), *p = kind_ == RecurrentKind::kLstm ? a.in<float>(kP) : nullptr;
    for (int i = 0; i < d_.directions; ++i) {
      float* bias = base + at_bias_ + i * 2 * d_.columns();
      std::fill_n(bias, 2 * d_.columns(), 0.0f);
      float* peep = base + at_peep_ + i * 3 * d_.padded();
      std::fill_n(peep, 3 * d_.padded(), 0.0f);
      for (int64_t u = 0; u < H; ++u) {
        const int64_t block = u / kUnits, lane = u % kUnits;
        for (int64_t g = 0; b && g < G; ++g) {
          const float wb = b[i * 2 * G * H + g * H + u], rb = b[i * 2 * G * H + (G + g) * H + u];
          const int64_t at = (block * G + g) * kUnits + lane;
          const bool apart = before_reset_ && g == 2;  // added inside the reset gate's product
          bias[at] = apart ? wb : wb + rb;
          if (apart) bias[d_.columns() + block * kUnits + lane] = rb;
        }
        for (int64_t g = 0; p && g < 3; ++g) peep[(block * 3 + g) * kUnits + lane] = p[(i * 3 + g) * H + u];
      }
      fill_rows(base + at_h_ + i * 2 * state, a.in<float>(kInitialH), i);
      fill_rows(base + at_c_ + i * state, kind_ == RecurrentKind::kLstm ? a.in<float>(kInitialC) : nullptr, i);
    }
  }
  void fill_rows(float* to, const float* from, int direction) const {
    std::fill_n(to, d_.batch * d_.padded(), 0.0f);
    if (!from) return;
    for (int64_t b = 0; b < d_.batch; ++b) std::copy_n(from + state_row(b, direction) * d_.hidden, d_.hidden, to + b * d_.padded());
  }
  // Row of a [directions, batch, hidden] (or [batch, directions, hidden]) array.
  int64_t state_row(int64_t b, int direction) const { return d_.batch_first ? b * d_.directions + direction : direction * d_.batch + b; }

  void input_product(const Args& a, Worker& w, float* base, const float* packed) const {
    constexpr int64_t kColumns = 256;
    const int64_t m = d_.steps * d_.batch, columns = d_.columns();
    const int64_t rows = std::clamp<int64_t>(m / 8, 1, 96);
    const int64_t row_tasks = ceil_div(m, rows), column_tasks = ceil_div(columns, kColumns);
    w.parallel_for(d_.directions * row_tasks * column_tasks, 1, [&](int64_t task, int64_t) {
      const int64_t direction = task / (row_tasks * column_tasks), rest = task % (row_tasks * column_tasks);
      const int64_t i = rest % row_tasks * rows, j = rest / row_tasks * kColumns;
      const float* x = a.in<float>(kX) + i * d_.inputs;
      const float* b = packed + direction * w_.direction_floats() + d_.inputs * j;
      GemmEpilogue epilogue;
      epilogue.add[0].data = base + at_bias_ + direction * 2 * columns + j;
      GemmArgs g;
      g.m = std::min(rows, m - i);
      g.n = std::min(kColumns, columns - j);
      g.k = d_.inputs;
      g.a = &x;
      g.a_row = d_.inputs;
      g.b = &b;
      g.c = base + at_x_ + (direction * m + i) * columns + j;
      g.c_row = columns;
      g.epilogue = &epilogue;
      gemm().gemm(g);
    });
  }

  struct Step {
    int64_t t;      // time, for rows that are all at the same
    int64_t first, rows;
    const float* h_prev;
    float* h;
  };

  // All time steps of one direction; the threads of `w` share the hidden units.
  void steps(const Args& a, Worker& w, float* base, const float* packed, int direction) const {
    const int64_t state = d_.batch * d_.padded();
    float* h[2] = {base + at_h_ + direction * 2 * state, base + at_h_ + direction * 2 * state + state};
    const int32_t* lengths = a.in<int32_t>(kLengths);
    bool ragged = false;
    for (int64_t b = 0; lengths && b < d_.batch; ++b) ragged |= lengths[b] != d_.steps;
    const int64_t shares = ceil_div(d_.blocks(), share_);
    const int64_t from = std::min(d_.blocks(), shares * w.index() / w.count() * share_);
    const int64_t to = std::min(d_.blocks(), shares * (w.index() + 1) / w.count() * share_);
    for (int64_t s = 0; s < d_.steps; ++s) {
      if (!ragged) {
        const Step step{reverse_[direction] ? d_.steps - 1 - s : s, 0, d_.batch, h[s & 1], h[~s & 1]};
        run_step(a, w, base, packed, direction, step, from, to);
      } else {
        for (int64_t b = 0; b < d_.batch; ++b) {
          const int64_t length = std::clamp<int64_t>(lengths[b], 0, d_.steps);
          const int64_t row = b * d_.padded();
          if (s < length) {
            const Step step{reverse_[direction] ? length - 1 - s : s, b, 1, h[s & 1] + row, h[~s & 1] + row};
            run_step(a, w, base, packed, direction, step, from, to);
          } else {  // past its end: the state rests, Y is zero
            const int64_t u0 = from * kUnits, u1 = to * kUnits;
            if (u0 < u1) std::copy(h[s & 1] + row + u0, h[s & 1] + row + u1, h[~s & 1] + row + u0);
            if (float* y = y_row(a, s, b, direction))
              if (u0 < std::min(u1, d_.hidden)) std::fill(y + u0, y + std::min(u1, d_.hidden), 0.0f);
            if (late_gate_) w.barrier();  // as run_step has
          }
        }
      }
      w.barrier();
    }
    if (w.index() == 0) finish(a, base, direction, h[d_.steps & 1]);
  }

  float* y_row(const Args& a, int64_t t, int64_t b, int direction) const {
    float* y = has_out_[0] ? a.out<float>(0) : nullptr;
    if (!y) return nullptr;
    const int64_t row = d_.batch_first ? (b * d_.steps + t) * d_.directions + direction : (t * d_.directions + direction) * d_.batch + b;
    return y + row * d_.hidden;
  }

  // rec = h R for the columns of blocks [from, to); in GRU's second phase only their last gate counts.
  void product(const float* h, int64_t h_row, int64_t rows, const float* packed, int64_t from, int64_t to, bool backwards, float* rec) const {
    if (from == to) return;
    GemmArgs g;
    g.backwards = backwards;
    const int64_t first = from * d_.gates * kUnits;
    const float* b = packed + first * d_.hidden;
    g.m = rows;
    g.n = to * d_.gates * kUnits - first;
    g.k = d_.hidden;
    g.a = &h;
    g.a_row = h_row;
    g.b = &b;
    g.c = rec + first;
    g.c_row = d_.columns();
    gemm().gemm(g);
  }

  void run_step(const Args& a, Worker& w, float* base, const float* packed, int direction, const Step& s, int64_t from, int64_t to) const {
    const int64_t columns = d_.columns(), padded = d_.padded(), state = d_.batch * padded;
    const float* const pack = packed + direction * r_.direction_floats();
    float* const rec = base + at_rec_ + (direction * d_.batch + s.first) * columns;
    float* const sh = base + at_sh_ + direction * state + s.first * padded;
    float* const c = base + at_c_ + direction * state + s.first * padded;
    const float* const xs = base + at_x_ + direction * d_.steps * d_.batch * columns;
    const float* const late_bias = base + at_bias_ + direction * 2 * columns + columns;
    const bool peepholes = kind_ == RecurrentKind::kLstm && a.in<float>(kP);
    const RecurrentKernels& k = recurrent();
    const Cell& cell = cell_[direction];
    // f(row, block, x of the block, rec of the block)
    auto each = [&](auto&& f) {
      for (int64_t r = 0; r < s.rows; ++r) {
        const int64_t b = s.first + r, row = d_.batch_first ? b * d_.steps + s.t : s.t * d_.batch + b;
        for (int64_t block = from; block < to; ++block) {
          const int64_t at = block * d_.gates * kUnits;
          f(r, block, xs + row * columns + at, rec + r * columns + at);
        }
      }
    };
    auto y_at = [&](int64_t r, int64_t block) {
      float* y = y_row(a, s.t, s.first + r, direction);
      return y ? y + block * kUnits : nullptr;
    };
    auto units = [&](int64_t block) { return static_cast<int>(std::min<int64_t>(kUnits, d_.hidden - block * kUnits)); };
    product(s.h_prev, padded, s.rows, pack, from, to, s.t & 1, rec);
    if (kind_ == RecurrentKind::kRnn) {
      each([&](int64_t r, int64_t block, const float* x, const float* q) {
        k.rnn(cell, x, q, s.h + r * padded + block * kUnits, y_at(r, block), units(block));
      });
    } else if (kind_ == RecurrentKind::kLstm) {
      const float* p = base + at_peep_ + direction * 3 * padded;
      each([&](int64_t r, int64_t block, const float* x, const float* q) {
        const int64_t u = r * padded + block * kUnits;
        LstmKept kept{};
        if (keeps_) {
          const int64_t b = s.first + r, row = direction * d_.steps * d_.batch + (d_.batch_first ? b * d_.steps + s.t : s.t * d_.batch + b);
          kept = {a.out<float>(kGates) + row * 4 * d_.hidden + block * kUnits, d_.hidden, a.out<float>(kCells) + row * d_.hidden + block * kUnits};
        }
        k.lstm(cell, x, q, peepholes ? p + block * 3 * kUnits : nullptr, c + u, s.h + u, y_at(r, block), units(block), keeps_ ? &kept : nullptr);
      });
    } else if (before_reset_) {
      each([&](int64_t r, int64_t block, const float* x, const float* q) {
        const int64_t u = r * padded + block * kUnits;
        k.gru(cell, x, q, late_bias + block * kUnits, s.h_prev + u, s.h + u, y_at(r, block), units(block));
      });
    } else {
      each([&](int64_t r, int64_t block, const float* x, float* q) {
        const int64_t u = r * padded + block * kUnits;
        k.gru_gates(cell, x, q, s.h_prev + u, sh + u);
      });
      w.barrier();  // s * h of all units
      float* const late = base + at_c_ + direction * state;  // GRU has no cell state: its place holds z
      each([&](int64_t r, int64_t block, const float*, const float* q) {
        std::copy_n(q, kUnits, late + (s.first + r) * padded + block * kUnits);
      });
      product(sh, padded, s.rows, pack, from, to, s.t & 1, rec);
      each([&](int64_t r, int64_t block, const float* x, const float* q) {
        const int64_t u = r * padded + block * kUnits;
        k.gru_rest(cell, x, late + (s.first + r) * padded + block * kUnits, q + 2 * kUnits, s.h_prev + u, s.h + u, y_at(r, block), units(block));
      });
    }
  }

  void finish(const Args& a, const float* base, int direction, const float* h) const {
    auto copy = [&](const float* from, float* to) {
      for (int64_t b = 0; to && b < d_.batch; ++b)
        std::copy_n(from + b * d_.padded(), d_.hidden, to + state_row(b, direction) * d_.hidden);
    };
    if (has_out_[1]) copy(h, a.out<float>(1));
    if (has_out_[2]) copy(base + at_c_ + direction * d_.batch * d_.padded(), a.out<float>(2));
  }

  Dims d_;
  RecurrentKind kind_;
  PackedPlan w_, r_;
  int64_t share_ = 1;  // blocks whose columns are whole panels: threads own as many of them
  Cell cell_[2];
  bool has_out_[3] = {}, reverse_[2] = {}, before_reset_ = false, late_gate_ = false, keeps_ = false;
  Buffer packed_w_, packed_r_;
  int64_t at_bias_ = 0, at_peep_ = 0, at_x_ = 0, at_rec_ = 0, at_h_ = 0, at_c_ = 0, at_sh_ = 0, at_w_ = 0, at_r_ = 0, floats_ = 0;
  double step_flops_ = 0;
};

// ---- f64: the reference, on one thread

void prepare_double(PrepareContext& ctx, const Dims& d) {
  const RecurrentKind kind = kind_of(ctx.node);
  std::vector<Cell> cells;
  for (int i = 0; i < d.directions; ++i) cells.push_back(cell_of(ctx.node, kind, i));
  const bool reverse = ctx.node.attr_string("direction", "forward") == "reverse", before = ctx.node.attr_int("linear_before_reset", 0) != 0;
  if (ctx.has_output(kGates) || ctx.has_output(kCells)) ctx.fail("gates are kept in float only");
  const std::array<bool, 3> has_out = {ctx.has_output(0), ctx.has_output(1), ctx.has_output(2)};
  ctx.serial();
  ctx.run([=](const Args& a, Worker&) {
    const int64_t state = d.batch * d.hidden, G = d.gates;
    std::vector<double> x(d.steps * d.batch * d.inputs), y(d.steps * state), yh(state), yc(state), h0(state), c0(state);
    for (int64_t t = 0; t < d.steps; ++t)
      for (int64_t b = 0; b < d.batch; ++b)
        std::copy_n(a.in<double>(kX) + (d.batch_first ? b * d.steps + t : t * d.batch + b) * d.inputs, d.inputs, &x[(t * d.batch + b) * d.inputs]);
    std::vector<int64_t> lengths;
    if (const int32_t* n = a.in<int32_t>(kLengths))
      for (int64_t b = 0; b < d.batch; ++b) lengths.push_back(std::clamp<int64_t>(n[b], 0, d.steps));
    for (int i = 0; i < d.directions; ++i) {
      auto row = [&](int64_t b) { return (d.batch_first ? b * d.directions + i : i * d.batch + b) * d.hidden; };
      auto initial = [&](const double* from, std::vector<double>& to) -> const double* {
        for (int64_t b = 0; from && b < d.batch; ++b) std::copy_n(from + row(b), d.hidden, &to[b * d.hidden]);
        return from ? to.data() : nullptr;
      };
      const bool lstm = kind == RecurrentKind::kLstm;
      const double *b = a.in<double>(kB), *p = lstm ? a.in<double>(kP) : nullptr;
      reference::Recurrent r{kind, d.steps, d.batch, d.inputs, d.hidden, i == 1 || reverse, before, cells[i], x.data(),
                             a.in<double>(kW) + i * G * d.hidden * d.inputs, a.in<double>(kR) + i * G * d.hidden * d.hidden,
                             b ? b + i * 2 * G * d.hidden : nullptr, p ? p + i * 3 * d.hidden : nullptr,
                             initial(a.in<double>(kInitialH), h0), initial(lstm ? a.in<double>(kInitialC) : nullptr, c0),
                             lengths.empty() ? nullptr : lengths.data(), y.data(), yh.data(), yc.data()};
      reference::recurrent(r);
      for (int64_t t = 0; has_out[0] && t < d.steps; ++t)
        for (int64_t n = 0; n < d.batch; ++n) {
          const int64_t to = d.batch_first ? (n * d.steps + t) * d.directions + i : (t * d.directions + i) * d.batch + n;
          std::copy_n(&y[(t * d.batch + n) * d.hidden], d.hidden, a.out<double>(0) + to * d.hidden);
        }
      for (int64_t n = 0; n < d.batch; ++n) {
        if (has_out[1]) std::copy_n(&yh[n * d.hidden], d.hidden, a.out<double>(1) + row(n));
        if (has_out[2]) std::copy_n(&yc[n * d.hidden], d.hidden, a.out<double>(2) + row(n));
      }
    }
  });
}

void prepare(PrepareContext& ctx) {
  const Dims d = dims_of(ctx);
  if (ctx.dtype(kX) == DType::kDouble) prepare_double(ctx, d);
  else ctx.kernel(std::make_unique<FloatKernel>(ctx, d));
}

static const OpRegistration rows({
    {"RNN", "", 1, infer, half_as_float<prepare>},
    {"GRU", "", 1, infer, half_as_float<prepare>},
    {"LSTM", "", 1, infer, half_as_float<prepare>},
});

}  // namespace
}  // namespace tiercel

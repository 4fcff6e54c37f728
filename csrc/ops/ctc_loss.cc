// ai.tiercel.CtcLoss (x, labels, input_lengths?, label_lengths?) -> loss, gradient?
// Connectionist temporal classification (Graves et al., 2006): -log of the sum of the probabilities of all ways to write the labels over the time
// steps, blanks between them. x: log probabilities [N, T, C] (time_first: [T, N, C]); labels [N, S]. Without lengths (an input
// length of -1): all of T, and the labels before the first that is below zero. The gradient is that of the loss with respect to x, the reduction within: what goes back is dy times it.
#include "ops/grad.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  const DType t = ctx.dtype(0);
  const std::string reduction = ctx.node.attr_string("reduction", "mean");
  ctx.check(reduction == "mean" || reduction == "sum" || reduction == "none", "reduction \"", reduction, "\" is not known");
  for (int i = 1; i < std::min(ctx.num_inputs(), 4); ++i)
    if (ctx.has_input(i) || i == 1) ctx.check(ctx.dtype(i) == DType::kInt64, "labels and lengths should be int64, got ", dtype_name(ctx.dtype(i)));
  ctx.set_output(1, ctx.type(0));
  ctx.set_output(0, reduction == "none" ? Type::tensor(t) : Type::tensor(t, Shape()));
  if (!ctx.ranked(0)) return;
  const Shape& x = ctx.shape(0);
  const bool time_first = ctx.node.attr_int("time_first", 0) != 0;
  ctx.check(x.rank() == 3, "the log probabilities should be ", time_first ? "[T, N, C]" : "[N, T, C]", ", got ", x);
  const int64_t blank = ctx.node.attr_int("blank", 0);
  ctx.check(blank >= 0 && (is_symbol(x[2]) || blank < x[2]), "the blank, class ", blank, ", is none of the ", x[2], " classes");
  Dim batch = x[time_first ? 1 : 0];
  if (ctx.ranked(1)) {
    ctx.check(ctx.shape(1).rank() == 2, "the labels should be [N, S], got ", ctx.shape(1));
    batch = unify(ctx, batch, ctx.shape(1)[0], "batches of log probabilities and labels");
  }
  for (int i : {2, 3})
    if (ctx.has_input(i) && ctx.ranked(i)) {
      ctx.check(ctx.shape(i).rank() == 1, "lengths should be [N], got ", ctx.shape(i));
      batch = unify(ctx, batch, ctx.shape(i)[0], "batches of log probabilities and lengths");
    }
  if (reduction == "none") ctx.set_output(0, t, Shape{batch});
}

constexpr double kNever = -std::numeric_limits<double>::infinity();

// log(e^a + e^b + e^c)
double log_add(double a, double b, double c) {
  if (a == kNever && b == kNever && c == kNever) return kNever;
  const double m = std::max({a, b, c});
  return m + std::log(std::exp(a - m) + std::exp(b - m) + std::exp(c - m));
}

// One sample: x(t, c) lies at x[t * step + c]. States are blank, label, blank, label, ..., blank.
template <class T> struct Sample {
  const T* x;
  int64_t step, steps, classes, blank;
  const int64_t* labels;
  int64_t count;

  int64_t states() const { return 2 * count + 1; }
  int64_t symbol(int64_t s) const { return s % 2 ? labels[s / 2] : blank; }
  double at(int64_t t, int64_t s) const { return static_cast<double>(x[t * step + symbol(s)]); }
  // May state s follow s - 2? Not over a blank that two equal labels need.
  bool skips(int64_t s) const { return s % 2 && s >= 3 && labels[s / 2] != labels[s / 2 - 1]; }

  // alpha[t][s]: log probability of being in s at t, the symbol of t within. Gives the loss.
  double forward(double* alpha) const {
    const int64_t n = states();
    if (!steps) return count ? -kNever : 0;
    std::fill_n(alpha, n, kNever);
    for (int64_t s = 0; s < std::min<int64_t>(n, 2); ++s) alpha[s] = at(0, s);
    for (int64_t t = 1; t < steps; ++t) {
      const double* const before = alpha;
      alpha += n;
      for (int64_t s = 0; s < n; ++s)
        alpha[s] = at(t, s) + log_add(before[s], s ? before[s - 1] : kNever, skips(s) ? before[s - 2] : kNever);
    }
    return -log_add(alpha[n - 1], n > 1 ? alpha[n - 2] : kNever, kNever);
  }

  // dx = -scale * the probability, all ways considered, of symbol c at t: e^(alpha + beta + loss), where beta[s] is the log probability of what
  // comes after t. `beta`, `next`: [states]; `row`: [classes].
  void backward(const double* alpha, double loss, double scale, T* dx, double* beta, double* next, double* row) const {
    const int64_t n = states();
    for (int64_t t = steps - 1; t >= 0; --t) {
      if (t == steps - 1) {
        std::fill_n(beta, n, kNever);
        for (int64_t s = std::max<int64_t>(n - 2, 0); s < n; ++s) beta[s] = 0;
      } else {
        for (int64_t s = 0; s < n; ++s) next[s] = beta[s] + at(t + 1, s);
        for (int64_t s = 0; s < n; ++s)
          beta[s] = log_add(next[s], s + 1 < n ? next[s + 1] : kNever, s + 2 < n && skips(s + 2) ? next[s + 2] : kNever);
      }
      std::fill_n(row, classes, 0.0);
      for (int64_t s = 0; s < n; ++s) row[symbol(s)] += std::exp(alpha[t * n + s] + beta[s] + loss);
      for (int64_t c = 0; c < classes; ++c) dx[t * step + c] = static_cast<T>(-scale * row[c]);
    }
  }
};

template <class T> void make(PrepareContext& ctx) {
  const Shape& s = ctx.shape(0);
  const bool time_first = ctx.node.attr_int("time_first", 0) != 0, zero_infinity = ctx.node.attr_int("zero_infinity", 0) != 0;
  const int64_t batch = s[time_first ? 1 : 0], steps = s[time_first ? 0 : 1], classes = s[2], most = ctx.shape(1)[1], blank = ctx.node.attr_int("blank", 0);
  const int64_t step = time_first ? batch * classes : classes, between = time_first ? classes : steps * classes;
  const std::string reduction = ctx.node.attr_string("reduction", "mean");
  const bool none = reduction == "none", mean = reduction == "mean", gives_loss = ctx.has_output(0), gives_gradient = ctx.has_output(1);
  if (blank >= classes) ctx.fail("the blank, class ", blank, ", is none of the ", classes, " classes");
  if (ctx.shape(1)[0] != batch || (ctx.has_input(2) && ctx.shape(2)[0] != batch) || (ctx.has_input(3) && ctx.shape(3)[0] != batch))
    ctx.fail("log probabilities, labels and lengths should be of one batch");
  const int64_t states = 2 * most + 1, each = round_up(steps * states + 2 * states + classes, 8);  // doubles of a thread
  ctx.workspace((round_up(batch, 8) + each * ctx.threads()) * static_cast<int64_t>(sizeof(double)));
  const double work = static_cast<double>(batch * steps) * static_cast<double>(states);
  ctx.cost((gives_gradient ? 200 : 80) * work, 16 * work);
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    double* const losses = a.workspace<double>();
    double* const alpha = losses + round_up(batch, 8) + each * w.index();
    w.parallel_for(batch, 1, [&](int64_t i, int64_t) {
      const int64_t* const labels = a.in<int64_t>(1) + i * most;
      Sample<T> sample{a.in<T>(0) + i * between, step, steps, classes, blank, labels, 0};
      if (const int64_t* lengths = a.in<int64_t>(2)) {
        sample.steps = lengths[i] == -1 ? steps : lengths[i];
        if (sample.steps < 0 || sample.steps > steps)
          fail(Code::kInvalidArgument, label, ": the input length ", lengths[i], " of sample ", i, " is outside [0, ", steps, "]");
      }
      if (const int64_t* lengths = a.in<int64_t>(3)) {
        sample.count = lengths[i];
        if (sample.count < 0 || sample.count > most)
          fail(Code::kInvalidArgument, label, ": the label length ", lengths[i], " of sample ", i, " is outside [0, ", most, "]");
      } else {
        while (sample.count < most && labels[sample.count] >= 0) ++sample.count;
      }
      for (int64_t k = 0; k < sample.count; ++k) {
        if (labels[k] < 0 || labels[k] >= classes)
          fail(Code::kInvalidArgument, label, ": label ", labels[k], " of sample ", i, " is outside [0, ", classes - 1, "]");
        if (labels[k] == blank)
          fail(Code::kInvalidArgument, label, ": a label of sample ", i, " is the blank, class ", blank, ": number the labels around it, or choose another blank");
      }
      const double loss = sample.forward(alpha), divisor = mean ? static_cast<double>(std::max<int64_t>(sample.count, 1)) : 1;
      const bool dropped = zero_infinity && loss == -kNever;
      losses[i] = dropped ? 0 : loss / divisor;
      if (!gives_gradient) return;
      T* const dx = a.out<T>(1) + i * between;
      for (int64_t t = dropped ? 0 : sample.steps; t < steps; ++t) std::fill_n(dx + t * step, classes, T(0));
      double* const beta = alpha + steps * states;
      if (!dropped) sample.backward(alpha, loss, mean ? 1 / (divisor * static_cast<double>(batch)) : 1, dx, beta, beta + states, beta + 2 * states);
    });
    w.barrier();
    if (!gives_loss || w.index() != 0) return;
    double sum = 0;
    for (int64_t i = 0; i < batch; ++i) {
      if (none) a.out<T>(0)[i] = static_cast<T>(losses[i]);
      sum += losses[i];
    }
    if (!none) *a.out<T>(0) = static_cast<T>(mean ? sum / static_cast<double>(batch) : sum);
  });
}

void prepare(PrepareContext& ctx) { ctx.dtype(0) == DType::kDouble ? make<double>(ctx) : make<float>(ctx); }

const OpRegistration rows({{"CtcLoss", kTiercelDomain, 1, infer, half_as_float<prepare>}});

void grad(GradContext& c) {
  c.check(!c.dy(1), "that of the gradient is not there");
  Value* dy = c.dy();
  if (c.node.attr_string("reduction", "mean") == "none")
    dy = c.w.op("Unsqueeze", {dy, c.w.ints(c.node.attr_int("time_first", 0) ? std::vector<int64_t>{0, 2} : std::vector<int64_t>{1, 2})});
  c.set(0, c.w.mul(dy, c.made_output(1)));
}
const GradRegistration grads({{"CtcLoss", kTiercelDomain, grad}});

}  // namespace
}  // namespace tiercel

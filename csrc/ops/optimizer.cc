// ai.tiercel.Sgd, Momentum, RMSprop, Adagrad, Adam, AdamW, Lion: one step on one parameter, in place where the caller gives outputs the
// memory of inputs.
//   inputs: parameter, gradient, lr, step (int64, from 1), guard?, scale?, m?, v?   outputs: parameter, m?, v?
//   lr, guard and scale are scalars of the parameter's type; `scale` multiplies the gradient; where `guard` (the loss) is not finite nothing changes
//   attributes: momentum, nesterov, beta1, beta2, epsilon, weight_decay (Adam adds it to the gradient; AdamW and Lion shrink the parameter),
//   lr_decay (Adagrad)
#include "kernels/optimizer/optimizer.h"

#include <cstring>

#include "ops/elementwise.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

constexpr int kGradient = 1, kRate = 2, kStep = 3, kGuard = 4, kScale = 5, kM = 6, kV = 7;

struct Form {
  OptimizerKind kind;
  bool decoupled, m, v;
};
constexpr Form kSgd{OptimizerKind::kSgd, false, false, false}, kMomentum{OptimizerKind::kMomentum, false, true, false},
    kRMSprop{OptimizerKind::kRMSprop, false, true, true}, kAdagrad{OptimizerKind::kAdagrad, false, false, true},
    kAdam{OptimizerKind::kAdam, false, true, true}, kAdamW{OptimizerKind::kAdam, true, true, true}, kLion{OptimizerKind::kLion, true, true, false};

template <Form form> void infer(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  ctx.check(t == DType::kFloat || t == DType::kDouble, "the parameter should be float or double, got ", dtype_name(t));
  for (int i : {kGradient, kRate, kGuard, kScale, kM, kV})
    if (ctx.has_input(i)) ctx.check(ctx.dtype(i) == t, "input ", i, " should have the parameter's type");
  ctx.check(ctx.dtype(kStep) == DType::kInt64, "the step should be int64");
  ctx.check(ctx.has_input(kM) == form.m && ctx.has_input(kV) == form.v, "the moments are not those of this optimiser");
  for (int i = 0; i < ctx.num_outputs(); ++i) ctx.set_output(i, ctx.type(0));
}

// What attributes say, and what is computed from them at each step.
struct Settings {
  double momentum, beta1, beta2, epsilon, decay, lr_decay;
  bool nesterov;
  explicit Settings(const Node& n)
      : momentum(n.attr_float("momentum", 0)), beta1(n.attr_float("beta1", 0.9f)), beta2(n.attr_float("beta2", 0.999f)),
        epsilon(n.attr_float("epsilon", 1e-8f)), decay(n.attr_float("weight_decay", 0)), lr_decay(n.attr_float("lr_decay", 0)),
        nesterov(n.attr_int("nesterov", 0) != 0) {}
};

template <class T> OptimizerStep<T> step_of(const Settings& s, const Form& form, double lr, double scale, int64_t t) {
  OptimizerStep<T> step;
  step.kind = form.kind;
  step.nesterov = s.nesterov;
  step.lr = static_cast<T>(form.kind == OptimizerKind::kAdagrad ? lr / (1 + static_cast<double>(t - 1) * s.lr_decay) : lr);
  step.scale = static_cast<T>(scale);
  step.decay = static_cast<T>(form.decoupled ? 0 : s.decay);
  step.shrink = static_cast<T>(form.decoupled ? 1 - lr * s.decay : 1);
  step.momentum = static_cast<T>(s.momentum);
  step.beta1 = static_cast<T>(s.beta1);
  step.beta2 = static_cast<T>(s.beta2);
  step.epsilon = static_cast<T>(s.epsilon);
  step.correction1 = static_cast<T>(1 - std::pow(s.beta1, static_cast<double>(t)));
  step.root_correction2 = static_cast<T>(std::sqrt(1 - std::pow(s.beta2, static_cast<double>(t))));
  return step;
}

void run_step(const OptimizerStep<float>& s) { optimizer().step(s); }
void run_step(const OptimizerStep<double>& s) { reference::optimizer_step(s); }

template <class T, Form form> void make(PrepareContext& ctx) {
  const Settings settings(ctx.node);
  const int64_t n = ctx.shape(0).count();
  for (int i : {kGradient, kM, kV})
    if (ctx.has_input(i) && !(ctx.shape(i) == ctx.shape(0))) ctx.fail("input ", i, " should have the parameter's shape");
  for (int i : {kRate, kStep, kGuard, kScale})
    if (ctx.has_input(i) && ctx.shape(i).count() != 1) ctx.fail("input ", i, " should be a scalar");
  const int m_out = 1, v_out = form.m ? 2 : 1;
  ctx.updates(0, 0);
  if (form.m) ctx.updates(m_out, kM);
  if (form.v) ctx.updates(v_out, kV);
  const double streams = 3 + 2 * form.m + 2 * form.v;
  ctx.cost(12 * static_cast<double>(n), streams * static_cast<double>(sizeof(T)) * static_cast<double>(n));
  ctx.run([=](const Args& a, Worker& w) {
    const T* guard = a.in<T>(kGuard);
    const bool skip = guard && !std::isfinite(*guard);
    const T* scale = a.in<T>(kScale);
    const OptimizerStep<T> all = step_of<T>(settings, form, *a.in<T>(kRate), scale ? static_cast<double>(*scale) : 1, *a.in<int64_t>(kStep));
    w.parallel_for(n, 16384, [&](int64_t b, int64_t e) {
      const auto own = [&](int in, int out) {
        T* to = a.out<T>(out) + b;
        if (const T* from = a.in<T>(in) + b; from != to) std::memcpy(to, from, static_cast<size_t>(e - b) * sizeof(T));
        return to;
      };
      OptimizerStep<T> s = all;
      s.n = e - b;
      s.g = a.in<T>(kGradient) + b;
      s.p = own(0, 0);
      if (form.m) s.m = own(kM, m_out);
      if (form.v) s.v = own(kV, v_out);
      if (!skip) run_step(s);
    });
  });
}

template <Form form> void prepare(PrepareContext& ctx) {
  if (ctx.dtype(0) == DType::kDouble) make<double, form>(ctx);
  else make<float, form>(ctx);
}

#define TIERCEL_ROW(name) {#name, kTiercelDomain, 1, infer<k##name>, prepare<k##name>}
const OpRegistration rows({
    TIERCEL_ROW(Sgd), TIERCEL_ROW(Momentum), TIERCEL_ROW(RMSprop), TIERCEL_ROW(Adagrad), TIERCEL_ROW(Adam), TIERCEL_ROW(AdamW), TIERCEL_ROW(Lion),
});
#undef TIERCEL_ROW

}  // namespace
}  // namespace tiercel

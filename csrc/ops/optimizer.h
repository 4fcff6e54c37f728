// What the optimisers' operators share (optimizer.cc: lists of parameters; optimizer_rows.cc: one, whose gradient is a list of rows).
#pragma once
#include <cmath>

#include "graph/graph.h"
#include "kernels/optimizer/optimizer.h"
#include "ops/registry.h"

namespace tiercel::optimizers {

inline constexpr int kRate = 0, kStep = 1, kGuard = 2, kScale = 3, kFirst = 4;  // inputs

struct Form {
  OptimizerKind kind;
  bool decoupled, m, v;
};
inline constexpr Form kSgd{OptimizerKind::kSgd, false, false, false}, kMomentum{OptimizerKind::kMomentum, false, true, false},
    kRMSprop{OptimizerKind::kRMSprop, false, true, true}, kAdagrad{OptimizerKind::kAdagrad, false, false, true},
    kAdam{OptimizerKind::kAdam, false, true, true}, kAdamW{OptimizerKind::kAdam, true, true, true}, kLion{OptimizerKind::kLion, true, true, false};

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

inline void check_scalars(PrepareContext& ctx) {
  for (const int i : {kRate, kStep, kGuard, kScale})
    if (ctx.has_input(i) && ctx.shape(i).count() != 1) ctx.fail("input ", i, " should be a scalar");
}

// Has a check found something that is not finite? Nothing changes then.
inline bool is_stopped(const Args& a) {
  const int64_t* const guard = a.in<int64_t>(kGuard);
  return guard && *guard >= 0;
}

template <class T> OptimizerStep<T> step_of(const Settings& s, const Form& form, const Args& a) {
  const T* const scale = a.in<T>(kScale);
  return step_of<T>(s, form, *a.in<T>(kRate), scale ? static_cast<double>(*scale) : 1, *a.in<int64_t>(kStep));
}

inline void run_step(const OptimizerStep<float>& s) { optimizer().step(s); }
inline void run_step(const OptimizerStep<double>& s) { reference::optimizer_step(s); }

}  // namespace tiercel::optimizers

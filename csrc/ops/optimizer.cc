// ai.tiercel.Sgd, Momentum, RMSprop, Adagrad, Adam, AdamW, Lion: one step on a list of parameters, in place where the caller gives outputs the
// memory of inputs.
//   inputs: lr, step (int64, from 1), guard?, scale?, then n parameters, their n gradients, n m (where there is one), n v   outputs: n parameters, n m, n v
//   lr and scale are scalars of the parameters' type; `scale` multiplies the gradients; where `guard` (int64, of a GradientCheck) is not negative nothing changes
//   attributes: momentum, nesterov, beta1, beta2, epsilon, weight_decay (Adam adds it to the gradient; AdamW and Lion shrink the parameter),
//   lr_decay (Adagrad)
// The elements of all parameters are one range, cut into chunks: a model of many small ones costs one pass, without a barrier within.
#include "ops/optimizer.h"

#include <cstring>
#include <vector>

#include "ops/elementwise.h"
#include "ops/numeric.h"
#include "ops/ranges.h"

namespace tiercel {
namespace {

using namespace optimizers;

// Where the lists stand, of n parameters each.
template <Form form> struct Lists {
  int64_t n;
  int parameter(int64_t k) const { return static_cast<int>(kFirst + k); }
  int gradient(int64_t k) const { return static_cast<int>(kFirst + n + k); }
  int m(int64_t k) const { return static_cast<int>(kFirst + 2 * n + k); }
  int v(int64_t k) const { return static_cast<int>(kFirst + (2 + form.m) * n + k); }
  int m_out(int64_t k) const { return static_cast<int>(n + k); }
  int v_out(int64_t k) const { return static_cast<int>((1 + form.m) * n + k); }
  static constexpr int kLists = 2 + form.m + form.v;
};

template <Form form> void infer(InferContext& ctx) {
  using L = Lists<form>;
  const L lists{(ctx.num_inputs() - kFirst) / L::kLists};
  ctx.check(lists.n > 0 && ctx.num_inputs() == kFirst + lists.n * L::kLists,
            "the inputs should be lr, step, guard, scale and ", L::kLists, " lists of one length, got ", ctx.num_inputs(), " inputs");
  for (int i = 0; i < ctx.num_inputs(); ++i) ctx.check(i == kGuard || i == kScale || ctx.has_input(i), "input ", i, " is missing");
  const int64_t results = lists.n * (1 + form.m + form.v);
  ctx.check(ctx.num_outputs() == results, "there should be ", results, " outputs, got ", ctx.num_outputs());
  for (int i = 0; i < ctx.num_outputs(); ++i) ctx.check(ctx.has_output(i), "output ", i, " is missing");
  const DType t = ctx.dtype(kFirst);
  ctx.check(t == DType::kFloat || t == DType::kDouble, "the parameters should be float or double, got ", dtype_name(t));
  for (int i : {kStep, kGuard})
    if (ctx.has_input(i)) ctx.check(ctx.dtype(i) == DType::kInt64, "input ", i, " (step, guard) should be int64, got ", dtype_name(ctx.dtype(i)));
  for (int i = 0; i < ctx.num_inputs(); ++i)
    if (i != kStep && i != kGuard && (i >= kFirst || ctx.has_input(i))) ctx.check(ctx.dtype(i) == t, "input ", i, " should have the parameters' type");
  for (int64_t k = 0; k < lists.n; ++k) {
    const Type& type = ctx.type(lists.parameter(k));
    ctx.set_output(static_cast<int>(k), type);
    if (form.m) ctx.set_output(lists.m_out(k), type);
    if (form.v) ctx.set_output(lists.v_out(k), type);
  }
}

template <class T, Form form> void make(PrepareContext& ctx) {
  const Settings settings(ctx.node);
  const Lists<form> lists{(ctx.num_inputs() - kFirst) / Lists<form>::kLists};
  check_scalars(ctx);
  Ranges range;
  for (int64_t k = 0; k < lists.n; ++k) {
    const Shape& shape = ctx.shape(lists.parameter(k));
    for (int i : {lists.gradient(k), form.m ? lists.m(k) : 0, form.v ? lists.v(k) : 0})
      if (i && !(ctx.shape(i) == shape)) ctx.fail("input ", i, " should have its parameter's shape ", shape.str(), ", but has ", ctx.shape(i).str());
    range.begin.push_back(range.count() + shape.count());
    ctx.updates(static_cast<int>(k), lists.parameter(k));
    if (form.m) ctx.updates(lists.m_out(k), lists.m(k));
    if (form.v) ctx.updates(lists.v_out(k), lists.v(k));
  }
  const double streams = 3 + 2 * form.m + 2 * form.v, n = static_cast<double>(range.count());
  ctx.cost(12 * n, streams * static_cast<double>(sizeof(T)) * n);
  ctx.run([=, range = std::move(range)](const Args& a, Worker& w) {
    const bool skip = is_stopped(a);
    const OptimizerStep<T> all = step_of<T>(settings, form, a);
    w.parallel_for(range.count(), 16384, [&](int64_t from, int64_t to) {
      range.walk(from, to, [&](int64_t k, int64_t b, int64_t e) {
        const auto own = [&](int in, int64_t out) {
          T* to = a.out<T>(static_cast<int>(out)) + b;
          if (const T* from = a.in<T>(in) + b; from != to) std::memcpy(to, from, static_cast<size_t>(e - b) * sizeof(T));
          return to;
        };
        OptimizerStep<T> s = all;
        s.n = e - b;
        s.g = a.in<T>(lists.gradient(k)) + b;
        s.p = own(lists.parameter(k), k);
        if (form.m) s.m = own(lists.m(k), lists.m_out(k));
        if (form.v) s.v = own(lists.v(k), lists.v_out(k));
        if (!skip) run_step(s);
      });
    });
  });
}

template <Form form> void prepare(PrepareContext& ctx) {
  if (ctx.dtype(kFirst) == DType::kDouble) make<double, form>(ctx);
  else make<float, form>(ctx);
}

#define TIERCEL_ROW(name) {#name, kTiercelDomain, 1, infer<k##name>, prepare<k##name>, nullptr, kUpdates}
const OpRegistration rows({
    TIERCEL_ROW(Sgd), TIERCEL_ROW(Momentum), TIERCEL_ROW(RMSprop), TIERCEL_ROW(Adagrad), TIERCEL_ROW(Adam), TIERCEL_ROW(AdamW), TIERCEL_ROW(Lion),
});
#undef TIERCEL_ROW

}  // namespace
}  // namespace tiercel

// ai.tiercel.Sgd, Momentum, RMSprop, Adagrad, Adam, AdamW, Lion: one step on a list of parameters, in place where the caller gives outputs the
// memory of inputs.
//   inputs: lr, step (int64, from 1), guard?, scale?, then n parameters, their n gradients, n m (where there is one), n v   outputs: n parameters, n m, n v
//   lr, guard and scale are scalars of the parameters' type; `scale` multiplies the gradients; where `guard` (the loss) is not finite nothing changes
//   attributes: momentum, nesterov, beta1, beta2, epsilon, weight_decay (Adam adds it to the gradient; AdamW and Lion shrink the parameter),
//   lr_decay (Adagrad)
// The elements of all parameters are one range, cut into chunks: a model of many small ones costs one pass, without a barrier within.
//
// ai.tiercel.ClipScale: what gradients are multiplied with so that their norm over all of them is at most `max_norm`.
//   inputs: scale? (a double that multiplies the gradients first), gradients (float or double)   output: scale min(1, max_norm / (scale norm + 1e-6)), a double
#include "ops/optimizer.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/reduce/reduce.h"
#include "ops/elementwise.h"
#include "ops/numeric.h"

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
  ctx.check(ctx.dtype(kStep) == DType::kInt64, "the step should be int64");
  for (int i = 0; i < ctx.num_inputs(); ++i)
    if (i != kStep && (i >= kFirst || ctx.has_input(i))) ctx.check(ctx.dtype(i) == t, "input ", i, " should have the parameters' type");
  for (int64_t k = 0; k < lists.n; ++k) {
    const Type& type = ctx.type(lists.parameter(k));
    ctx.set_output(static_cast<int>(k), type);
    if (form.m) ctx.set_output(lists.m_out(k), type);
    if (form.v) ctx.set_output(lists.v_out(k), type);
  }
}

// Lists of elements as one range: where each begins, and the end.
struct Range {
  std::vector<int64_t> begin{0};
  int64_t count() const { return begin.back(); }
  // f(k, b, e) for elements [b, e) of list k, which together are [from, to) of the range.
  template <class F> void walk(int64_t from, int64_t to, F&& f) const {
    auto k = std::upper_bound(begin.begin(), begin.end(), from) - begin.begin() - 1;
    for (; from < to; ++k) {
      const int64_t end = std::min(to, begin[static_cast<size_t>(k) + 1]), first = begin[static_cast<size_t>(k)];
      if (end > from) f(k, from - first, end - first);
      from = std::max(from, end);
    }
  }
};

template <class T, Form form> void make(PrepareContext& ctx) {
  const Settings settings(ctx.node);
  const Lists<form> lists{(ctx.num_inputs() - kFirst) / Lists<form>::kLists};
  for (int i : {kRate, kStep, kGuard, kScale})
    if (ctx.has_input(i) && ctx.shape(i).count() != 1) ctx.fail("input ", i, " should be a scalar");
  Range range;
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
    const T* guard = a.in<T>(kGuard);
    const bool skip = guard && !std::isfinite(*guard);
    const T* scale = a.in<T>(kScale);
    const OptimizerStep<T> all = step_of<T>(settings, form, *a.in<T>(kRate), scale ? static_cast<double>(*scale) : 1, *a.in<int64_t>(kStep));
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

void infer_clip(InferContext& ctx) {
  ctx.check(ctx.num_inputs() > 1, "there are no gradients");
  if (ctx.has_input(0)) ctx.check(ctx.dtype(0) == DType::kDouble, "the scale should be double, got ", dtype_name(ctx.dtype(0)));
  for (int i = 1; i < ctx.num_inputs(); ++i)
    ctx.check(ctx.dtype(i) == DType::kFloat || ctx.dtype(i) == DType::kDouble, "gradient ", i, " should be float or double, got ", dtype_name(ctx.dtype(i)));
  ctx.set_output(0, DType::kDouble, Shape{});
}

// Sums of squares of blocks, by the shapes alone, are added in order: the same bits on any number of threads.
void prepare_clip(PrepareContext& ctx) {
  constexpr int64_t kBlock = 4096;
  if (ctx.has_input(0) && ctx.shape(0).count() != 1) ctx.fail("the scale should be a scalar");
  Range blocks;
  std::vector<int64_t> counts;
  std::vector<bool> wide;
  double n = 0;
  for (int i = 1; i < ctx.num_inputs(); ++i) {
    counts.push_back(ctx.shape(i).count());
    wide.push_back(ctx.dtype(i) == DType::kDouble);
    blocks.begin.push_back(blocks.count() + (counts.back() + kBlock - 1) / kBlock);
    n += static_cast<double>(counts.back());
  }
  const double most = static_cast<double>(ctx.node.attr_float("max_norm", 1));
  ctx.workspace(blocks.count() * static_cast<int64_t>(sizeof(double)));
  ctx.cost(2 * n, 4 * n);
  ctx.run([=](const Args& a, Worker& w) {
    double* const sums = a.workspace<double>();
    w.parallel_for(blocks.count(), 4, [&](int64_t from, int64_t to) {
      blocks.walk(from, to, [&](int64_t k, int64_t b, int64_t e) {
        const int in = static_cast<int>(k) + 1;
        for (int64_t block = b; block < e; ++block) {
          const int64_t at = block * kBlock, size = std::min(kBlock, counts[static_cast<size_t>(k)] - at);
          double& sum = sums[blocks.begin[static_cast<size_t>(k)] + block];
          if (wide[static_cast<size_t>(k)]) {
            const double* x = a.in<double>(in) + at;
            sum = 0;
            for (int64_t i = 0; i < size; ++i) sum += x[i] * x[i];
          } else {
            float y = 0;
            reduce().rows[static_cast<int>(ReduceMap::kSumSquare)](a.in<float>(in) + at, 1, size, size, nullptr, &y);
            sum = static_cast<double>(y);
          }
        }
      });
    });
    w.barrier();
    if (w.index() != 0) return;
    double total = 0;
    for (int64_t i = 0; i < blocks.count(); ++i) total += sums[i];
    const double scale = a.in<double>(0) ? *a.in<double>(0) : 1, part = most / (std::fabs(scale) * std::sqrt(total) + 1e-6);
    *a.out<double>(0) = scale * (part > 1 ? 1 : part);  // a norm that is not a number goes on
  });
}

#define TIERCEL_ROW(name) {#name, kTiercelDomain, 1, infer<k##name>, prepare<k##name>, nullptr, kUpdates}
const OpRegistration rows({
    TIERCEL_ROW(Sgd), TIERCEL_ROW(Momentum), TIERCEL_ROW(RMSprop), TIERCEL_ROW(Adagrad), TIERCEL_ROW(Adam), TIERCEL_ROW(AdamW), TIERCEL_ROW(Lion),
    {"ClipScale", kTiercelDomain, 1, infer_clip, prepare_clip},
});
#undef TIERCEL_ROW

}  // namespace
}  // namespace tiercel

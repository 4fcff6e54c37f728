// ai.tiercel.SgdRows, MomentumRows, ...: the step of Sgd, Momentum, ... (optimizer.cc) on one parameter whose gradient is zero but in some rows.
//   inputs: lr, step, guard?, scale?, the parameter, rows and sums as GatherRowsGrad gives them, m (where there is one), v   outputs: the parameter, m, v
//   attributes: those of the step, and lazy: rows without gradient, and their m and v, stay as they are (Adam's is PyTorch's SparseAdam then, whose
//   epsilon joins the root of v before the correction: p -= lr sqrt c2 / c1 m / (sqrt v + eps))
// Without `lazy` the result is that of the whole gradient, bit by bit (with clip_norm to rounding). Sgd and Adagrad without weight decay change nothing
// where the gradient is zero, so they pass over those rows all the same; the others walk the table.
#include <algorithm>
#include <cstring>

#include "ops/elementwise.h"
#include "ops/numeric.h"
#include "ops/optimizer.h"

namespace tiercel {
namespace {

using namespace optimizers;

constexpr int kParameter = kFirst, kRows = kFirst + 1, kSums = kFirst + 2, kMoments = kFirst + 3;

template <Form form> void infer(InferContext& ctx) {
  constexpr int kStates = 1 + form.m + form.v;
  ctx.check(ctx.num_inputs() == kMoments + kStates - 1, "there should be ", kMoments + kStates - 1, " inputs, got ", ctx.num_inputs());
  ctx.check(ctx.num_outputs() == kStates, "there should be ", kStates, " outputs, got ", ctx.num_outputs());
  const DType t = ctx.dtype(kParameter);
  ctx.check(t == DType::kFloat || t == DType::kDouble, "the parameter should be float or double, got ", dtype_name(t));
  for (int i = 0; i < ctx.num_inputs(); ++i) {
    if (!ctx.has_input(i) && (i == kGuard || i == kScale)) continue;
    const DType right = i == kStep || i == kGuard || i == kRows ? DType::kInt64 : t;
    ctx.check(ctx.dtype(i) == right, "input ", i, " should be ", dtype_name(right), ", got ", dtype_name(ctx.dtype(i)));
  }
  for (int i = 0; i < kStates; ++i) {
    ctx.check(ctx.has_output(i), "output ", i, " is missing");
    ctx.set_output(i, ctx.type(kParameter));
  }
}

// How many rows there are; an error where they are not ascending and within the table.
int64_t count_rows(const int64_t* rows, int64_t most, int64_t extent, const std::string& label) {
  int64_t n = 0, last = -1;
  for (; n < most && rows[n] != -1; last = rows[n++])
    if (rows[n] <= last || rows[n] >= extent)
      fail(Code::kInvalidArgument, label, ": rows should be ascending and below ", extent, ", but ", rows[n], " comes after ", last);
  return n;
}

// Does a zero gradient leave a parameter and its moments as they are?
template <class T> bool rests(const OptimizerStep<T>& s) {
  if (s.decay != 0 || s.shrink != 1 || !std::isfinite(s.lr) || !std::isfinite(s.scale)) return false;
  return s.kind == OptimizerKind::kSgd || (s.kind == OptimizerKind::kAdagrad && s.epsilon > 0);
}

constexpr int64_t kZeros = 4096;
template <class T> alignas(64) constexpr T zeros[kZeros] = {};

template <class T, Form form> void make(PrepareContext& ctx) {
  constexpr int kStates = 1 + form.m + form.v;
  const Shape& table = ctx.shape(kParameter);
  check_scalars(ctx);
  if (table.rank() == 0) ctx.fail("the parameter should have rank 1 at least");
  const int64_t most = ctx.shape(kRows).count(), extent = table[0], block = table.count(1, table.rank());
  Shape sums = table;
  sums[0] = most;
  if (!(ctx.shape(kSums) == sums)) ctx.fail("input ", kSums, " should have the shape ", sums.str(), ", but has ", ctx.shape(kSums).str());
  const auto in_of = [](int k) { return k == 0 ? kParameter : kMoments + k - 1; };
  for (int k = 0; k < kStates; ++k) {
    if (!(ctx.shape(in_of(k)) == table)) ctx.fail("input ", in_of(k), " should have the parameter's shape ", table.str(), ", but has ", ctx.shape(in_of(k)).str());
    ctx.updates(k, in_of(k));
  }
  const Settings settings(ctx.node);
  const bool lazy = ctx.node.attr_int("lazy", 0) != 0;
  const bool some = lazy || rests(step_of<T>(settings, form, 1, 1, 1));
  const double n = static_cast<double>((some ? most : extent) * block);
  ctx.cost(12 * n, (2 * kStates + 1) * static_cast<double>(sizeof(T)) * n);
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    const int64_t* const rows = a.in<int64_t>(kRows);
    const int64_t count = count_rows(rows, most, extent, label);
    bool copies = false;
    for (int k = 0; k < kStates; ++k) {
      const T* const from = a.in<T>(in_of(k));
      T* const to = a.out<T>(k);
      if (from == to) continue;
      copies = true;
      w.parallel_for(extent * block, 65536, [&](int64_t b, int64_t e) { std::memcpy(to + b, from + b, static_cast<size_t>(e - b) * sizeof(T)); });
    }
    if (copies) w.barrier();
    if (is_stopped(a)) return;
    OptimizerStep<T> all = step_of<T>(settings, form, a);
    if (lazy) all.epsilon /= all.root_correction2;
    const T* const g = a.in<T>(kSums);
    const auto update = [&](int64_t at, int64_t size, const T* gradient) {
      OptimizerStep<T> s = all;
      s.n = size;
      s.g = gradient;
      s.p = a.out<T>(0) + at;
      if (form.m) s.m = a.out<T>(1) + at;
      if (form.v) s.v = a.out<T>(1 + form.m) + at;
      run_step(s);
    };
    if (lazy || rests(all))
      return w.parallel_for(count, grain_for(block), [&](int64_t b, int64_t e) {
        for (int64_t i = b; i < e; ++i) update(rows[i] * block, block, g + i * block);
      });
    w.parallel_for(extent, grain_for(block), [&](int64_t b, int64_t e) {
      int64_t i = std::lower_bound(rows, rows + count, b) - rows;
      for (int64_t r = b; r < e; ++r, ++i) {
        const int64_t next = i < count ? std::min(rows[i], e) : e;
        for (int64_t at = r * block; at < next * block; at += kZeros) update(at, std::min(kZeros, next * block - at), zeros<T>);
        r = next;
        if (r < e) update(r * block, block, g + i * block);
      }
    });
  });
}

template <Form form> void prepare(PrepareContext& ctx) {
  if (ctx.dtype(kParameter) == DType::kDouble) make<double, form>(ctx);
  else make<float, form>(ctx);
}

#define TIERCEL_ROW(name) {#name "Rows", kTiercelDomain, 1, infer<k##name>, prepare<k##name>, nullptr, kUpdates}
const OpRegistration registered({
    TIERCEL_ROW(Sgd), TIERCEL_ROW(Momentum), TIERCEL_ROW(RMSprop), TIERCEL_ROW(Adagrad), TIERCEL_ROW(Adam), TIERCEL_ROW(AdamW), TIERCEL_ROW(Lion),
});
#undef TIERCEL_ROW

}  // namespace
}  // namespace tiercel

// What is found out of gradients before an optimiser may use them.
//
// ai.tiercel.GradientCheck: which of them is the first with an element that is not finite.
//   inputs: loss? (float or double), previous? (int64, of another check), gradients (float or double)   attribute: base
//   output: int64: `previous` where that is not negative, kLossNotFinite where the loss is not finite, base + the number of the first such gradient, else -1
//
// ai.tiercel.ClipScale: what gradients are multiplied with so that their norm over all of them is at most `max_norm`, and the same check.
//   inputs: scale? (a double that multiplies the gradients first), loss?, previous?, gradients
//   outputs: scale min(1, max_norm / (scale norm + 1e-6)), a double; the check
//
// Sums of squares of blocks, by the shapes alone, are added in order: the same bits on any number of threads. Where the sum is finite all elements are; else
// they are looked at one by one, as a square may have overflowed.
#include "ops/gradient_check.h"

#include <cmath>
#include <vector>

#include "kernels/reduce/reduce.h"
#include "ops/elementwise.h"
#include "ops/numeric.h"
#include "ops/ranges.h"

namespace tiercel {
namespace {

constexpr int64_t kBlock = 4096;

template <bool clip> struct Check {
  static constexpr int kScale = clip ? 0 : -1, kLoss = clip, kPrevious = kLoss + 1, kFirst = kPrevious + 1;
  struct List { int64_t count; bool wide; };
  std::vector<List> lists;
  Ranges blocks;
  int64_t base = 0;
  double most = 0;
  int loss = 0;  // bytes; 0: none
  bool checks = true;

  static void infer(InferContext& ctx) {
    const auto real = [](DType t) { return t == DType::kFloat || t == DType::kDouble; };
    ctx.check(ctx.num_inputs() > kFirst, "there are no gradients");
    if (clip && ctx.has_input(0)) ctx.check(ctx.dtype(0) == DType::kDouble, "the scale should be double, got ", dtype_name(ctx.dtype(0)));
    if (ctx.has_input(kLoss)) ctx.check(real(ctx.dtype(kLoss)), "the loss should be float or double, got ", dtype_name(ctx.dtype(kLoss)));
    if (ctx.has_input(kPrevious)) ctx.check(ctx.dtype(kPrevious) == DType::kInt64, "the check before should be int64, got ", dtype_name(ctx.dtype(kPrevious)));
    for (int i = kFirst; i < ctx.num_inputs(); ++i)
      ctx.check(real(ctx.dtype(i)), "gradient ", i - kFirst, " should be float or double, got ", dtype_name(ctx.dtype(i)));
    if (clip) ctx.set_output(0, DType::kDouble, Shape{});
    ctx.set_output(clip, DType::kInt64, Shape{});
  }

  static void prepare(PrepareContext& ctx) {
    Check c;
    for (int i = 0; i < kFirst; ++i)
      if (ctx.has_input(i) && ctx.shape(i).count() != 1) ctx.fail("input ", i, " should be a scalar");
    double n = 0, bytes = 0;
    for (int i = kFirst; i < ctx.num_inputs(); ++i) {
      c.lists.push_back({ctx.shape(i).count(), ctx.dtype(i) == DType::kDouble});
      const int64_t count = c.lists.back().count;
      c.blocks.begin.push_back(c.blocks.count() + (count + kBlock - 1) / kBlock);
      n += static_cast<double>(count);
      bytes += static_cast<double>(bytes_of(ctx.dtype(i), count));
    }
    c.checks = ctx.has_output(clip);
    c.base = ctx.node.attr_int("base", 0);
    c.most = static_cast<double>(ctx.node.attr_float("max_norm", 1));
    c.loss = ctx.has_input(kLoss) ? ctx.dtype(kLoss) == DType::kDouble ? 8 : 4 : 0;
    ctx.workspace(c.blocks.count() * static_cast<int64_t>(sizeof(double)));
    ctx.cost(2 * n, bytes);
    ctx.run([c = std::move(c)](const Args& a, Worker& w) { c.run(a, w); });
  }

  void run(const Args& a, Worker& w) const {
    double* const sums = a.workspace<double>();
    w.parallel_for(blocks.count(), 4, [&](int64_t from, int64_t to) {
      blocks.walk(from, to, [&](int64_t k, int64_t b, int64_t e) {
        const List& list = lists[static_cast<size_t>(k)];
        const int in = kFirst + static_cast<int>(k);
        for (int64_t block = b; block < e; ++block) {
          const int64_t at = block * kBlock, size = std::min(kBlock, list.count - at);
          double& sum = sums[blocks.begin[static_cast<size_t>(k)] + block];
          if (list.wide) {
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
    if constexpr (clip) {
      const double scale = a.in<double>(0) ? *a.in<double>(0) : 1, part = most / (std::fabs(scale) * std::sqrt(total) + 1e-6);
      *a.out<double>(0) = scale * (part > 1 ? 1 : part);  // a norm that is not a number goes on
    }
    if (!checks) return;
    int64_t* const out = a.out<int64_t>(clip);
    const int64_t* const previous = a.in<int64_t>(kPrevious);
    if (previous && *previous >= 0) *out = *previous;
    else if (loss && !std::isfinite(loss == 8 ? *a.in<double>(kLoss) : static_cast<double>(*a.in<float>(kLoss)))) *out = kLossNotFinite;
    else *out = std::isfinite(total) ? -1 : first(a, sums);
  }

  int64_t first(const Args& a, const double* sums) const {
    for (size_t k = 0; k < lists.size(); ++k)
      for (int64_t block = blocks.begin[k]; block < blocks.begin[k + 1]; ++block) {
        if (std::isfinite(sums[block])) continue;
        const int64_t at = (block - blocks.begin[k]) * kBlock, end = std::min(at + kBlock, lists[k].count);
        const int in = kFirst + static_cast<int>(k);
        for (int64_t i = at; i < end; ++i)
          if (!std::isfinite(lists[k].wide ? a.in<double>(in)[i] : static_cast<double>(a.in<float>(in)[i]))) return base + static_cast<int64_t>(k);
      }
    return -1;
  }
};

const OpRegistration rows({
    {"GradientCheck", kTiercelDomain, 1, Check<false>::infer, Check<false>::prepare, nullptr, kUpdates},  // it goes up to the gradients, as updates do
    {"ClipScale", kTiercelDomain, 1, Check<true>::infer, Check<true>::prepare},
});

}  // namespace
}  // namespace tiercel

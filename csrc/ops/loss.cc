// NegativeLogLikelihoodLoss and SoftmaxCrossEntropyLoss. Scores [N, C, ...], target [N, ...], weight [C].
#include "ops/grad_tools.h"
#include "ops/movement.h"
#include "ops/numeric.h"
#include "ops/softmax_strip.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  const DType t = ctx.dtype(0);
  ctx.check(ctx.dtype(1) == DType::kInt64 || ctx.dtype(1) == DType::kInt32, "the target should be int32 or int64, got ", dtype_name(ctx.dtype(1)));
  if (ctx.has_input(2)) ctx.check(ctx.dtype(2) == t, "scores and weight should have one type");
  const std::string reduction = ctx.node.attr_string("reduction", "mean");
  ctx.check(reduction == "mean" || reduction == "sum" || reduction == "none", "reduction \"", reduction, "\" is not known");
  ctx.set_output(1, ctx.type(0));
  ctx.set_output(0, reduction == "none" ? Type::tensor(t) : Type::tensor(t, Shape()));
  if (!ctx.ranked(0)) return;
  const Shape& x = ctx.shape(0);
  ctx.check(x.rank() >= 2, "the scores should be [N, C, ...], got ", x);
  Shape each = x;
  each.erase(1);
  if (ctx.ranked(1)) {
    ctx.check(ctx.shape(1).rank() == each.rank(), "the target should have the scores' axes without the second, got ", ctx.shape(1));
    for (int i = 0; i < each.rank(); ++i) each[i] = unify(ctx, each[i], ctx.shape(1)[i], "extents of scores and target");
  }
  if (ctx.has_input(2) && ctx.ranked(2)) {
    ctx.check(ctx.shape(2).rank() == 1, "the weight should have one axis");
    unify(ctx, ctx.shape(2)[0], x[1], "weights and classes");
  }
  if (reduction == "none") ctx.set_output(0, t, each);
}

// y = x - log sum exp x along the classes, [outer, n, inner].
void log_softmax(const double* x, const AxisView& v, double* y, Worker& w) {
  w.parallel_for(v.outer * v.inner, grain_for(8 * v.n), [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const int64_t at = i / v.inner * v.n * v.inner + i % v.inner;
      double most = -std::numeric_limits<double>::infinity(), sum = 0;
      for (int64_t c = 0; c < v.n; ++c) most = std::max(most, x[at + c * v.inner]);
      for (int64_t c = 0; c < v.n; ++c) sum += std::exp(x[at + c * v.inner] - most);
      const double log_sum = std::log(sum);
      for (int64_t c = 0; c < v.n; ++c) y[at + c * v.inner] = x[at + c * v.inner] - most - log_sum;
    }
  });
}

void log_softmax(const float* x, const AxisView& v, float* y, Worker& w) {
  if (v.inner == 1) {
    w.parallel_for(v.outer, grain_for(v.n, 8192), [&](int64_t b, int64_t e) { softmax().rows[1](x + b * v.n, e - b, v.n, y + b * v.n); });
    return;
  }
  const int64_t strip = softmax_strip(v.n), strips = ceil_div(v.inner, strip);
  w.parallel_for(v.outer * strips, 1, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      const int64_t c = i % strips * strip, at = i / strips * v.n * v.inner + c;
      softmax().columns[1](x + at, v.n, v.inner, std::min(strip, v.inner - c), y + at);
    }
  });
}

template <class T, class Index> void make(PrepareContext& ctx, bool softmax) {
  const AxisView v(ctx.shape(0), 1);
  const std::string reduction = ctx.node.attr_string("reduction", "mean");
  const bool none = reduction == "none", mean = reduction == "mean", has_ignored = ctx.node.has("ignore_index");
  const bool gives_log = softmax && ctx.has_output(1), gives_loss = ctx.has_output(0);
  const int64_t ignored = ctx.node.attr_int("ignore_index", 0), n = v.outer * v.inner;
  const int64_t scores = softmax && !gives_log ? round_up(v.outer * v.n * v.inner * static_cast<int64_t>(sizeof(T)), 64) : 0;
  ctx.workspace(scores + 2 * n * static_cast<int64_t>(sizeof(T)));
  ctx.cost(static_cast<double>(softmax ? 20 * v.n * n : n), static_cast<double>(sizeof(T)) * static_cast<double>(softmax ? 2 * v.n * n : 2 * n));
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    const T* x = a.in<T>(0);
    T* const losses = none && gives_loss ? a.out<T>(0) : reinterpret_cast<T*>(a.workspace<char>() + scores);
    T* const weights = reinterpret_cast<T*>(a.workspace<char>() + scores) + n;
    if (softmax) {
      T* y = gives_log ? a.out<T>(1) : a.workspace<T>();
      log_softmax(x, v, y, w);
      w.barrier();
      x = y;
    }
    if (!gives_loss) return;
    w.parallel_for(n, 4096, [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const int64_t t = static_cast<int64_t>(a.in<Index>(1)[i]);
        const bool skip = has_ignored && t == ignored;
        if (!skip && (t < 0 || t >= v.n)) fail(Code::kInvalidArgument, label, ": the target ", t, " is outside [0, ", v.n - 1, "]");
        weights[i] = skip ? T(0) : a.in<T>(2) ? a.in<T>(2)[t] : T(1);
        losses[i] = skip ? T(0) : -x[(i / v.inner * v.n + t) * v.inner + i % v.inner] * weights[i];
      }
    });
    if (none) return;
    w.barrier();
    if (w.index() != 0) return;
    double sum = 0, weight = 0;  // in one order, whatever the threads
    for (int64_t i = 0; i < n; ++i) { sum += static_cast<double>(losses[i]); weight += static_cast<double>(weights[i]); }
    *a.out<T>(0) = static_cast<T>(mean ? sum / weight : sum);
  });
}

template <bool softmax> void prepare(PrepareContext& ctx) {
  const bool wide = ctx.dtype(1) == DType::kInt64;
  if (ctx.dtype(0) == DType::kDouble) return wide ? make<double, int64_t>(ctx, softmax) : make<double, int32_t>(ctx, softmax);
  return wide ? make<float, int64_t>(ctx, softmax) : make<float, int32_t>(ctx, softmax);
}

const OpRegistration rows({
    {"NegativeLogLikelihoodLoss", "", 12, infer, half_as_float<prepare<false>>},
    {"SoftmaxCrossEntropyLoss", "", 12, infer, half_as_float<prepare<true>>},
});

AttributeList loss_attributes(const Node& node, bool softmax) {
  AttributeList list{{"reduction", node.attr_string("reduction", "mean")}, {"softmax", int64_t{softmax}}};
  if (node.has("ignore_index")) list.emplace_back("ignore_index", node.attr_int("ignore_index", 0));
  return list;
}
// Of the class weights: each place's loss by its class; a mean is also divided by the sum of the weights.
Value* grad_weight(GradContext& c, Value* log_probabilities) {
  using namespace grad_tools;
  GraphWriter& w = c.w;
  Value *target = c.x(1), *const weight = c.x(2);
  const DType t = w.dtype(weight);
  Value* counts = nullptr;
  if (c.node.has("ignore_index")) {
    const int64_t ignored = c.node.attr_int("ignore_index", 0);
    Value* const skip = w.op("Equal", {cast(w, target, DType::kInt64), integer(w, ignored)});
    counts = cast(w, w.op("Not", {skip}), t);
    target = w.op("Where", {skip, cast(w, integer(w, 0), w.dtype(target)), target});
  }
  const auto counted = [&](Value* v) { return counts ? w.mul(v, counts) : v; };
  Value* const picked = w.op("GatherElements", {log_probabilities, unsqueeze(w, target, {1})}, {{"axis", int64_t{1}}});
  Value* each = counted(w.neg(w.op("Squeeze", {picked, w.ints({1})})));
  if (c.node.attr_string("reduction", "mean") == "mean") {
    Value* const total = sum_all(w, counted(w.op("Gather", {weight, target})));
    each = w.div(w.sub(each, counted(c.y(0))), total);
  }
  each = w.mul(each, c.dy(0));
  const auto flat = [&](Value* v) { return w.op("Reshape", {v, w.ints({-1})}); };
  return gather_back(w, flat(w.expand_like(each, target)), flat(target), w.shape_of(weight), 0);
}

void grad_nll(GradContext& c) {
  if (c.wants(0)) c.set(0, c.w.op("CrossEntropyGrad", {c.dy(), c.x(0), c.x(1), c.x(2)}, loss_attributes(c.node, false), kTiercelDomain));
  if (c.wants(2)) c.set(2, grad_weight(c, c.x(0)));
}
void grad_cross_entropy(GradContext& c) {
  Value *dx = nullptr, *const scores = c.made_output(1);
  if (c.dy(0) && c.wants(2)) c.set(2, grad_weight(c, scores));
  if (!c.wants(0)) return;
  if (c.dy(0)) dx = c.w.op("CrossEntropyGrad", {c.dy(0), scores, c.x(1), c.x(2)}, loss_attributes(c.node, true), kTiercelDomain);
  if (c.dy(1)) {
    Value* const other = c.w.op("LogSoftmaxGrad", {c.dy(1), scores}, {{"axis", int64_t{1}}}, kTiercelDomain);
    dx = dx ? c.w.add(dx, other) : other;
  }
  c.set(0, dx);
}
const GradRegistration grads({{"NegativeLogLikelihoodLoss", "", grad_nll}, {"SoftmaxCrossEntropyLoss", "", grad_cross_entropy}});

}  // namespace
}  // namespace tiercel

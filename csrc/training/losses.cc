#include "training/losses.h"

#include <limits>
#include <sstream>
#include <utility>

#include "ops/registry.h"

namespace tiercel {
namespace {

using W = GraphWriter;

double option(const LossSpec& s, const char* key, double otherwise) {
  const auto it = s.options.find(key);
  return it == s.options.end() ? otherwise : it->second;
}

Value* reduce(W& w, const LossSpec& s, Value* each) {
  if (s.reduction == "none") return each;
  return w.op(s.reduction == "sum" ? "ReduceSum" : "ReduceMean", {each}, {{"keepdims", int64_t{0}}});
}

Value* at_least(W& w, Value* x, double least) { return w.op("Max", {x, w.scalar_like(least, x)}); }
Value* log(W& w, Value* x) { return w.op("Log", {x}); }
Value* one_minus(W& w, Value* x) { return w.sub(w.scalar_like(1, x), x); }
Value* cast_like(W& w, Value* x, Value* like) {
  return w.dtype(x) == w.dtype(like) ? x : w.op("Cast", {x}, {{"to", static_cast<int64_t>(w.dtype(like))}});
}
Value* sum_over(W& w, Value* x, int64_t axis) { return w.op("ReduceSum", {x, w.ints({axis})}, {{"keepdims", int64_t{0}}}); }

Value* mse(W& w, const LossSpec& s, Value* x, Value* t) {
  Value* const d = w.sub(x, t);
  return reduce(w, s, w.mul(d, d));
}
Value* l1(W& w, const LossSpec& s, Value* x, Value* t) { return reduce(w, s, w.op("Abs", {w.sub(x, t)})); }

Value* huber(W& w, const LossSpec& s, Value* x, Value* t) {
  const double delta = option(s, "delta", 1);
  Value *d = w.sub(x, t), *a = w.op("Abs", {d});
  Value* const linear = w.scale(w.shift(a, -0.5 * delta), delta);
  return reduce(w, s, w.op("Where", {w.op("LessOrEqual", {a, w.scalar_like(delta, a)}), w.scale(w.mul(d, d), 0.5), linear}));
}

// Probabilities are kept off zero and one, where the logarithm and its slope are infinite.
Value* binary_cross_entropy(W& w, const LossSpec& s, Value* p, Value* t) {
  constexpr double kLeast = 1e-12;
  Value* const yes = w.mul(t, log(w, at_least(w, p, kLeast)));
  Value* const no = w.mul(one_minus(w, t), log(w, at_least(w, one_minus(w, p), kLeast)));
  return reduce(w, s, w.neg(w.add(yes, no)));
}

// softplus(x) - t x; with a weight q of the positive ones (1 - t) x + (1 + (q - 1) t) softplus(-x)
Value* with_logits(W& w, const LossSpec& s, Value* x, Value* t) {
  if (!s.weight.defined()) return reduce(w, s, w.sub(w.op("Softplus", {x}), w.mul(t, x)));
  Value* const factor = w.shift(w.mul(w.shift(cast_like(w, w.constant(s.weight), x), -1), t), 1);
  return reduce(w, s, w.add(w.mul(one_minus(w, t), x), w.mul(factor, w.op("Softplus", {w.neg(x)}))));
}

// The prediction is the logarithm of a distribution, as is the target where `log_target` says so.
Value* kl(W& w, const LossSpec& s, Value* x, Value* t) {
  Value* each;
  if (option(s, "log_target", 0) != 0) {
    each = w.mul(w.op("Exp", {t}), w.sub(t, x));
  } else {
    Value *zero = w.scalar_like(0, t), *positive = w.op("Greater", {t, zero});
    each = w.sub(w.op("Where", {positive, w.mul(t, log(w, w.op("Where", {positive, t, w.scalar_like(1, t)}))), zero}), w.mul(t, x));
  }
  if (s.reduction != "batchmean") return reduce(w, s, each);
  Value* const batch = cast_like(w, w.op("Shape", {x}, {{"start", int64_t{0}}, {"end", int64_t{1}}}), x);
  return w.div(w.op("ReduceSum", {each}, {{"keepdims", int64_t{0}}}), w.op("Squeeze", {batch, w.ints({0})}));
}

// Targets are -1 and 1.
Value* hinge(W& w, const LossSpec& s, Value* x, Value* t) {
  return reduce(w, s, w.op("Relu", {w.sub(w.scalar_like(option(s, "margin", 1), x), w.mul(t, x))}));
}

// 1 - cos of the angle between the vectors along the last axis
Value* cosine(W& w, const LossSpec& s, Value* x, Value* t) {
  Value* const dot = sum_over(w, w.mul(x, t), -1);
  Value* const norms = w.op("Sqrt", {w.mul(at_least(w, sum_over(w, w.mul(x, x), -1), 1e-12), at_least(w, sum_over(w, w.mul(t, t), -1), 1e-12))});
  return reduce(w, s, one_minus(w, w.div(dot, norms)));
}

// ---- Cross-entropy of scores [N, C, ...]

Value* class_weights(W& w, const LossSpec& s, Value* x, bool along_axis) {  // [C], or [C, 1, ...] as it broadcasts to the scores
  if (!s.weight.defined()) return nullptr;
  Value* const v = cast_like(w, w.constant(s.weight), x);
  std::vector<int64_t> shape{-1};
  if (along_axis) shape.resize(static_cast<size_t>(w.shape(x).rank()) - 1, 1);
  return w.op("Reshape", {v, w.ints(shape)});
}

Value* of_probabilities(W& w, const LossSpec& s, Value* x, Value* t, double smoothing) {
  Value* const log_p = w.op("LogSoftmax", {x}, {{"axis", int64_t{1}}});
  if (smoothing != 0) {
    Value* const classes = cast_like(w, w.op("Shape", {x}, {{"start", int64_t{1}}, {"end", int64_t{2}}}), x);
    t = w.add(w.scale(t, 1 - smoothing), w.div(w.scalar_like(smoothing, x), classes));
  }
  if (Value* const weight = class_weights(w, s, x, true)) t = w.mul(t, weight);
  return reduce(w, s, w.neg(sum_over(w, w.mul(t, log_p), 1)));
}

Value* of_smoothed_labels(W& w, const LossSpec& s, Value* x, Value* t, double smoothing, AttributeList attributes) {
  Value* const weight = class_weights(w, s, x, false);
  attributes.emplace_back("reduction", std::string("none"));
  const std::vector<Value*> nll = w.ops("SoftmaxCrossEntropyLoss", {x, t, weight}, 2, std::move(attributes));
  Value* valid = nullptr;  // 0 where the label is ignored
  Value* label = t;
  if (s.options.count("ignore_index")) {
    Value* const ignored = w.op("Equal", {t, w.op("Cast", {w.ints({static_cast<int64_t>(option(s, "ignore_index", 0))})},
                                                      {{"to", static_cast<int64_t>(w.dtype(t))}})});
    label = w.op("Where", {ignored, w.sub(t, t), t});
    valid = cast_like(w, w.op("Not", {ignored}), x);
  }
  Value* spread = nll[1];
  if (Value* const along = class_weights(w, s, x, true)) spread = w.mul(spread, along);
  spread = w.neg(w.op("ReduceSum", {spread, w.ints({1})}, {{"keepdims", int64_t{0}}}));
  if (valid) spread = w.mul(spread, valid);
  Value* const classes = cast_like(w, w.op("Shape", {x}, {{"start", int64_t{1}}, {"end", int64_t{2}}}), x);
  Value* const each = w.add(w.scale(nll[0], 1 - smoothing), w.mul(spread, w.div(w.scalar_like(smoothing, x), classes)));
  if (s.reduction != "mean" || (!weight && !valid)) return reduce(w, s, each);
  Value* share = weight ? w.op("Gather", {weight, label}) : w.expand_like(w.scalar_like(1, x), each);
  if (valid) share = w.mul(share, valid);
  const AttributeList all{{"keepdims", int64_t{0}}};
  return w.div(w.op("ReduceSum", {each}, all), w.op("ReduceSum", {share}, all));
}

Value* cross_entropy(W& w, const LossSpec& s, Value* x, Value* t) {
  const double smoothing = option(s, "label_smoothing", 0);
  if (!(smoothing >= 0 && smoothing <= 1)) fail(Code::kInvalidArgument, "label_smoothing should be within [0, 1], is ", smoothing);
  if (!w.ranked(x) || w.shape(x).rank() < 2)
    fail(Code::kInvalidArgument, "cross_entropy takes scores [N, C, ...], but the prediction is ", w.type(x).str());
  if (!s.labels) return of_probabilities(w, s, x, t, smoothing);
  AttributeList attributes;
  if (s.options.count("ignore_index")) attributes.emplace_back("ignore_index", static_cast<int64_t>(option(s, "ignore_index", 0)));
  if (smoothing != 0) return of_smoothed_labels(w, s, x, t, smoothing, std::move(attributes));
  attributes.emplace_back("reduction", s.reduction);
  return w.op("SoftmaxCrossEntropyLoss", {x, t, class_weights(w, s, x, false)}, std::move(attributes));
}

// ---- Connectionist temporal classification of scores [N, T, C] (time_first: [T, N, C]). The target is [N, 1 + S]: how many steps count (-1: all), then
// labels, padded with numbers below zero. What holds log probabilities already is not changed by the log-softmax.

Value* ctc(W& w, const LossSpec& s, Value* x, Value* t) {
  if (!w.ranked(x) || w.shape(x).rank() != 3)
    fail(Code::kInvalidArgument, "ctc takes scores [batch, time, classes] (with time_first [time, batch, classes]), but the prediction is ", w.type(x).str());
  const auto columns = [&](int64_t from, int64_t to) { return w.op("Slice", {t, w.ints({from}), w.ints({to}), w.ints({1})}); };
  Value *lengths = w.op("Squeeze", {columns(0, 1), w.ints({1})}), *labels = columns(1, std::numeric_limits<int64_t>::max());
  Value* const log_p = w.op("LogSoftmax", {x}, {{"axis", int64_t{2}}});
  const auto flag = [&](const char* key) { return int64_t{option(s, key, 0) != 0}; };
  return w.op("CtcLoss", {log_p, labels, lengths}, {{"blank", static_cast<int64_t>(option(s, "blank", 0))}, {"zero_infinity", flag("zero_infinity")},
              {"time_first", flag("time_first")}, {"reduction", s.reduction}}, kTiercelDomain);
}

constexpr LossRow kLosses[] = {
    {"mse", mse, "ignore_nan", false},
    {"l1", l1, "ignore_nan", false},
    {"huber", huber, "delta ignore_nan", false},
    {"cross_entropy", cross_entropy, "label_smoothing ignore_index ignore_nan", true},
    {"binary_cross_entropy", binary_cross_entropy, "ignore_nan", false},
    {"binary_cross_entropy_with_logits", with_logits, "ignore_nan", false},
    {"kl", kl, "log_target ignore_nan", false},
    {"hinge", hinge, "margin ignore_nan", false},
    {"cosine", cosine, "ignore_nan", false},
    {"ctc", ctc, "blank zero_infinity time_first", true},
};

}  // namespace

namespace {

// What has a target of NaN (of vectors and of rows of probabilities one in them) counts for nothing, in the mean's denominator neither. The loss sees a
// target of zero there, so that no NaN goes back.
Value* without_nan(GraphWriter& w, const LossRow& row, LossSpec spec, Value* x, Value* t) {
  const std::string reduction = std::exchange(spec.reduction, "none");
  const AttributeList all{{"keepdims", int64_t{0}}};
  Value *ignored = w.op("IsNaN", {t}), *const zero = w.scalar_like(0, x);
  Value* each = row.build(w, spec, x, w.op("Where", {ignored, w.scalar_like(0, t), t}));
  if (spec.name == "cosine" || spec.name == "cross_entropy")
    ignored = w.op("Greater", {w.op("ReduceMax", {cast_like(w, ignored, x), w.ints({spec.name == "cosine" ? -1 : 1})}, all), zero});
  each = w.op("Where", {ignored, zero, each});
  if (reduction == "none") return each;
  Value* const sum = w.op("ReduceSum", {each}, all);
  if (reduction == "sum") return sum;
  if (reduction == "batchmean") return w.div(sum, w.op("Squeeze", {cast_like(w, w.op("Shape", {x}, {{"start", int64_t{0}}, {"end", int64_t{1}}}), x), w.ints({0})}));
  return w.div(sum, w.op("ReduceSum", {cast_like(w, w.op("Not", {ignored}), x)}, all));
}

}  // namespace

std::span<const LossRow> loss_table() { return kLosses; }

Value* build_loss(GraphWriter& w, const LossSpec& spec, Value* prediction, Value* target) {
  std::string names;
  for (const LossRow& row : kLosses) {
    names += cat(names.empty() ? "" : ", ", row.name);
    if (spec.name != row.name) continue;
    const bool batchmean = spec.reduction == "batchmean" && spec.name == "kl";
    if (spec.reduction != "mean" && spec.reduction != "sum" && spec.reduction != "none" && !batchmean)
      fail(Code::kInvalidArgument, "loss ", row.name, ": reduction \"", spec.reduction, "\" is not known; it may be mean, sum or none");
    for (const auto& [key, value] : spec.options) {
      std::istringstream known(row.options);
      bool found = false;
      for (std::string word; known >> word;) found |= word == key;
      if (!found) fail(Code::kInvalidArgument, "loss ", row.name, " has no option \"", key, "\"; it has: ", *row.options ? row.options : "none");
    }
    if (spec.weight.defined() && spec.name != "cross_entropy" && spec.name != "binary_cross_entropy_with_logits")
      fail(Code::kInvalidArgument, "loss ", row.name, " takes no weight");
    w.name = "loss";
    if (option(spec, "ignore_nan", 0) != 0 && !spec.labels) return without_nan(w, row, spec, prediction, target);
    return row.build(w, spec, prediction, target);
  }
  fail(Code::kInvalidArgument, "there is no loss \"", spec.name, "\"; there are: ", names);
}

}  // namespace tiercel

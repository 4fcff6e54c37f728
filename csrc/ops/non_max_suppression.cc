// NonMaxSuppression: boxes of each class, best score first, without those that overlap a better one too much.
#include <algorithm>
#include <array>

#include "kernels/reduce/reduce.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

template <class Ctx> bool centered(const Ctx& ctx) {
  const int64_t form = ctx.node.attr_int("center_point_box", 0);
  ctx.check(form == 0 || form == 1, "center_point_box should be 0 or 1, got ", form);
  return form == 1;
}

void infer(InferContext& ctx) {
  for (int i : {0, 1}) {
    ctx.check(ctx.dtype(i) == DType::kFloat, "boxes and scores should be float, got ", dtype_name(ctx.dtype(i)));
    ctx.check(!ctx.ranked(i) || ctx.shape(i).rank() == 3, "boxes should be [batch, boxes, 4] and scores [batch, classes, boxes], got ", ctx.type(i));
  }
  if (ctx.has_input(2)) ctx.check(ctx.dtype(2) == DType::kInt64, "max_output_boxes_per_class should be int64");
  for (int i : {3, 4}) if (ctx.has_input(i)) ctx.check(ctx.dtype(i) == DType::kFloat, "the thresholds should be float");
  if (ctx.ranked(0) && ctx.ranked(1)) {
    unify(ctx, ctx.shape(0)[0], ctx.shape(1)[0], "batches of boxes and scores");
    unify(ctx, ctx.shape(0)[1], ctx.shape(1)[2], "numbers of boxes and of scores");
    unify(ctx, ctx.shape(0)[2], 4, "coordinates of a box");
  }
  centered(ctx);
  ctx.set_output(0, DType::kInt64, {ctx.fresh(), 3});
}

struct Box {
  float y0, x0, y1, x1;
  float area() const { return (y1 - y0) * (x1 - x0); }
};

Box box_at(const float* p, bool center) {
  if (center) return {p[1] - p[3] / 2, p[0] - p[2] / 2, p[1] + p[3] / 2, p[0] + p[2] / 2};  // x, y, width, height
  return {std::min(p[0], p[2]), std::min(p[1], p[3]), std::max(p[0], p[2]), std::max(p[1], p[3])};  // any two opposite corners
}

bool overlap(const Box& a, const Box& b, float threshold) {
  const float h = std::min(a.y1, b.y1) - std::max(a.y0, b.y0), w = std::min(a.x1, b.x1) - std::max(a.x0, b.x0);
  if (!(h > 0) || !(w > 0)) return false;
  const float common = h * w, areas = a.area() + b.area() - common;
  return a.area() > 0 && b.area() > 0 && areas > 0 && common / areas > threshold;
}

template <class T> std::optional<T> scalar(const EvalContext& ctx, int i, const char* name) {
  if (!ctx.has_input(i)) return std::nullopt;
  ctx.check(ctx.tensor(i).dtype() == dtype_of<T> && ctx.tensor(i).count() == 1, name, " should be one number, got shape ", ctx.tensor(i).shape());
  return *ctx.tensor(i).as<T>();
}

// The candidates of a class, best score first, lower index first where scores are equal: as many as are asked for are sorted, for few are, mostly.
class Candidates {
 public:
  // Scores that are greater than `least`; without it, all that are numbers.
  void set(const float* score, int64_t n, std::optional<float> least, int64_t most) {
    constexpr int64_t kChunk = 1024;
    int32_t at[kChunk];
    keys_.clear();
    next_ = sorted_ = 0;
    step_ = static_cast<size_t>(std::clamp<int64_t>(most, 16, 1 << 20) * 2);
    if (least && *least != *least) return;  // nothing is greater
    const auto add = [&](int64_t i) { if (score[i] == score[i]) keys_.push_back(uint64_t{~float_order(score[i])} << 32 | static_cast<uint32_t>(i)); };
    for (int64_t first = 0; first < n; first += kChunk) {
      const int64_t some = std::min(kChunk, n - first);
      if (!least) for (int64_t i = first; i < first + some; ++i) add(i);
      else for (int64_t k = 0, found = reduce().beyond(score + first, some, *least, true, at); k < found; ++k) add(first + at[k]);
    }
  }
  // The next one; -1: there is none.
  int64_t next() {
    if (next_ == keys_.size()) return -1;
    if (next_ == sorted_) {
      const size_t end = std::min(keys_.size(), sorted_ + step_);
      if (end < keys_.size()) std::nth_element(keys_.begin() + sorted_, keys_.begin() + end, keys_.end());
      std::sort(keys_.begin() + sorted_, keys_.begin() + end);
      sorted_ = end;
      step_ *= 2;
    }
    return static_cast<int64_t>(keys_[next_++] & 0xffffffffu);
  }

 private:
  std::vector<uint64_t> keys_;
  size_t next_ = 0, sorted_ = 0, step_ = 0;
};

void eval(EvalContext& ctx, Worker&) {
  const Tensor &boxes = ctx.tensor(0), &scores = ctx.tensor(1);
  const Shape &b = boxes.shape(), &s = scores.shape();
  // Inference may not have known the shapes.
  ctx.check(boxes.dtype() == DType::kFloat && scores.dtype() == DType::kFloat, "boxes and scores should be float");
  ctx.check(b.rank() == 3 && s.rank() == 3, "boxes should be [batch, boxes, 4] and scores [batch, classes, boxes], got ", b, " and ", s);
  ctx.check(b[0] == s[0] && b[1] == s[2], "batches and numbers of boxes and of scores should be equal, got ", b, " and ", s);
  ctx.check(b[2] == 4, "coordinates of a box should be 4, got ", b[2]);
  const int64_t most = scalar<int64_t>(ctx, 2, "max_output_boxes_per_class").value_or(0);
  const float iou = scalar<float>(ctx, 3, "iou_threshold").value_or(0);
  const auto least = scalar<float>(ctx, 4, "score_threshold");
  ctx.check(iou >= 0 && iou <= 1, "iou_threshold should be in [0, 1], got ", iou);
  const bool center = centered(ctx);
  const int64_t n = b[1];
  std::vector<std::array<int64_t, 3>> chosen;
  ctx.check(n < (int64_t{1} << 32), "there are ", n, " boxes");
  Candidates candidates;
  std::vector<Box> kept;
  for (int64_t row = 0; most > 0 && n > 0 && row < s[0] * s[1]; ++row) {
    candidates.set(scores.as<float>() + row * n, n, least, most);
    kept.clear();
    while (static_cast<int64_t>(kept.size()) < most) {
      const int64_t i = candidates.next();
      if (i < 0) break;
      const Box box = box_at(boxes.as<float>() + (row / s[1] * n + i) * 4, center);
      if (std::any_of(kept.begin(), kept.end(), [&](const Box& k) { return overlap(box, k, iou); })) continue;
      kept.push_back(box);
      chosen.push_back({row / s[1], row % s[1], i});
    }
  }
  Tensor out(DType::kInt64, {static_cast<Dim>(chosen.size()), 3});
  for (size_t i = 0; i < chosen.size(); ++i) std::copy(chosen[i].begin(), chosen[i].end(), out.as<int64_t>() + 3 * i);
  ctx.set(0, out);
}

const OpRegistration rows({{"NonMaxSuppression", "", 10, infer, nullptr, eval}});

}  // namespace
}  // namespace tiercel

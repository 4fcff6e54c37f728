// NonMaxSuppression: of boxes that overlap by more than a threshold only the one with the highest score, class by class.
#include <algorithm>
#include <numeric>

#include "ops/movement.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  for (int i : {0, 1}) {
    ctx.check(ctx.dtype(i) == DType::kFloat, "boxes and scores should be float");
    ctx.check(!ctx.ranked(i) || ctx.shape(i).rank() == 3, "boxes should be [batches, boxes, 4], scores [batches, classes, boxes]");
  }
  if (ctx.ranked(0) && ctx.ranked(1)) {
    unify(ctx, ctx.shape(0)[2], 4, "the last extent of boxes and the coordinates of a box");
    unify(ctx, ctx.shape(0)[0], ctx.shape(1)[0], "batches of boxes and of scores");
    unify(ctx, ctx.shape(0)[1], ctx.shape(1)[2], "the numbers of boxes and of scores");
  }
  ctx.set_output(0, DType::kInt64, {ctx.fresh(), 3});
}

struct Box {
  float y0, x0, y1, x1;
  float area() const { return (y1 - y0) * (x1 - x0); }
};

Box box_at(const float* b, bool centered) {
  if (centered) return {b[1] - b[3] / 2, b[0] - b[2] / 2, b[1] + b[3] / 2, b[0] + b[2] / 2};
  return {std::min(b[0], b[2]), std::min(b[1], b[3]), std::max(b[0], b[2]), std::max(b[1], b[3])};
}

// Is intersection / union above the threshold? Boxes without an area overlap nothing.
bool overlap(const Box& a, const Box& b, float threshold) {
  const float h = std::min(a.y1, b.y1) - std::max(a.y0, b.y0), w = std::min(a.x1, b.x1) - std::max(a.x0, b.x0);
  if (!(h > 0) || !(w > 0) || !(a.area() > 0) || !(b.area() > 0)) return false;
  const float both = h * w;
  return both / (a.area() + b.area() - both) > threshold;
}

void eval(EvalContext& ctx, Worker&) {
  const Tensor &boxes = ctx.tensor(0), &scores = ctx.tensor(1);
  const Shape &b = boxes.shape(), &s = scores.shape();
  ctx.check(b.rank() == 3 && s.rank() == 3 && b[2] == 4 && b[0] == s[0] && b[1] == s[2],
            "boxes should be [batches, boxes, 4], scores [batches, classes, boxes]: got ", b.str(), " and ", s.str());
  const auto number = [&](int i, double otherwise) {
    if (!ctx.has_input(i)) return otherwise;
    ctx.check(ctx.tensor(i).count() == 1, "input ", i, " should hold one element");
    return ctx.tensor(i).doubles()[0];
  };
  const int64_t most = static_cast<int64_t>(std::clamp(number(2, 0), 0.0, 9e15));
  const float iou = static_cast<float>(number(3, 0)), least = static_cast<float>(number(4, 0));
  ctx.check(iou >= 0 && iou <= 1, "iou_threshold should be in [0, 1], is ", iou);
  const int64_t form = ctx.node.attr_int("center_point_box", 0);
  ctx.check(form == 0 || form == 1, "center_point_box should be 0 or 1, is ", form);
  std::vector<int64_t> found, order;
  std::vector<Box> kept;
  for (int64_t batch = 0; batch < s[0]; ++batch)
    for (int64_t c = 0; most > 0 && c < s[1]; ++c) {
      const float* score = scores.as<float>() + (batch * s[1] + c) * s[2];
      const float* at = boxes.as<float>() + batch * b[1] * 4;
      order.clear();
      for (int64_t i = 0; i < s[2]; ++i) if (!ctx.has_input(4) || score[i] > least) order.push_back(i);
      std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t k) { return score[i] > score[k]; });
      kept.clear();
      for (int64_t i : order) {
        const Box box = box_at(at + i * 4, form == 1);
        if (std::any_of(kept.begin(), kept.end(), [&](const Box& k) { return overlap(box, k, iou); })) continue;
        kept.push_back(box);
        found.insert(found.end(), {batch, c, i});
        if (static_cast<int64_t>(kept.size()) == most) break;
      }
    }
  ctx.set(0, Tensor::from_ints(DType::kInt64, {static_cast<Dim>(found.size() / 3), 3}, found.data()));
}

const OpRegistration rows({{"NonMaxSuppression", "", 10, infer, nullptr, eval}});

}  // namespace
}  // namespace tiercel

// Gradients of LRN, LpPool, GlobalLpPool, Col2Im and CenterCropPad, as graphs of other operators.
#include <cmath>

#include "ops/grad_tools.h"
#include "ops/window.h"

namespace tiercel {
namespace {

using namespace grad_tools;

// y = x s^-beta with s = bias + alpha / size * (x^2 summed over a window of channels):
//   dx = dy s^-beta - 2 alpha beta / size * x * (dy y / s summed over the window mirrored)
void grad_lrn(GradContext& c) {
  GraphWriter& w = c.w;
  Value *const x = c.x(0), *const dy = c.dy();
  const int rank = c.rank(x);
  const int64_t size = c.node.attr_int("size", 1), most = is_symbol(w.shape(x)[1]) ? size : std::max<int64_t>(w.shape(x)[1] - 1, 0);
  const int64_t before = std::min((size - 1) / 2, most), after = std::min(size / 2, most), taps = before + after + 1;
  const double alpha = static_cast<double>(c.node.attr_float("alpha", 1e-4f) / static_cast<float>(size));
  const double beta = static_cast<double>(c.node.attr_float("beta", 0.75f)), bias = static_cast<double>(c.node.attr_float("bias", 1));
  // A mean over a window of the channels, which stand as the first axis of an image of one channel.
  const auto window_sum = [&](Value* v, int64_t left, int64_t right) {
    std::vector<int64_t> kernel(static_cast<size_t>(rank) - 1, 1), pads(2 * (static_cast<size_t>(rank) - 1), 0);
    kernel[0] = taps;
    pads[0] = left;
    pads[static_cast<size_t>(rank) - 1] = right;
    Value* const mean = w.op("AveragePool", {unsqueeze(w, v, {1})}, {{"kernel_shape", kernel}, {"pads", pads}, {"count_include_pad", int64_t{1}}});
    return w.scale(w.op("Squeeze", {mean, w.ints({1})}), static_cast<double>(taps));
  };
  Value* const s = w.shift(w.scale(window_sum(w.mul(x, x), before, after), alpha), bias);
  Value* const direct = w.mul(dy, w.op("Pow", {s, w.scalar_like(-beta, x)}));
  Value* const spread = window_sum(w.div(w.mul(dy, c.y()), s), after, before);
  c.set(0, w.sub(direct, w.scale(w.mul(x, spread), 2 * alpha * beta)));
}

// sign(x) |x|^(p - 1)
Value* slope_of(GraphWriter& w, Value* x, double p) {
  if (p == 1) return w.op("Sign", {x});
  if (p == 2) return x;
  return w.mul(w.op("Sign", {x}), w.op("Pow", {w.op("Abs", {x}), w.scalar_like(p - 1, x)}));
}
double power_of(const Node& node) { return node.opset < 2 ? static_cast<double>(node.attr_float("p", 2)) : static_cast<double>(node.attr_int("p", 2)); }

// y = (sum |x|^p)^(1/p) over each window: dx = sign(x) |x|^(p - 1) * (dy y^(1 - p) summed over the windows it is in); 0 where y is.
void grad_lp_pool(GradContext& c) {
  GraphWriter& w = c.w;
  Value* const x = c.x(0);
  const double p = power_of(c.node);
  AttributeList list{{"sum", int64_t{1}}, {"ceil_mode", c.node.attr_int("ceil_mode", 0)}};
  for (const char* key : {"kernel_shape", "strides", "dilations", "pads"})
    if (c.node.has(key)) list.emplace_back(key, c.node.attr_ints(key));
  if (c.node.has("auto_pad")) list.emplace_back("auto_pad", c.node.attr_string("auto_pad", ""));
  Value* each = p == 1 ? c.dy() : p == 2 ? w.div(c.dy(), c.y()) : w.mul(c.dy(), w.op("Pow", {c.y(), w.scalar_like(1 - p, x)}));
  each = w.op("Where", {w.op("Equal", {c.y(), w.scalar_like(0, x)}), w.scalar_like(0, x), each});
  c.set(0, w.mul(slope_of(w, x, p), w.op("AveragePoolGrad", {each, w.shape_of(x)}, list, kTiercelDomain)));
}

void grad_global_lp_pool(GradContext& c) {
  GraphWriter& w = c.w;
  Value *const x = c.x(0), *const zero = w.scalar_like(0, x);
  const double p = power_of(c.node);
  Value* const none = w.op("Equal", {c.y(), zero});
  Value* const ratio = w.div(x, w.op("Where", {none, w.scalar_like(1, x), c.y()}));
  c.set(0, w.mul(w.op("Where", {none, zero, c.dy()}), slope_of(w, ratio, p)));
}

// Each column of blocks takes its pixels from the image: an index for each, and one more, a zero, for those outside.
void grad_col2im(GradContext& c) {
  GraphWriter& w = c.w;
  const auto image = c.ints(1, "image_shape"), block = c.ints(2, "block_shape");
  const size_t n = image.size();
  const auto list = [&](const char* key, size_t count, int64_t otherwise) {
    auto v = c.node.attr_ints(key);
    if (v.empty()) v.assign(count, otherwise);
    return v;
  };
  const auto dilations = list("dilations", n, 1), strides = list("strides", n, 1), pads = list("pads", 2 * n, 0);
  int64_t plane = 1, taps = 1, places = 1;
  std::vector<int64_t> steps;
  for (size_t i = 0; i < n; ++i) {
    steps.push_back((image[i] + pads[i] + pads[n + i] - dilations[i] * (block[i] - 1) - 1) / strides[i] + 1);
    plane *= image[i];
    taps *= block[i];
    places *= steps[i];
  }
  c.check(taps <= (int64_t{1} << 28) / std::max<int64_t>(places, 1), "the block has too many places in the image");
  std::vector<int64_t> at;
  at.reserve(static_cast<size_t>(taps * places));
  for (int64_t k = 0; k < taps; ++k)
    for (int64_t l = 0; l < places; ++l) {
      int64_t to = 0, stride = 1, tap = k, place = l;
      bool inside = true;
      for (size_t i = n; i-- > 0;) {
        const int64_t v = place % steps[i] * strides[i] - pads[i] + tap % block[i] * dilations[i];
        place /= steps[i];
        tap /= block[i];
        inside = inside && v >= 0 && v < image[i];
        to += v * stride;
        stride *= image[i];
      }
      at.push_back(inside ? to : plane);
    }
  Value* const flat = w.op("Reshape", {c.dy(), w.ints({0, 0, plane})});
  Value* const padded = w.op("Pad", {flat, w.ints({0, 0, 0, 0, 0, 1})});
  c.set(0, w.reshape_like(w.op("Gather", {padded, w.ints(at)}, {{"axis", int64_t{2}}}), c.x(0)));
}

// What was cut is padded in the same places, and the reverse.
void grad_center_crop_pad(GradContext& c) {
  GraphWriter& w = c.w;
  Value* shape = w.shape_of(c.x(0));
  AttributeList list;
  if (c.node.has("axes")) {
    auto axes = c.node.attr_ints("axes");
    list.emplace_back("axes", axes);
    for (int64_t& a : axes) a = c.axis(a, c.rank(c.x(0)));
    shape = w.op("Gather", {shape, w.ints(axes)});
  }
  c.set(0, w.op("CenterCropPad", {c.dy(), shape}, list));
}

const GradRegistration grads({
    {"LRN", "", grad_lrn}, {"LpPool", "", grad_lp_pool}, {"GlobalLpPool", "", grad_global_lp_pool}, {"Col2Im", "", grad_col2im},
    {"CenterCropPad", "", grad_center_crop_pad},
});

}  // namespace
}  // namespace tiercel

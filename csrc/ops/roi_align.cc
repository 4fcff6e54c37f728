// RoiAlign (He et al., Mask R-CNN, 2017) and MaxRoiPool (Girshick, Fast R-CNN, 2015): regions of feature maps to fixed sizes.
#include <cmath>
#include <vector>

#include "kernels/reorder/reorder.h"
#include "kernels/roi_align/roi_align.h"
#include "ops/movement.h"
#include "ops/numeric.h"
#include "ops/roi.h"

namespace tiercel {
namespace {

int64_t extent_of(const InferContext& ctx, const char* key, int64_t value) {
  ctx.check(value >= 1 && value <= INT32_MAX, "'", key, "' is ", value, ": 1 at least is needed");
  return value;
}

Dim check_maps(const InferContext& ctx, int64_t roi_columns) {
  ctx.check(is_real(ctx.dtype(0)) && ctx.dtype(1) == ctx.dtype(0), "input and rois should have one real type");
  if (ctx.ranked(0)) ctx.check(ctx.shape(0).rank() == 4, "the input should be [N, C, H, W]");
  if (!ctx.ranked(1)) return ctx.fresh();
  ctx.check(ctx.shape(1).rank() == 2, "rois should be [count, ", roi_columns, "]");
  unify(ctx, ctx.shape(1)[1], roi_columns, "the columns of rois and what is expected");
  return ctx.shape(1)[0];
}

// ---- RoiAlign

void infer_roi_align(InferContext& ctx) {
  Dim count = check_maps(ctx, 4);
  ctx.check(ctx.dtype(2) == DType::kInt64, "batch_indices should be int64");
  if (ctx.ranked(2)) {
    ctx.check(ctx.shape(2).rank() == 1, "batch_indices should be a 1-D tensor");
    count = unify(ctx, count, ctx.shape(2)[0], "the number of rois and of batch_indices");
  }
  const std::string mode = ctx.node.attr_string("mode", "avg"), at = ctx.node.attr_string("coordinate_transformation_mode", "half_pixel");
  ctx.check(mode == "avg" || mode == "max", "mode '", mode, "' is not known");
  ctx.check(at == "half_pixel" || at == "output_half_pixel", "coordinate_transformation_mode '", at, "' is not known");
  ctx.check(ctx.node.attr_int("sampling_ratio", 0) >= 0 && ctx.node.attr_int("sampling_ratio", 0) <= 4096, "sampling_ratio is out of range");
  const Dim h = extent_of(ctx, "output_height", ctx.node.attr_int("output_height", 1));
  const Dim w = extent_of(ctx, "output_width", ctx.node.attr_int("output_width", 1));
  const Shape r{count, ctx.ranked(0) ? ctx.shape(0)[1] : ctx.fresh(), h, w};
  if (r.known()) check_fits(ctx, ctx.dtype(0), r);
  Type y = Type::tensor(ctx.dtype(0), r);
  y.layout = ctx.type(0).layout;
  ctx.set_output(0, y);
}

// The weights of bins along one axis: see RoiAxis. What falls outside by more than a pixel counts as zero.
class AxisWeights {
 public:
  void set(float begin, float bin, int64_t bins, int64_t grid, int64_t extent, int64_t step, float scale) {
    begin_.assign(1, 0);
    at_.clear();
    weight_.clear();
    for (int64_t b = 0; b < bins; ++b) {
      for (int64_t k = 0; k < grid; ++k) {
        float at = begin + static_cast<float>(b) * bin + (static_cast<float>(k) + 0.5f) * bin / static_cast<float>(grid);
        if (!(at >= -1 && at <= static_cast<float>(extent)) || extent == 0) continue;
        at = std::max(at, 0.0f);
        int64_t low = static_cast<int64_t>(at), high = low + 1;
        if (low >= extent - 1) at = static_cast<float>(low = high = extent - 1);
        const float part = at - static_cast<float>(low);
        add(low * step, (1 - part) * scale);
        add(high * step, part * scale);
      }
      begin_.push_back(static_cast<int32_t>(at_.size()));
    }
  }
  RoiAxis axis() const { return {begin_.data(), at_.data(), weight_.data()}; }

 private:
  void add(int64_t at, float weight) {
    if (weight == 0) return;  // nothing of it, were it an infinity
    const size_t first = std::max(static_cast<size_t>(begin_.back()), at_.size() - std::min<size_t>(at_.size(), 4));  // samples go one way
    for (size_t i = at_.size(); i-- > first;)
      if (at_[i] == at) { weight_[i] += weight; return; }
    at_.push_back(static_cast<int32_t>(at));
    weight_.push_back(weight);
  }
  std::vector<int32_t> begin_, at_;
  std::vector<float> weight_;
};

// Averages in float, on blocks of channels; plain maps and results by way of the workspace.
void make_blocked_roi_align(PrepareContext& ctx) {
  constexpr int64_t kTasks = 16, kPixels = 1024;
  const Shape &x = ctx.shape(0), &out = ctx.out_shape(0);
  const int64_t images = x[0], channels = x[1], height = x[2], width = x[3], ph = out[2], pw = out[3], rois = out[0];
  const int64_t plane = height * width, bins = ph * pw, blocks = ceil_div(channels, kChannelBlock), parts = std::min(blocks, ceil_div(kTasks, std::max<int64_t>(rois, 1)));
  const bool plain_x = ctx.layout(0) == Layout::kPlain, plain_y = ctx.out_layout(0) == Layout::kPlain;
  const int64_t x_floats = plain_x ? images * blocks * plane * kChannelBlock : 0, y_floats = plain_y ? bins * kChannelBlock : 0;
  ctx.workspace(4 * (x_floats + ctx.threads() * y_floats));
  ctx.cost(static_cast<double>(out.count()) * 16, static_cast<double>(x.count() + out.count()) * 4);
  const RoiAlignForm<float> form(ctx.node, ctx.node.opset, ph, pw);
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    const float* maps = a.in<float>(0);
    float *const copy = a.workspace<float>(), *const scratch = copy + x_floats + w.index() * y_floats;
    if (plain_x) {
      const int64_t pieces = ceil_div(plane, kPixels);
      w.parallel_for(images * blocks * pieces, 4, [&](int64_t i, int64_t end) {
        for (; i < end; ++i) {
          const int64_t at = i % pieces * kPixels, n = i / pieces / blocks, block = i / pieces % blocks;
          reorder().to_blocked(maps + (n * channels + block * kChannelBlock) * plane + at, plane,
                               static_cast<int>(std::min<int64_t>(kChannelBlock, channels - block * kChannelBlock)), std::min(kPixels, plane - at),
                               copy + (i / pieces * plane + at) * kChannelBlock);
        }
      });
      w.barrier();
      maps = copy;
    }
    w.parallel_for(rois * parts, 1, [&](int64_t task, int64_t end) {
      AxisWeights rows, columns;
      for (; task < end; ++task) {
        const int64_t n = task / parts, part = task % parts, image = a.in<int64_t>(2)[n];
        if (image < 0 || image >= images) fail(Code::kInvalidArgument, label, ": batch index ", image, " is outside [0, ", images - 1, "]");
        const auto r = form.region(a.in<float>(1) + n * 4, label, n);
        const int64_t samples = std::max<int64_t>(r.grid_h * r.grid_w, 1);
        rows.set(r.top, r.bin_h, ph, r.grid_h, height, width, 1.0f / static_cast<float>(samples));
        columns.set(r.left, r.bin_w, pw, r.grid_w, width, 1, 1);
        for (int64_t b = blocks * part / parts; b < blocks * (part + 1) / parts; ++b) {
          float* const y = plain_y ? scratch : a.out<float>(0) + (n * blocks + b) * bins * kChannelBlock;
          roi_align().block(maps + (image * blocks + b) * plane * kChannelBlock, rows.axis(), ph, columns.axis(), pw, y);
          if (plain_y)
            reorder().to_plain(y, bins, a.out<float>(0) + (n * channels + b * kChannelBlock) * bins, bins,
                               static_cast<int>(std::min<int64_t>(kChannelBlock, channels - b * kChannelBlock)));
        }
      }
    });
  });
}

template <class T> void make_roi_align(PrepareContext& ctx) {
  const Shape &x = ctx.shape(0), &out = ctx.out_shape(0);
  const int64_t images = x[0], channels = x[1], height = x[2], width = x[3], ph = out[2], pw = out[3];
  const RoiAlignForm<T> form(ctx.node, ctx.node.opset, ph, pw);
  ctx.cost(static_cast<double>(out.count()) * 32, static_cast<double>(out.count()) * sizeof(T) * 8);
  ctx.run([=, rois = out[0], label = ctx.node.label()](const Args& a, Worker& w) {
    // A task is one row of bins of one region, for all channels.
    w.parallel_for(rois * ph, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t n = task / ph, i = task % ph, image = a.in<int64_t>(2)[n];
        if (image < 0 || image >= images) fail(Code::kInvalidArgument, label, ": batch index ", image, " is outside [0, ", images - 1, "]");
        const auto [left, top, bin_h, bin_w, grid_h, grid_w, held_h, held_w] = form.region(a.in<T>(1) + n * 4, label, n);
        const bool average = form.average;
        const T count = static_cast<T>(std::max<int64_t>(grid_h * grid_w, 1));
        const T* maps = a.in<T>(0) + image * channels * height * width;
        for (int64_t j = 0; j < pw; ++j) {
          T* to = a.out<T>(0) + (n * channels * ph + i) * pw + j;  // channel c at to[c * ph * pw]
          for (int64_t c = 0; c < channels; ++c) to[c * ph * pw] = 0;
          constexpr int64_t kBatch = 64;
          RoiSample<T> samples[kBatch];
          for (int64_t first = 0; first < grid_h * grid_w; first += kBatch) {
            const int64_t some = std::min(kBatch, grid_h * grid_w - first);
            for (int64_t k = 0; k < some; ++k) {
              const T gy = static_cast<T>((first + k) / grid_w) + T(0.5), gx = static_cast<T>((first + k) % grid_w) + T(0.5);
              samples[k] = roi_sample(top + static_cast<T>(i) * bin_h + gy * bin_h / static_cast<T>(grid_h),
                                     left + static_cast<T>(j) * bin_w + gx * bin_w / static_cast<T>(grid_w), height, width);
            }
            for (int64_t c = 0; c < channels; ++c) {
              const T* map = maps + c * height * width;
              T& value = to[c * ph * pw];
              for (int64_t k = 0; k < some; ++k) {
                const RoiSample<T>& s = samples[k];
                T v[4];
                for (int t = 0; t < 4; ++t) v[t] = s.weight[t] == 0 ? T(0) : s.weight[t] * map[s.at[t]];
                if (average) value += v[0] + v[1] + v[2] + v[3];
                else {
                  const T most = std::max(std::max(v[0], v[1]), std::max(v[2], v[3]));
                  value = first + k == 0 ? most : std::max(value, most);
                }
              }
            }
          }
          if (average) for (int64_t c = 0; c < channels; ++c) to[c * ph * pw] /= count;
        }
      }
    });
  });
}

void prepare_roi_align(PrepareContext& ctx) {
  const bool blocks = ctx.dtype(0) == DType::kFloat && ctx.node.attr_string("mode", "avg") == "avg";
  // Bringing plain maps into blocks pays where they are read several times.
  const Shape &x = ctx.shape(0), &y = ctx.out_shape(0);
  if (blocks && x[2] * x[3] < INT32_MAX && (ctx.layout(0) == Layout::kBlocked || 4 * y[0] * y[2] * y[3] >= x[0] * x[2] * x[3])) return make_blocked_roi_align(ctx);
  if (ctx.layout(0) != Layout::kPlain) ctx.fail("blocked maps have averages of float alone, of fewer than 2^31 pixels");
  if (ctx.dtype(0) == DType::kFloat) make_roi_align<float>(ctx);
  else make_roi_align<double>(ctx);
}

// ---- MaxRoiPool: rois are [image, x1, y1, x2, y2], ends included

void infer_max_roi_pool(InferContext& ctx) {
  const Dim count = check_maps(ctx, 5);
  const auto pooled = ctx.node.attr_ints("pooled_shape");
  ctx.check(pooled.size() == 2, "attribute 'pooled_shape' should be [height, width]");
  const Shape r{count, ctx.ranked(0) ? ctx.shape(0)[1] : ctx.fresh(), extent_of(ctx, "pooled_shape", pooled[0]),
                extent_of(ctx, "pooled_shape", pooled[1])};
  if (r.known()) check_fits(ctx, ctx.dtype(0), r);
  ctx.set_output(0, ctx.dtype(0), r);
}

template <class T> void make_max_roi_pool(PrepareContext& ctx) {
  const Shape &x = ctx.shape(0), &out = ctx.out_shape(0);
  const int64_t images = x[0], channels = x[1], height = x[2], width = x[3], ph = out[2], pw = out[3];
  const T scale = static_cast<T>(ctx.node.attr_float("spatial_scale", 1));
  ctx.run([=, rois = out[0], label = ctx.node.label()](const Args& a, Worker& w) {
    w.parallel_for(rois * channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t n = task / channels, c = task % channels;
        int64_t at[5];
        roi_pixels(a.in<T>(1) + n * 5, scale, images, label, n, at);
        const T* map = a.in<T>(0) + (at[0] * channels + c) * height * width;
        T* to = a.out<T>(0) + task * ph * pw;
        for (int64_t i = 0; i < ph; ++i)
          for (int64_t j = 0; j < pw; ++j) {
            const auto [y0, y1] = roi_bin<T>(at[2], at[4], i, ph, height);
            const auto [x0, x1] = roi_bin<T>(at[1], at[3], j, pw, width);
            T most = y0 < y1 && x0 < x1 ? map[y0 * width + x0] : T(0);
            for (int64_t y = y0; y < y1; ++y)
              for (int64_t k = x0; k < x1; ++k) most = std::max(most, map[y * width + k]);
            to[i * pw + j] = most;
          }
      }
    });
  });
}

void prepare_max_roi_pool(PrepareContext& ctx) {
  if (ctx.dtype(0) == DType::kFloat) make_max_roi_pool<float>(ctx);
  else make_max_roi_pool<double>(ctx);
}

const OpRegistration rows({
    {"RoiAlign", "", 10, infer_roi_align, half_as_float<prepare_roi_align>, nullptr, kAnyLayout},
    {"MaxRoiPool", "", 1, infer_max_roi_pool, half_as_float<prepare_max_roi_pool>},
});

}  // namespace
}  // namespace tiercel

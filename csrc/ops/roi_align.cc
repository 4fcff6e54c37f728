// RoiAlign (He et al., Mask R-CNN, 2017) and MaxRoiPool (Girshick, Fast R-CNN, 2015): regions of feature maps to fixed sizes.
#include <cmath>

#include "ops/movement.h"
#include "ops/numeric.h"

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
  ctx.set_output(0, ctx.dtype(0), r);
}

template <class T> struct Sample {
  int64_t at[4];
  T weight[4];
};

// Bilinear taps at (y, x) of an [height, width] plane; zero weights outside.
template <class T> Sample<T> sample_at(T y, T x, int64_t height, int64_t width) {
  Sample<T> s{};
  if (!(y >= -1 && y <= static_cast<T>(height) && x >= -1 && x <= static_cast<T>(width)) || height == 0 || width == 0) return s;
  y = std::max(y, T(0));
  x = std::max(x, T(0));
  int64_t y0 = static_cast<int64_t>(y), x0 = static_cast<int64_t>(x), y1 = y0 + 1, x1 = x0 + 1;
  if (y0 >= height - 1) { y0 = y1 = height - 1; y = static_cast<T>(y0); }
  if (x0 >= width - 1) { x0 = x1 = width - 1; x = static_cast<T>(x0); }
  const T ly = y - static_cast<T>(y0), lx = x - static_cast<T>(x0), hy = 1 - ly, hx = 1 - lx;
  return {{y0 * width + x0, y0 * width + x1, y1 * width + x0, y1 * width + x1}, {hy * hx, hy * lx, ly * hx, ly * lx}};
}

template <class T> void make_roi_align(PrepareContext& ctx) {
  const Shape &x = ctx.shape(0), &out = ctx.out_shape(0);
  const int64_t images = x[0], channels = x[1], height = x[2], width = x[3], ph = out[2], pw = out[3];
  const T scale = static_cast<T>(ctx.node.attr_float("spatial_scale", 1));
  const int64_t ratio = ctx.node.attr_int("sampling_ratio", 0);
  const bool average = ctx.node.attr_string("mode", "avg") == "avg";
  const bool half = ctx.node.opset >= 16 && ctx.node.attr_string("coordinate_transformation_mode", "half_pixel") == "half_pixel";
  ctx.cost(static_cast<double>(out.count()) * 32, static_cast<double>(out.count()) * sizeof(T) * 8);
  ctx.run([=, rois = out[0], label = ctx.node.label()](const Args& a, Worker& w) {
    // A task is one row of bins of one region, for all channels.
    w.parallel_for(rois * ph, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t n = task / ph, i = task % ph, image = a.in<int64_t>(2)[n];
        if (image < 0 || image >= images) fail(Code::kInvalidArgument, label, ": batch index ", image, " is outside [0, ", images - 1, "]");
        const T* roi = a.in<T>(1) + n * 4;
        const T shift = half ? T(0.5) : T(0), left = roi[0] * scale - shift, top = roi[1] * scale - shift;
        T roi_w = roi[2] * scale - shift - left, roi_h = roi[3] * scale - shift - top;
        if (!half) { roi_w = std::max(roi_w, T(1)); roi_h = std::max(roi_h, T(1)); }
        const T bin_h = roi_h / static_cast<T>(ph), bin_w = roi_w / static_cast<T>(pw);
        if (!(std::fabs(bin_h) < T(8192) && std::fabs(bin_w) < T(8192)))
          fail(Code::kInvalidArgument, label, ": region ", n, " is too large or not finite");
        const int64_t grid_h = ratio ? ratio : std::max<int64_t>(static_cast<int64_t>(std::ceil(bin_h)), 0);
        const int64_t grid_w = ratio ? ratio : std::max<int64_t>(static_cast<int64_t>(std::ceil(bin_w)), 0);
        const T count = static_cast<T>(std::max<int64_t>(grid_h * grid_w, 1));
        const T* maps = a.in<T>(0) + image * channels * height * width;
        for (int64_t j = 0; j < pw; ++j) {
          T* to = a.out<T>(0) + (n * channels * ph + i) * pw + j;  // channel c at to[c * ph * pw]
          for (int64_t c = 0; c < channels; ++c) to[c * ph * pw] = 0;
          constexpr int64_t kBatch = 64;
          Sample<T> samples[kBatch];
          for (int64_t first = 0; first < grid_h * grid_w; first += kBatch) {
            const int64_t some = std::min(kBatch, grid_h * grid_w - first);
            for (int64_t k = 0; k < some; ++k) {
              const T gy = static_cast<T>((first + k) / grid_w) + T(0.5), gx = static_cast<T>((first + k) % grid_w) + T(0.5);
              samples[k] = sample_at(top + static_cast<T>(i) * bin_h + gy * bin_h / static_cast<T>(grid_h),
                                     left + static_cast<T>(j) * bin_w + gx * bin_w / static_cast<T>(grid_w), height, width);
            }
            for (int64_t c = 0; c < channels; ++c) {
              const T* map = maps + c * height * width;
              T& value = to[c * ph * pw];
              for (int64_t k = 0; k < some; ++k) {
                const Sample<T>& s = samples[k];
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
        const T* roi = a.in<T>(1) + n * 5;
        int64_t at[5];
        for (int k = 0; k < 5; ++k) {
          const T v = k ? std::round(roi[k] * scale) : roi[0];
          if (!(std::fabs(v) < T(1e9))) fail(Code::kInvalidArgument, label, ": region ", n, " is too large or not finite");
          at[k] = static_cast<int64_t>(v);
        }
        if (at[0] < 0 || at[0] >= images) fail(Code::kInvalidArgument, label, ": batch index ", at[0], " is outside [0, ", images - 1, "]");
        const T* map = a.in<T>(0) + (at[0] * channels + c) * height * width;
        T* to = a.out<T>(0) + task * ph * pw;
        // Rows or columns of bin k out of n: [low, high) of `extent`.
        auto range = [](int64_t first, int64_t last, int64_t k, int64_t bins, int64_t extent) {
          const T size = static_cast<T>(std::max<int64_t>(last - first + 1, 1)) / static_cast<T>(bins);
          const auto low = static_cast<int64_t>(std::floor(static_cast<T>(k) * size)) + first;
          const auto high = static_cast<int64_t>(std::ceil(static_cast<T>(k + 1) * size)) + first;
          return std::pair{std::clamp<int64_t>(low, 0, extent), std::clamp<int64_t>(high, 0, extent)};
        };
        for (int64_t i = 0; i < ph; ++i)
          for (int64_t j = 0; j < pw; ++j) {
            const auto [y0, y1] = range(at[2], at[4], i, ph, height);
            const auto [x0, x1] = range(at[1], at[3], j, pw, width);
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
    {"RoiAlign", "", 10, infer_roi_align, half_as_float<prepare_roi_align>},
    {"MaxRoiPool", "", 1, infer_max_roi_pool, half_as_float<prepare_max_roi_pool>},
});

}  // namespace
}  // namespace tiercel

// ai.tiercel.RoiAlignGrad (dy, x, rois, batch_indices) -> (dx, drois), ai.tiercel.MaxRoiPoolGrad (dy, x, rois) -> dx, from the attributes of the forward.
// dx is added up region by region, a task to some channels; drois over channels and samples, a task to a region. Of maxima the first.
#include "ops/grad.h"
#include "ops/movement.h"
#include "ops/numeric.h"
#include "ops/roi.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  for (int i = 0; i < 3; ++i) check_real(ctx, i);
  ctx.check(ctx.dtype(0) == ctx.dtype(1) && ctx.dtype(2) == ctx.dtype(1), "dy, x and rois should have one type");
  ctx.set_output(0, ctx.type(1));
  if (ctx.node.op_type == "RoiAlignGrad") ctx.check(ctx.dtype(3) == DType::kInt64, "batch_indices should be int64");
  ctx.set_output(1, ctx.type(2));
}

void check_shapes(PrepareContext& ctx, int64_t columns) {
  const Shape &dy = ctx.shape(0), &x = ctx.shape(1), &rois = ctx.shape(2);
  if (x.rank() != 4 || dy.rank() != 4 || rois.rank() != 2 || rois[1] != columns || rois[0] != dy[0] || dy[1] != x[1])
    ctx.fail("shapes ", dy.str(), ", ", x.str(), ", ", rois.str(), " are not of one pool of regions");
}

template <class T> void make_align(PrepareContext& ctx) {
  check_shapes(ctx, 4);
  const Shape &x = ctx.shape(1), &dy = ctx.shape(0);
  const int64_t images = x[0], channels = x[1], height = x[2], width = x[3], plane = height * width, ph = dy[2], pw = dy[3], rois = dy[0];
  if (ctx.shape(3).count() != rois) ctx.fail("there should be one batch index for each region");
  const RoiAlignForm<T> form(ctx.node, static_cast<int>(ctx.node.attr_int("of_opset", 21)), ph, pw);
  const int64_t some = std::min<int64_t>(std::max<int64_t>(channels, 1), 8), groups = ceil_div(channels, some);
  const bool wants_x = ctx.has_output(0), wants_rois = ctx.has_output(1);
  if (plane == 0)  // every sample is outside
    return ctx.run([=](const Args& a, Worker& w) { if (wants_rois && w.index() == 0) std::fill_n(a.out<T>(1), rois * 4, T(0)); });
  ctx.cost(static_cast<double>(dy.count()) * 64, static_cast<double>(x.count() + dy.count() * 8) * sizeof(T));
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    // f(sample, bin, share of the extents that the sample's place has) for all samples of a region; its image is returned.
    const auto walk = [&](int64_t n, auto each_bin) {
      const int64_t image = a.in<int64_t>(3)[n];
      if (image < 0 || image >= images) fail(Code::kInvalidArgument, label, ": batch index ", image, " is outside [0, ", images - 1, "]");
      const auto r = form.region(a.in<T>(2) + n * 4, label, n);
      for (int64_t i = 0; i < ph; ++i)
        for (int64_t j = 0; j < pw; ++j)
          each_bin(r, image, i * pw + j, [&, i, j](auto each_sample) {
            for (int64_t gy = 0; gy < r.grid_h; ++gy)
              for (int64_t gx = 0; gx < r.grid_w; ++gx) {
                const T fy = (static_cast<T>(gy) + T(0.5)) / static_cast<T>(r.grid_h), fx = (static_cast<T>(gx) + T(0.5)) / static_cast<T>(r.grid_w);
                const T y = r.top + static_cast<T>(i) * r.bin_h + (static_cast<T>(gy) + T(0.5)) * r.bin_h / static_cast<T>(r.grid_h);
                const T x_at = r.left + static_cast<T>(j) * r.bin_w + (static_cast<T>(gx) + T(0.5)) * r.bin_w / static_cast<T>(r.grid_w);
                each_sample(roi_sample(y, x_at, height, width), (static_cast<T>(i) + fy) / static_cast<T>(ph), (static_cast<T>(j) + fx) / static_cast<T>(pw));
              }
          });
    };
    // The sample and tap that the maximum is.
    const auto largest = [](const T* map, auto samples, auto found) {
      RoiSample<T> best{};
      int tap = -1;
      T most = 0, best_y = 0, best_x = 0;
      samples([&](const RoiSample<T>& s, T fy, T fx) {
        for (int t = 0; t < 4; ++t) {
          const T v = s.weight[t] == 0 ? T(0) : s.weight[t] * map[s.at[t]];
          if (tap < 0 || v > most) { most = v; best = s; tap = t; best_y = fy; best_x = fx; }
        }
      });
      if (tap >= 0) found(best, tap, best_y, best_x);
    };
    if (wants_x)
      w.parallel_for(groups, 1, [&](int64_t begin, int64_t end) {
        for (int64_t g = begin; g < end; ++g) {
          const int64_t first = g * some, last = std::min(channels, first + some);
          for (int64_t m = 0; m < images; ++m) std::fill_n(a.out<T>(0) + (m * channels + first) * plane, (last - first) * plane, T(0));
          for (int64_t n = 0; n < rois; ++n)
            walk(n, [&](const auto& r, int64_t image, int64_t bin, auto samples) {
              const T* const from = a.in<T>(0) + n * channels * ph * pw + bin;
              T* const maps = a.out<T>(0) + image * channels * plane;
              if (form.average) {
                const T count = static_cast<T>(std::max<int64_t>(r.grid_h * r.grid_w, 1));
                samples([&](const RoiSample<T>& s, T, T) {
                  for (int64_t c = first; c < last; ++c)
                    for (int t = 0; t < 4; ++t)
                      if (s.weight[t] != 0) maps[c * plane + s.at[t]] += s.weight[t] * from[c * ph * pw] / count;
                });
                return;
              }
              for (int64_t c = first; c < last; ++c)
                largest(a.in<T>(1) + (image * channels + c) * plane, samples,
                        [&](const RoiSample<T>& s, int t, T, T) { if (s.weight[t] != 0) maps[c * plane + s.at[t]] += s.weight[t] * from[c * ph * pw]; });
            });
        }
      });
    if (wants_rois)
      w.parallel_for(rois, 1, [&](int64_t begin, int64_t end) {
        for (int64_t n = begin; n < end; ++n) {
          double sum[4] = {};  // left, top, right, bottom
          walk(n, [&](const auto& r, int64_t image, int64_t bin, auto samples) {
            const T* const from = a.in<T>(0) + n * channels * ph * pw + bin;
            const T* const maps = a.in<T>(1) + image * channels * plane;
            const auto add = [&](double to_y, double to_x, T fy, T fx) {
              sum[0] += to_x * (r.held_w ? 1 : 1 - static_cast<double>(fx));
              sum[1] += to_y * (r.held_h ? 1 : 1 - static_cast<double>(fy));
              sum[2] += r.held_w ? 0 : to_x * static_cast<double>(fx);
              sum[3] += r.held_h ? 0 : to_y * static_cast<double>(fy);
            };
            if (form.average) {
              const double count = static_cast<double>(std::max<int64_t>(r.grid_h * r.grid_w, 1));
              samples([&](const RoiSample<T>& s, T fy, T fx) {
                double to_y = 0, to_x = 0;
                for (int64_t c = 0; c < channels; ++c)
                  for (int t = 0; t < 4; ++t) {
                    const double v = static_cast<double>(from[c * ph * pw] * maps[c * plane + s.at[t]]) / count;
                    to_y += v * static_cast<double>(s.dy[t]);
                    to_x += v * static_cast<double>(s.dx[t]);
                  }
                add(to_y, to_x, fy, fx);
              });
              return;
            }
            for (int64_t c = 0; c < channels; ++c)
              largest(maps + c * plane, samples, [&](const RoiSample<T>& s, int t, T fy, T fx) {
                const double v = static_cast<double>(from[c * ph * pw] * maps[c * plane + s.at[t]]);
                add(v * static_cast<double>(s.dy[t]), v * static_cast<double>(s.dx[t]), fy, fx);
              });
          });
          for (int k = 0; k < 4; ++k) a.out<T>(1)[n * 4 + k] = static_cast<T>(sum[k] * static_cast<double>(form.scale));
        }
      });
  });
}

template <class T> void make_max(PrepareContext& ctx) {
  check_shapes(ctx, 5);
  const Shape &x = ctx.shape(1), &dy = ctx.shape(0);
  const int64_t images = x[0], channels = x[1], height = x[2], width = x[3], ph = dy[2], pw = dy[3], rois = dy[0];
  const T scale = static_cast<T>(ctx.node.attr_float("spatial_scale", 1));
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    w.parallel_for(channels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t c = begin; c < end; ++c) {
        for (int64_t m = 0; m < images; ++m) std::fill_n(a.out<T>(0) + (m * channels + c) * height * width, height * width, T(0));
        for (int64_t n = 0; n < rois; ++n) {
          int64_t at[5];
          roi_pixels(a.in<T>(2) + n * 5, scale, images, label, n, at);
          const T* map = a.in<T>(1) + (at[0] * channels + c) * height * width;
          T* to = a.out<T>(0) + (at[0] * channels + c) * height * width;
          for (int64_t i = 0; i < ph; ++i)
            for (int64_t j = 0; j < pw; ++j) {
              const auto [y0, y1] = roi_bin<T>(at[2], at[4], i, ph, height);
              const auto [x0, x1] = roi_bin<T>(at[1], at[3], j, pw, width);
              if (y0 >= y1 || x0 >= x1) continue;
              int64_t best = y0 * width + x0;
              for (int64_t y = y0; y < y1; ++y)
                for (int64_t k = x0; k < x1; ++k) if (map[y * width + k] > map[best]) best = y * width + k;
              to[best] += a.in<T>(0)[((n * channels + c) * ph + i) * pw + j];
            }
        }
      }
    });
  });
}

void prepare_align(PrepareContext& ctx) { ctx.dtype(0) == DType::kDouble ? make_align<double>(ctx) : make_align<float>(ctx); }
void prepare_max(PrepareContext& ctx) { ctx.dtype(0) == DType::kDouble ? make_max<double>(ctx) : make_max<float>(ctx); }

const OpRegistration rows({
    {"RoiAlignGrad", kTiercelDomain, 1, infer, half_as_float<prepare_align>},
    {"MaxRoiPoolGrad", kTiercelDomain, 1, infer, half_as_float<prepare_max>},
});

void grad_align(GradContext& c) {
  const Node& n = c.node;
  AttributeList list{{"spatial_scale", n.attr_float("spatial_scale", 1)}, {"sampling_ratio", n.attr_int("sampling_ratio", 0)},
                     {"mode", n.attr_string("mode", "avg")}, {"of_opset", static_cast<int64_t>(n.opset)},
                     {"coordinate_transformation_mode", n.attr_string("coordinate_transformation_mode", "half_pixel")}};
  Graph& g = c.w.graph();
  Value *const dx = c.wants(0) ? g.add_value("") : nullptr, *const drois = c.wants(1) ? g.add_value("") : nullptr;
  if (!dx && !drois) return;
  c.w.ops_into("RoiAlignGrad", {c.dy(), c.x(0), c.x(1), c.x(2)}, {dx, drois}, list, kTiercelDomain);
  c.set(0, dx);
  c.set(1, drois);
}
void grad_max(GradContext& c) {  // regions are rounded to pixels: nothing changes with them
  if (c.wants(1)) c.set(1, c.w.expand_like(c.w.scalar_like(0, c.x(1)), c.x(1)));
  if (c.wants(0))
    c.set(0, c.w.op("MaxRoiPoolGrad", {c.dy(), c.x(0), c.x(1)}, {{"spatial_scale", c.node.attr_float("spatial_scale", 1)}}, kTiercelDomain));
}
const GradRegistration grads({{"RoiAlign", "", grad_align}, {"MaxRoiPool", "", grad_max}});

}  // namespace
}  // namespace tiercel

#include "ops/conv_gemm.h"

#include <algorithm>
#include <memory>

#include "kernels/gemm/gemm.h"

namespace tiercel {
namespace {

constexpr int64_t kRows = 24, kChannels = 16;  // of the weights, a task: multiples of a tile, few enough for its share of L2
constexpr int64_t kMostPixels = 256;

struct Columns {
  ConvProblem p;
  int64_t outputs, channels, taps, depth, plane, pixels;  // outputs, channels: of a group; depth = channels taps; pixels: of all images
  std::shared_ptr<const std::vector<int32_t>> places;

  explicit Columns(const ConvProblem& problem)
      : p(problem), outputs(p.outputs / p.groups), channels(p.channels / p.groups), taps(p.taps()), depth(channels * taps), plane(p.out_plane()),
        pixels(p.batch * plane), places(std::make_shared<const std::vector<int32_t>>(tap_places(p))) {}
  double traffic() const {
    return 4.0 * (static_cast<double>(p.outputs * depth) + static_cast<double>(p.groups * depth + p.outputs) * static_cast<double>(pixels));
  }
};

}  // namespace

std::vector<int32_t> tap_places(const ConvProblem& p) {
  std::vector<int32_t> places;
  places.reserve(static_cast<size_t>(p.taps() * p.out_plane()));
  int64_t k[3], o[3];
  for (k[0] = 0; k[0] < p.kernel[0]; ++k[0])
    for (k[1] = 0; k[1] < p.kernel[1]; ++k[1])
      for (k[2] = 0; k[2] < p.kernel[2]; ++k[2])
        for (o[0] = 0; o[0] < p.out[0]; ++o[0])
          for (o[1] = 0; o[1] < p.out[1]; ++o[1])
            for (o[2] = 0; o[2] < p.out[2]; ++o[2]) {
              int64_t at = 0;
              bool inside = true;
              for (int a = 0; a < 3; ++a) {
                const int64_t i = o[a] * p.stride[a] + k[a] * p.dilation[a] - p.pad[a];
                inside = inside && i >= 0 && i < p.in[a];
                at = at * p.in[a] + i;
              }
              places.push_back(inside ? static_cast<int32_t>(at) : -1);
            }
  return places;
}

bool conv_suits_gemm(const PrepareContext& ctx, const ConvProblem& p) {
  if (ctx.constant(1) || ctx.has_input(3) || ctx.layout(0) != Layout::kPlain || ctx.out_layout(0) != Layout::kPlain) return false;
  const int64_t pixels = p.batch * p.out_plane(), outputs = p.outputs / p.groups, channels = p.channels / p.groups;
  return channels >= kChannels && pixels > 0 && p.in_plane() > 0 && pixels < std::min(outputs, kMostPixels) && p.in_plane() < (1 << 20) && p.taps() <= 64;
}

void prepare_gemm_conv(PrepareContext& ctx, const ConvProblem& problem, const Activation& activation) {
  const Columns c(problem);
  const ConvProblem& p = c.p;
  const int64_t columns = round_up(p.groups * c.depth * c.pixels, 16), blocks = ceil_div(c.outputs, kRows), line = round_up(kRows * c.pixels, 16);
  ctx.workspace(4 * (columns + ctx.threads() * line));
  ctx.cost(p.flops(), c.traffic());
  ctx.run([=](const Args& args, Worker& w) {
    float *const col = args.workspace<float>(), *const scratch = col + columns + w.index() * line;
    // col [channel of all groups, tap][image, pixel]
    w.parallel_for(p.channels, std::max<int64_t>(1, 16384 / (c.taps * c.pixels)), [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        float* to = col + i * c.taps * c.pixels;
        for (int64_t t = 0; t < c.taps; ++t) {
          const int32_t* const place = c.places->data() + t * c.plane;
          for (int64_t n = 0; n < p.batch; ++n, to += c.plane) {
            const float* const x = args.in<float>(0) + (n * p.channels + i) * p.in_plane();
            for (int64_t k = 0; k < c.plane; ++k) {
              const float v = x[std::max(place[k], 0)];
              to[k] = place[k] >= 0 ? v : 0.0f;
            }
          }
        }
      }
    });
    w.barrier();
    w.parallel_for(p.groups * blocks, 1, [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const int64_t g = i / blocks, first = i % blocks * kRows, o = g * c.outputs + first;
        const float *const left = args.in<float>(1) + o * c.depth, *const right = col + g * c.depth * c.pixels;
        GemmEpilogue epilogue;
        if (const float* b = args.in<float>(2)) epilogue.add[0] = {b + o, 1, 0};
        epilogue.activation = activation;
        GemmArgs product;
        product.m = std::min(kRows, c.outputs - first), product.n = c.pixels, product.k = c.depth;
        product.a = &left, product.a_row = c.depth;
        product.b = &right, product.b_row = c.pixels;
        product.c = scratch, product.c_row = c.pixels;
        product.epilogue = &epilogue;
        gemm().gemm(product);
        for (int64_t n = 0; n < p.batch; ++n)
          for (int64_t r = 0; r < product.m; ++r)
            std::copy_n(scratch + r * c.pixels + n * c.plane, c.plane, args.out<float>(0) + (n * p.outputs + o + r) * c.plane);
      }
    });
  });
}

void prepare_gemm_conv_grad(PrepareContext& ctx, const ConvProblem& problem) {
  const Columns c(problem);
  const ConvProblem& p = c.p;
  const int64_t rows = round_up(p.groups * c.pixels * c.outputs, 16), blocks = ceil_div(c.channels, kChannels), width = kChannels * c.taps;
  const int64_t packed = round_up(gemm_packed_floats(gemm(), c.outputs, width), 16), line = round_up(c.pixels * width, 16);
  ctx.workspace(4 * (rows + ctx.threads() * (packed + line)));
  ctx.cost(p.flops(), c.traffic());
  ctx.run([=](const Args& args, Worker& w) {
    float *const dy = args.workspace<float>(), *const weights = dy + rows + w.index() * (packed + line), *const scratch = weights + packed;
    w.parallel_for(p.groups * p.batch, std::max<int64_t>(1, 16384 / (c.outputs * c.plane)), [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {  // [group][image, pixel][output]
        const int64_t g = i / p.batch, n = i % p.batch;
        const float* from = args.in<float>(0) + (n * p.outputs + g * c.outputs) * c.plane;
        float* const to = dy + (g * c.pixels + n * c.plane) * c.outputs;
        for (int64_t o = 0; o < c.outputs; ++o)
          for (int64_t k = 0; k < c.plane; ++k) to[k * c.outputs + o] = *from++;
      }
    });
    w.barrier();
    w.parallel_for(p.groups * blocks, 1, [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const int64_t g = i / blocks, first = i % blocks * kChannels, many = std::min(kChannels, c.channels - first), n = many * c.taps;
        gemm().pack_b(args.in<float>(1) + g * c.outputs * c.depth + first * c.taps, c.depth, 1, c.outputs, n, 0, n, weights);
        const float *const left = dy + g * c.pixels * c.outputs, *const right = weights;
        GemmArgs product;
        product.m = c.pixels, product.n = n, product.k = c.outputs;
        product.a = &left, product.a_row = c.outputs;
        product.b = &right;
        product.c = scratch, product.c_row = n;
        gemm().gemm(product);
        for (int64_t image = 0; image < p.batch; ++image) {
          float* const dx = args.out<float>(0) + (image * p.channels + g * c.channels + first) * p.in_plane();
          std::fill_n(dx, many * p.in_plane(), 0.0f);
          const float* const from = scratch + image * c.plane * n;
          for (int64_t t = 0; t < c.taps; ++t)
            for (int64_t k = 0; k < c.plane; ++k) {
              const int64_t place = (*c.places)[static_cast<size_t>(t * c.plane + k)];
              if (place < 0) continue;
              for (int64_t channel = 0; channel < many; ++channel) dx[channel * p.in_plane() + place] += from[k * n + channel * c.taps + t];
            }
        }
      }
    });
  });
}

}  // namespace tiercel

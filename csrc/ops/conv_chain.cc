// ai.tiercel.ConvChain: a depthwise convolution and the pointwise ones before and after it, band by band of rows, so that what lies
// between them stays in L2 (the "inverted residual" of Sandler et al., "MobileNetV2", 2018, is such a chain).
//
//   inputs      X, W and B of the pointwise convolution before, of the depthwise one, of the pointwise one after, residual (added before the
//               last activation); weights are constants; a pointwise convolution may be missing, one of them must be there
//   attributes  those of Conv for the depthwise one; the last activation (see ops/activation.h), and `before_activation` and
//               `depthwise_activation` of those that are not the last
//   X, residual and the output are [N, C, H, W] in channel blocks.
#include <algorithm>
#include <cmath>
#include <optional>

#include "ops/activation.h"
#include "ops/conv_run.h"
#include "ops/registry.h"
#include "ops/window.h"

namespace tiercel {
namespace {

enum Input { kX, kBeforeW, kBeforeB, kDepthwiseW, kDepthwiseB, kAfterW, kAfterB, kResidual };
constexpr int64_t kBandBytes = 320 << 10;  // of what lies between the convolutions: with weights and pixels it stays in L2
constexpr int64_t kBandPixels = 48;        // at least, where that leaves enough bands: weights are read once a band

int64_t blocks_of(int64_t channels) { return ceil_div(channels, kConvBlock); }

// One convolution of the chain.
struct Stage {
  ConvPlan plan;
  Activation activation;
  float low = -INFINITY, high = INFINITY;
  bool clamp = true;  // the activation is the clamp
  Buffer packed;
  std::vector<float> bias;

  const float* weights() const { return static_cast<const float*>(packed.get()); }
  int64_t out_blocks() const { return blocks_of(plan.problem.outputs); }
  int tail(int64_t block) const { return static_cast<int>(std::min<int64_t>(kConvBlock, plan.problem.outputs - block * kConvBlock)); }
};

class ConvChain final : public Kernel {
 public:
  std::optional<Stage> before, after;
  Stage depthwise;
  int64_t bands = 1;                // of an image's output rows
  int64_t ring = 0, ring_plane = 0; // rows of `before`'s results at hand, floats of a block of them
  int64_t band_plane = 0;           // floats of a block of a band of the depthwise results
  int64_t scratch = 0;              // floats a thread

  // The depthwise kernel takes two rows at a time.
  int64_t pairs() const { return ceil_div(depthwise.plan.problem.out[1], 2); }
  int64_t first_row(int64_t band) const { return std::min(2 * (pairs() * band / bands), depthwise.plan.problem.out[1]); }

  // Chooses bands for the extents in the plans.
  void split() {
    const ConvProblem& p = depthwise.plan.problem;
    const int64_t rows = p.out[1], reach = (p.kernel[1] - 1) * p.dilation[1] + 1, stride = p.stride[1];
    const int64_t in_row = before ? blocks_of(p.channels) * p.in[2] * kConvBlock * 4 : 0;
    const int64_t out_row = after ? blocks_of(p.channels) * p.out[2] * kConvBlock * 4 : 0;
    int64_t band = std::max<int64_t>(2, (kBandBytes - (reach - stride) * in_row) / std::max<int64_t>(stride * in_row + out_row, 1));
    band = std::min(band, std::max(ceil_div(kBandPixels, p.out[2]), rows / 16));
    bands = ceil_div(pairs(), std::clamp<int64_t>(band / 2, 1, pairs()));
    bands = std::min(pairs(), round_up(bands, 2));  // halves are alike
    band = std::min(rows, 2 * ceil_div(pairs(), bands));
    ring = before ? std::min((band - 1) * stride + reach, p.in[1]) : 0;
    ring_plane = ring * p.in[2] * kConvBlock;
    band_plane = after ? band * p.out[2] * kConvBlock : 0;
    if (before) {
      before->plan.phases[0].shape.y_block = ring_plane;
      depthwise.plan.depthwise.wrap = ring;
    }
    if (after) after->plan.phases[0].shape.x_block = band_plane;
    scratch = blocks_of(p.channels) * (ring_plane + band_plane);
  }

  void run(const Args& args, Worker& worker) const override {
    const ConvProblem& p = depthwise.plan.problem;
    const float *x = args.in<float>(kX), *residual = args.in<float>(kResidual);
    float *const y = args.out<float>(0), *const own = args.workspace<float>() + worker.index() * scratch;
    float* const between = own + blocks_of(p.channels) * ring_plane;
    const int64_t x_image = blocks_of(before ? before->plan.problem.channels : p.channels) * p.in_plane() * kConvBlock;
    const int64_t y_image = (after ? *after : depthwise).out_blocks() * p.out_plane() * kConvBlock;
    int64_t done = -1, computed = 0;  // the band that this thread computed last; rows of `before` up to here are at hand
    worker.parallel_for(p.batch * bands, 1, [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const int64_t n = i / bands, band = i % bands, first = first_row(band), last = first_row(band + 1);
        const float* from = x + n * x_image;
        float* const to = y + n * y_image;
        const float* const add = residual ? residual + n * y_image : nullptr;
        if (before) {
          const int64_t reach = (p.kernel[1] - 1) * p.dilation[1] + 1;
          const int64_t begin = std::max<int64_t>(0, first * p.stride[1] - p.pad[1]);
          const int64_t stop = std::min(p.in[1], (last - 1) * p.stride[1] - p.pad[1] + reach);
          int64_t row = band > 0 && i == done + 1 ? std::max(begin, computed) : begin;
          while (row < stop) {  // to the end of the ring at most
            const int64_t rows = std::min(stop - row, ring - row % ring);
            pointwise(*before, from + row * p.in[2] * kConvBlock, rows * p.in[2], nullptr, own + row % ring * p.in[2] * kConvBlock);
            row += rows;
          }
          computed = std::max(stop, int64_t{0});
          done = i;
          from = own;
        }
        const int64_t at = first * p.out[2] * kConvBlock;
        if (!after) {
          rows_of(from, first, last, add, to, p.out_plane() * kConvBlock);
        } else {
          rows_of(from, first, last, nullptr, between - at, band_plane);
          pointwise(*after, between, (last - first) * p.out[2], add ? add + at : nullptr, to + at);
        }
      }
    });
  }

 private:
  // `pixels` neighbouring pixels of all blocks; planes are as the stage's shape says.
  static void pointwise(const Stage& s, const float* x, int64_t pixels, const float* residual, float* y) {
    const ConvPhase& phase = s.plan.phases[0];
    for (size_t i = 0; i < phase.panels.size(); ++i) {
      const ConvPanel& panel = phase.panels[i];
      const int64_t at = panel.y_block * phase.shape.y_block;
      ConvTask t{x, s.weights() + panel.w, &s.bias[static_cast<size_t>(panel.y_block * kConvBlock)], residual ? residual + at : nullptr, y + at,
                 panel.panel, panel.blocks, panel.last, s.low, s.high, panel.tail, conv_pass(phase.shape, panel)};
      if (i + 1 < phase.panels.size()) {
        t.next = s.weights() + phase.panels[i + 1].w;
        t.next_size = conv_fetch(s.plan, phase.panels[i + 1]);
      }
      conv().run(phase.shape, t, 0, pixels);
      if (s.clamp) continue;
      for (int b = 0; b < panel.panel; ++b)
        conv().activate(s.activation, y + at + b * phase.shape.y_block, pixels, s.tail(panel.y_block + b));
    }
  }

  // Rows [first, last) of the depthwise results; y: where row 0 of the first block would lie.
  void rows_of(const float* x, int64_t first, int64_t last, const float* residual, float* y, int64_t y_plane) const {
    const Stage& s = depthwise;
    const ConvProblem& p = s.plan.problem;
    const int64_t x_plane = before ? ring_plane : p.in_plane() * kConvBlock, row = p.out[2] * kConvBlock;
    for (int64_t b = 0; b < s.out_blocks(); ++b) {
      float* const to = y + b * y_plane;
      const DepthwiseTask t{x + b * x_plane, s.weights() + b * p.taps() * kConvBlock, &s.bias[static_cast<size_t>(b * kConvBlock)],
                            residual ? residual + b * y_plane : nullptr, to, s.low, s.high, s.tail(b)};
      tiercel::depthwise().run(s.plan.depthwise, t, first, last);
      if (!s.clamp) conv().activate(s.activation, to + first * row, (last - first) * p.out[2], s.tail(b));
    }
  }
};

// ---- The row

Window window_of_depthwise(const Node& node, const Shape& w) { return window_of(node, 2, w.span().subspan(2)); }

void infer(InferContext& ctx) {
  ctx.check(ctx.has_input(kBeforeW) || ctx.has_input(kAfterW), "a pointwise convolution should stand before or after the depthwise one");
  const Type& x = ctx.type(kX);
  ctx.check(x.dtype == DType::kFloat && x.ranked && x.shape.rank() == 4 && x.layout == Layout::kBlocked,
            "X should be a float tensor of four axes in channel blocks");
  const auto weights = [&](Input i) -> const Shape& {
    ctx.check(ctx.dtype(i) == DType::kFloat && ctx.ranked(i) && ctx.shape(i).rank() == 4 && ctx.shape(i).known(),
              "weights should be float tensors of four known axes");
    return ctx.shape(i);
  };
  Dim channels = x.shape[1];
  const auto pointwise = [&](Input i) {
    const Shape& w = weights(i);
    ctx.check(w[1] == channels && w[2] == 1 && w[3] == 1, "pointwise weights should be [outputs, ", channels, ", 1, 1], are ", w.str());
    channels = w[0];
  };
  if (ctx.has_input(kBeforeW)) pointwise(kBeforeW);
  const Shape& w = weights(kDepthwiseW);
  ctx.check(w[0] == channels && w[1] == 1, "depthwise weights should be [", channels, ", 1, height, width], are ", w.str());
  if (ctx.has_input(kAfterW)) pointwise(kAfterW);
  Window window = window_of_depthwise(ctx.node, w);
  Shape out{x.shape[0], channels, 0, 0};
  for (int a = 0; a < 2; ++a) {
    out[2 + a] = window.slide(a, x.shape[2 + a], ctx.symbols());
    ctx.check(is_symbol(out[2 + a]) || out[2 + a] >= 0, "the kernel spans ", window.reach(a), " pixels of spatial axis ", a,
              ", the padded input has ", x.shape[2 + a] + window.begin[a] + window.end[a]);
  }
  if (ctx.has_input(kResidual)) {
    const Type& r = ctx.type(kResidual);
    ctx.check(r.dtype == x.dtype && r.layout == Layout::kBlocked, "the residual should have the output's type and layout");
    ctx.check(!r.ranked || !r.shape.known() || !out.known() || r.shape == out, "the residual should have the output's shape ", out.str());
  }
  ctx.set_output(0, Type::tensor(DType::kFloat, out, Layout::kBlocked));
}

Stage make_stage(PrepareContext& ctx, const ConvProblem& p, int w, const Activation& activation) {
  if (!ctx.constant(w) || (ctx.has_input(w + 1) && !ctx.constant(w + 1))) ctx.fail("weights and biases should be constants");
  if (ctx.has_input(w + 1) && ctx.constant(w + 1)->count() != p.outputs) ctx.fail("B should have ", p.outputs, " elements");
  if (!conv_is_direct(p)) ctx.fail("this convolution has no blocked kernel");
  Stage s;
  s.plan = plan_conv(p, conv());
  s.activation = activation;
  s.clamp = activation_clamp(activation, s.low, s.high);
  s.packed = ctx.pack(w, "conv:direct:blocked:g" + std::to_string(p.groups), [&](const Tensor& t) { return pack_constant(ctx, s.plan, t.as<float>()); });
  s.bias.assign(static_cast<size_t>(s.out_blocks() * kConvBlock), 0.0f);
  if (const Tensor* b = ctx.constant(w + 1)) copy_bias(b->as<float>(), p.outputs, s.bias.data());
  ctx.drops(w);
  return s;
}

void prepare(PrepareContext& ctx) {
  const Shape &x = ctx.shape(kX), &w = ctx.shape(kDepthwiseW), &y = ctx.out_shape(0);
  if (ctx.has_input(kResidual) && !(ctx.shape(kResidual) == y)) ctx.fail("the residual should have the output's shape ", y.str());
  if (y.count() == 0) return ctx.run([](const Args&, Worker&) {});
  Window window = window_of_depthwise(ctx.node, w);
  ConvProblem p;
  p.batch = x[0];
  p.channels = p.outputs = p.groups = w[0];
  for (int a = 0; a < 2; ++a) {
    window.slide(a, x[2 + a]);
    p.in[1 + a] = x[2 + a];
    p.out[1 + a] = y[2 + a];
    p.kernel[1 + a] = window.kernel[a];
    p.stride[1 + a] = window.stride[a];
    p.dilation[1 + a] = window.dilation[a];
    p.pad[1 + a] = window.begin[a];
  }
  const auto pointwise = [&](int64_t channels, int64_t outputs, const int64_t (&extents)[3]) {
    ConvProblem q;
    q.batch = p.batch;
    q.channels = channels;
    q.outputs = outputs;
    for (int a = 0; a < 3; ++a) q.in[a] = q.out[a] = extents[a];
    return q;
  };
  auto k = std::make_unique<ConvChain>();
  if (ctx.has_input(kBeforeW)) k->before = make_stage(ctx, pointwise(x[1], p.channels, p.in), kBeforeW, activation_of(ctx.node, "before_"));
  k->depthwise = make_stage(ctx, p, kDepthwiseW, activation_of(ctx.node, ctx.has_input(kAfterW) ? "depthwise_" : ""));
  if (ctx.has_input(kAfterW)) k->after = make_stage(ctx, pointwise(p.channels, y[1], p.out), kAfterW, activation_of(ctx.node));
  k->split();
  double flops = 0, floats = static_cast<double>(p.batch * (x[1] * p.in_plane() + y[1] * p.out_plane()));
  for (const Stage* s : {k->before ? &*k->before : nullptr, &k->depthwise, k->after ? &*k->after : nullptr})
    if (s) {
      flops += s->plan.problem.flops();
      floats += static_cast<double>(s->plan.packed);
    }
  ctx.workspace(4 * ctx.threads() * k->scratch);
  ctx.cost(flops, 4 * floats);
  // Each result reads the residual at its own place alone, once, before it is written.
  if (ctx.has_input(kResidual) && ctx.node.inputs[kResidual] != ctx.node.inputs[kX]) ctx.inplace(0, kResidual);
  ctx.kernel(std::move(k));
}

const OpRegistration rows({{"ConvChain", kTiercelDomain, 1, infer, prepare, nullptr, kAnyLayout}});

}  // namespace
}  // namespace tiercel

// ai.tiercel.Reorder: a float tensor [N, C, ...] in another layout (attribute `to`: "blocked" or "plain"). The layout pass makes it.
// With channels_last = 1 the plain side is [N, ..., C]: pixels then are rows of channels on both sides.
#include <algorithm>
#include <cstring>

#include "kernels/reorder/reorder.h"
#include "ops/registry.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  const std::string to = ctx.node.attr_string("to", "");
  ctx.check(to == "blocked" || to == "plain", "attribute to should be blocked or plain, is \"", to, "\"");
  Type y = ctx.type(0);
  ctx.check(y.is_tensor() && y.dtype == DType::kFloat, "only float tensors have layouts");
  ctx.check(!y.ranked || y.shape.rank() >= 2, "X should have a batch and a channel axis");
  y.layout = to == "blocked" ? Layout::kBlocked : Layout::kPlain;
  if (ctx.node.attr_int("channels_last", 0) && y.ranked) {
    ctx.check(ctx.type(0).layout != y.layout, "with channels_last one side should be blocked");
    const Shape x = y.shape;
    const int last = x.rank() - 1;
    for (int i = 1; i <= last; ++i) y.shape[i] = y.layout == Layout::kBlocked ? x[i == 1 ? last : i - 1] : x[i == last ? 1 : i + 1];
  }
  ctx.set_output(0, y);
}

// Between blocks and rows of all channels: runs of a block's channels are copied.
void prepare_channels_last(PrepareContext& ctx) {
  const bool to_blocks = ctx.out_layout(0) == Layout::kBlocked;
  const Shape& s = to_blocks ? ctx.out_shape(0) : ctx.shape(0);  // [N, C, ...]
  const int64_t channels = s[1], plane = s.count(2, s.rank()), blocks = ceil_div(channels, kChannelBlock);
  ctx.cost(0, 8.0 * static_cast<double>(s[0] * plane) * static_cast<double>(channels));
  ctx.run([=](const Args& args, Worker& worker) {
    const float* x = args.in<float>(0);
    float* y = args.out<float>(0);
    worker.parallel_for(s[0] * plane, std::max<int64_t>(1, 8192 / std::max<int64_t>(channels, 1)), [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const int64_t in_blocks = (i / plane * blocks * plane + i % plane) * kChannelBlock;
        for (int64_t b = 0; b < blocks; ++b) {
          const int64_t at = in_blocks + b * plane * kChannelBlock, row = i * channels + b * kChannelBlock;
          const int64_t n = std::min<int64_t>(kChannelBlock, channels - b * kChannelBlock);
          if (n == kChannelBlock) {  // of a known length, so that it is a copy of registers
            std::memcpy(y + (to_blocks ? at : row), x + (to_blocks ? row : at), kChannelBlock * sizeof(float));
            continue;
          }
          std::memcpy(y + (to_blocks ? at : row), x + (to_blocks ? row : at), static_cast<size_t>(n) * sizeof(float));
          if (to_blocks) std::fill(y + at + n, y + at + kChannelBlock, 0.0f);
        }
      }
    });
  });
}

void prepare(PrepareContext& ctx) {
  const Shape& x = ctx.shape(0);
  if (ctx.node.attr_int("channels_last", 0)) return prepare_channels_last(ctx);
  if (ctx.layout(0) == ctx.out_layout(0)) return ctx.alias(0, 0);
  if (x.count(2, x.rank()) == 1 && x[1] % kChannelBlock == 0) return ctx.alias(0, 0);  // the same memory either way
  if (x.count() == 0) return ctx.run([](const Args&, Worker&) {});
  const bool blocked = ctx.out_layout(0) == Layout::kBlocked;
  const int64_t channels = x[1], plane = x.count(2, x.rank()), blocks = ceil_div(channels, kChannelBlock);
  constexpr int64_t kPixels = 1024;
  const int64_t parts = ceil_div(plane, kPixels), tasks = x[0] * blocks * parts;
  const int64_t grain = std::max<int64_t>(1, kPixels / plane);
  ctx.cost(0, 8.0 * static_cast<double>(x[0] * blocks * plane) * kChannelBlock);
  ctx.run([=](const Args& args, Worker& worker) {
    const ReorderKernels& k = reorder();
    worker.parallel_for(tasks, grain, [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const int64_t at = i % parts * kPixels, block = i / parts % blocks, n = i / parts / blocks;
        const int count = static_cast<int>(std::min<int64_t>(kChannelBlock, channels - block * kChannelBlock));
        const int64_t in_planes = (n * channels + block * kChannelBlock) * plane + at;
        const int64_t in_blocks = ((n * blocks + block) * plane + at) * kChannelBlock;
        const int64_t pixels = std::min(kPixels, plane - at);
        if (blocked) k.to_blocked(args.in<float>(0) + in_planes, plane, count, pixels, args.out<float>(0) + in_blocks);
        else k.to_plain(args.in<float>(0) + in_blocks, pixels, args.out<float>(0) + in_planes, plane, count);
      }
    });
  });
}

const OpRegistration rows({{"Reorder", kTiercelDomain, 1, infer, prepare, nullptr, kAnyLayout}});

}  // namespace
}  // namespace tiercel

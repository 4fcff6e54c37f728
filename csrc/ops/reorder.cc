// ai.tiercel.Reorder: a float tensor [N, C, ...] in another layout (attribute `to`: "blocked" or "plain"). The layout pass makes it.
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
  ctx.set_output(0, y);
}

void prepare(PrepareContext& ctx) {
  const Shape& x = ctx.shape(0);
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

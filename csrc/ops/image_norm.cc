#include "ops/image_norm.h"

namespace tiercel {

void channel_moments(const ChannelView& v, const float* x, Moments* to, Worker& w) {
  const double count = static_cast<double>(v.space);
  if (!v.blocked) {
    w.parallel_for(v.batch * v.channels, grain_for(v.space), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        to[i].count = count;
        norm().moments(x + i * v.space, v.space, &to[i].mean, &to[i].m2);
      }
    });
    return;
  }
  const int64_t blocks = v.blocks();
  w.parallel_for(v.batch * blocks, grain_for(v.space * kChannelBlock), [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) {
      double mean[kChannelBlock], m2[kChannelBlock];
      norm().moments16(x + i * v.space * kChannelBlock, v.space, mean, m2);
      const int64_t c0 = i % blocks * kChannelBlock;
      for (int64_t c = 0; c < kChannelBlock && c0 + c < v.channels; ++c)
        to[i / blocks * v.channels + c0 + c] = {count, mean[c], m2[c]};
    }
  });
}

}  // namespace tiercel

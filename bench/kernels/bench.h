// Timing beside the peak: slices of the work alternate with slices of pure multiply-adds, so that both see the same clock.
#pragma once
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "base/memory.h"
#include "kernels/peak/peak.h"

namespace tiercel::bench {

// Time of this thread on a processor: other programs cost cache and clock, but not their turns.
inline double seconds() {
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

struct Floats {
  explicit Floats(int64_t n) : memory(allocate(static_cast<size_t>(std::max<int64_t>(n, 1)) * 4)), data(static_cast<float*>(memory.get())) {
    for (int64_t i = 0; i < n; ++i) data[i] = static_cast<float>((i * 7919) % 2003 - 1001) / 1001;
  }
  Buffer memory;
  float* data;
};

struct Result {
  double seconds, share;  // median time of one call; median of its FLOPS over the peak's
};

template <class F> Result measure(double flops, F f, int slices = 15) {
  float sink;
  const double t0 = seconds();
  f();
  const double once = std::max(seconds() - t0, 1e-7);
  const int calls = std::max(1, static_cast<int>(4e-3 / once));
  std::vector<double> times, shares;
  for (int s = 0; s < slices; ++s) {
    f();  // warm
    double t = seconds();
    for (int i = 0; i < calls; ++i) f();
    const double call = (seconds() - t) / calls;
    t = seconds();
    const double most = peak().fma_f32(100000, &sink) / (seconds() - t);
    times.push_back(call);
    shares.push_back(flops / call / most);
  }
  const auto median = [](std::vector<double>& v) { std::nth_element(v.begin(), v.begin() + v.size() / 2, v.end()); return v[v.size() / 2]; };
  return {median(times), median(shares)};
}

}  // namespace tiercel::bench

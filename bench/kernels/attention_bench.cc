// attention_bench: what stands between the products of attention, in units of the time that a multiply-add of 16 floats takes at the peak.
#include <cmath>
#include <utility>

#include "bench.h"
#include "kernels/attention/attention.h"

using namespace tiercel;

static void weights(int64_t rows, int64_t keys) {
  bench::Floats s(rows * keys), most(rows), sum(rows), factor(rows);
  AttentionBlock b{s.data, keys, rows, keys, 0.125f, 0, nullptr, 0, 0, most.data, sum.data, factor.data};
  const auto p = bench::measure(static_cast<double>(rows * keys), [&] {
    for (int64_t i = 0; i < rows; ++i) most.data[i] = -INFINITY, sum.data[i] = 0;
    attention().weights(b);
  });
  std::printf("weights %5ld x %5ld  %8.2f us  %6.2f multiply-adds' time for 16 scores\n", rows, keys, p.seconds * 1e6, 0.5 / p.share);
}

int main() {
  std::printf("isa %s\n", std::string(isa_name(active_isa())).c_str());
  for (const auto& s : {std::pair<int64_t, int64_t>{24, 256}, {24, 128}, {24, 197}, {24, 512}, {6, 256}, {24, 49}, {1, 1024}}) weights(s.first, s.second);
}

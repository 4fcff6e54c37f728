#include <cmath>

#include "kernels/reduce/reduce.h"

namespace tiercel::reference {

double reduce(ReduceMap map, const float* x, int64_t n, int64_t stride, double shift) {
  double acc = map == ReduceMap::kMax ? -INFINITY : map == ReduceMap::kMin ? INFINITY : map == ReduceMap::kProd ? 1 : 0;
  for (int64_t i = 0; i < n; ++i) {
    const double v = x[i * stride];
    switch (map) {
      case ReduceMap::kSum: acc += v; break;
      case ReduceMap::kSumAbs: acc += std::fabs(v); break;
      case ReduceMap::kSumSquare: acc += v * v; break;
      case ReduceMap::kSumExp: acc += std::exp(v - shift); break;
      case ReduceMap::kMax: if (v > acc || std::isnan(v)) acc = v; break;
      case ReduceMap::kMin: if (v < acc || std::isnan(v)) acc = v; break;
      case ReduceMap::kProd: acc *= v; break;
    }
    if (std::isnan(acc)) return acc;
  }
  return acc;
}

int64_t arg_reduce(const float* x, int64_t n, int64_t stride, bool min, bool last) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) {
    const float v = x[i * stride], b = x[best * stride];
    const bool better = std::isnan(b) ? false : std::isnan(v) || (min ? v < b : v > b);
    const bool tie = v == b || (std::isnan(v) && std::isnan(b));
    if (better || (last && tie)) best = i;
  }
  return best;
}

}  // namespace tiercel::reference

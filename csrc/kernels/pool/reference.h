// Pooling as plain loops: any rank and type, indices of the largest, Lp norms. What the fast kernels are tested against.
#pragma once
#include <cstdint>

namespace tiercel::reference {

struct PoolExtents {
  int rank;                                                            // spatial axes
  const int64_t *in, *out, *kernel, *stride, *dilation, *begin, *end;  // begin, end: the padding
};
enum class Pool { kMax, kMean, kLp };
struct PoolOptions {
  Pool pool;
  bool count_padding = false;  // kMean
  bool column_major = false;   // kMax: how indices count
  double p = 2;                // kLp
};

// Planes [begin, end). `indices` (kMax; may be null): flat positions in X.
template <class T>
void pool(const PoolExtents& e, const PoolOptions& o, const T* x, T* y, int64_t* indices, int64_t begin, int64_t end);

}  // namespace tiercel::reference

#include "kernels/gemm/gemm.h"

namespace tiercel::reference {

void gemm(const GemmArgs& g) {
  for (int64_t i = 0; i < g.m; ++i)
    for (int64_t j = 0; j < g.n; ++j) {
      float& c = g.c[i * g.c_row + j];
      double sum = g.accumulate ? c : 0;
      for (int64_t r = 0; r < g.count; ++r)
        for (int64_t k = 0; k < g.k; ++k)
          sum += static_cast<double>(g.a[r][i * g.a_row + k * g.a_k]) * g.b[r][k * g.b_row + j];
      float x = static_cast<float>(sum);
      if (const GemmEpilogue* e = g.epilogue) {
        x *= e->alpha;
        for (const GemmAddend& d : e->add) if (d.data) x += d.scale * d.data[i * d.row + j * d.col];
        x = activate(x, e->activation);
      }
      c = x;
    }
}

}  // namespace tiercel::reference

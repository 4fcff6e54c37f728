// Products of doubles and integers: c[i * c_row + j] = sum_k a[i * a_row + k * a_k] b[k * b_k + j * b_col], k rising. Integers wrap.
#pragma once
#include <stdint.h>

#include "kernels/dispatch.h"

namespace tiercel {

struct PlainGemmArgs {
  int64_t m, n, k;
  const void* a; int64_t a_row, a_k;
  const void* b; int64_t b_k, b_col;
  void* c; int64_t c_row;
};

struct PlainGemmKernels {
  void (*f64)(const PlainGemmArgs& args);
  void (*u32)(const PlainGemmArgs& args);  // int32 as well
  void (*u64)(const PlainGemmArgs& args);  // int64 as well
};
TIERCEL_KERNEL_TABLE(PlainGemmKernels, plain_gemm)

}  // namespace tiercel

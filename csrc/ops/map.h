// The kernel of operators that map each element of input 0 to the same place of output 0.
#pragma once
#include "ops/elementwise.h"

namespace tiercel {

// f(x, y, n) works on elements of dtype `compute`, or gives bools when the output is bool; the 16-bit and narrower floats are
// converted around it, a tile at a time. `clear`: f(0) is not zero, so the padding of a blocked layout is cleared after it.
template <class F> void map_elements(PrepareContext& ctx, DType compute, double flops, bool clear, F f) {
  const DType in = ctx.dtype(0), out = ctx.out_dtype(0), result = out == DType::kBool && compute != out ? out : compute;
  const Convert load(in, compute), store(result, out);
  const int in_bytes = element_bytes(in), out_bytes = element_bytes(out);
  const bool blocked = ctx.layout(0) == Layout::kBlocked;
  clear = clear && blocked;
  if (in_bytes == out_bytes) ctx.inplace(0, 0);
  run_elementwise(ctx, storage_count(ctx.shape(0), ctx.layout(0)), flops,
                  [=, shape = ctx.shape(0)](const Args& args, int64_t begin, int64_t end) {
    const char* x = args.in<char>(0) + begin * in_bytes;
    char* y = args.out<char>(0) + begin * out_bytes;
    if (!load && !store) {
      f(x, y, end - begin);
    } else {
      TileBuffer a, b;
      for (int64_t i = begin; i < end; i += kTile, x += kTile * in_bytes, y += kTile * out_bytes) {
        const int64_t n = std::min(kTile, end - i);
        if (load) load(x, a.data, n);
        void* to = store ? static_cast<void*>(b.data) : y;
        f(load ? static_cast<const void*>(a.data) : x, to, n);
        if (store) store(to, y, n);
      }
    }
    if (clear) clear_padding(args.out<float>(0), shape, begin, end);
  });
}

}  // namespace tiercel

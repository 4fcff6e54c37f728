// ai.tiercel.GatherGrad (dy, indices, shape): zeros of that shape, to which each slice of dy is added where Gather (attribute axis) took it from.
// In the order of the indices, whatever the threads: they share the elements of a slice.
#include <cstring>

#include "ops/indexing.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  check_index_type(ctx, 1);
  const auto ints = ctx.ints(2);
  ctx.set_output(0, ints ? Type::tensor(ctx.dtype(0), Shape{std::span<const Dim>(*ints)}) : Type::tensor(ctx.dtype(0)));
}

template <class T> void make(PrepareContext& ctx) {
  const Shape& x = ctx.out_shape(0);
  const int axis = normalize_axis(ctx.node.attr_int("axis", 0), x.rank());
  const int64_t outer = x.count(0, axis), extent = x[axis], block = x.count(axis + 1, x.rank()), n = ctx.shape(1).count();
  const int64_t strip = std::min<int64_t>(block, 128), strips = block ? ceil_div(block, strip) : 0;
  ctx.cost(static_cast<double>(outer * n * block), static_cast<double>(sizeof(T)) * static_cast<double>(x.count() + 2 * outer * n * block));
  with_index_type(ctx.dtype(1), [&]<class Index>(Index) {
    ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
      const Index* index = a.in<Index>(1);
      w.parallel_for(outer * strips, 1, [&](int64_t b, int64_t e) {
        for (int64_t t = b; t < e; ++t) {
          const int64_t o = t / strips, first = t % strips * strip, m = std::min(strip, block - first);
          T* const to = a.out<T>(0) + o * extent * block + first;
          const T* const from = a.in<T>(0) + o * n * block + first;
          for (int64_t i = 0; i < extent; ++i) std::fill_n(to + i * block, m, T(0));
          for (int64_t i = 0; i < n; ++i) {
            T* const y = to + place(index[i], extent, label) * block;
            const T* const d = from + i * block;
            for (int64_t k = 0; k < m; ++k) y[k] += d[k];
          }
        }
      });
    });
  });
}

void prepare(PrepareContext& ctx) {
  if (ctx.dtype(0) == DType::kDouble) make<double>(ctx);
  else make<float>(ctx);
}

const OpRegistration rows({{"GatherGrad", kTiercelDomain, 1, infer, half_as_float<prepare>}});

}  // namespace
}  // namespace tiercel

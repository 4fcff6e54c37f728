// Gather, GatherElements, GatherND: elements chosen by indices. A negative index counts from the end.
#include "kernels/scatter/scatter.h"
#include "ops/grad_tools.h"
#include "ops/indexing.h"

namespace tiercel {
namespace {

// ---- Gather: out[o, i, :] = data[o, indices[i], :]

void infer_gather(InferContext& ctx) {
  ctx.input(0);
  ctx.input(1);
  check_index_type(ctx, 1);
  if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  const Shape &data = ctx.shape(0), &indices = ctx.shape(1);
  ctx.check(data.rank() > 0, "the data should have rank 1 at least");
  const int axis = ctx.axis(ctx.node.attr_int("axis", 0), data.rank());
  Shape r;
  for (int i = 0; i < axis; ++i) r.push_back(data[i]);
  for (Dim d : indices) r.push_back(d);
  for (int i = axis + 1; i < data.rank(); ++i) r.push_back(data[i]);
  ctx.set_output(0, ctx.dtype(0), r);
  const Dim extent = data[axis];
  const auto at = indices.rank() <= 1 ? small_ints(ctx, 1) : std::nullopt;
  if (!at || is_symbol(extent)) return;
  const auto v = data.rank() == 1 ? small_ints(ctx, 0) : std::nullopt;
  std::vector<Dim> some;
  for (Dim i : *at) {
    if (is_symbol(i)) return;
    ctx.check(i >= -extent && i < extent, "index ", i, " is outside [", -extent, ", ", extent - 1, "]");
    if (v) some.push_back((*v)[static_cast<size_t>(i < 0 ? i + extent : i)]);
  }
  if (v) ctx.set_ints(0, std::move(some));
}

void prepare_gather(PrepareContext& ctx) {
  const Shape& data = ctx.shape(0);
  const int axis = normalize_axis(ctx.node.attr_int("axis", 0), data.rank());
  const Element e(ctx.dtype(0));
  const int64_t outer = data.count(0, axis), extent = data[axis], block = data.count(axis + 1, data.rank());
  const int64_t n = ctx.shape(1).count();
  move_cost(ctx);
  with_index_type(ctx.dtype(1), [&]<class Index>(Index) {
    if (block == 1) return with_element_type(e, [&]<class T>(T) {
      ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
        const T* from = a.in<T>(0);
        const Index* index = a.in<Index>(1);
        T* to = a.out<T>(0);
        w.parallel_for(outer * n, move_grain(e.size), [&](int64_t b, int64_t end) {
          for (int64_t o = b / n, i = b % n; b < end; ++o, i = 0)
            for (; i < n && b < end; ++i, ++b) to[b] = from[o * extent + place(index[i], extent, label)];
        });
      });
    });
    if (bits_of(ctx.dtype(0)) >= 8) ctx.unaligned(0);
    ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
      const Index* index = a.in<Index>(1);
      w.parallel_for(outer * n, move_grain(block * e.size), [&](int64_t b, int64_t end) {
        for (int64_t o = b / n, i = b % n; b < end; ++o, i = 0)
          for (; i < n && b < end; ++i, ++b)
            copy_elements(e, offset(a.out(0), b * block, e),
                          offset(a.in(0), (o * extent + place(index[i], extent, label)) * block, e), block);
      });
    });
  });
}

// ---- GatherElements: out[.., i, ..] = data[.., indices[.., i, ..], ..] along one axis

void infer_gather_elements(InferContext& ctx) {
  ctx.input(0);
  ctx.input(1);
  check_index_type(ctx, 1);
  if (!ctx.ranked(1)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  const Shape& indices = ctx.shape(1);
  ctx.set_output(0, ctx.dtype(0), indices);
  if (!ctx.ranked(0)) return;
  const Shape& data = ctx.shape(0);
  ctx.check(data.rank() == indices.rank() && data.rank() > 0, "data and indices should have one rank, 1 at least");
  const int axis = ctx.axis(ctx.node.attr_int("axis", 0), data.rank());
  for (int i = 0; i < data.rank(); ++i)
    if (i != axis && data[i] >= 0 && indices[i] >= 0)
      ctx.check(indices[i] <= data[i], "the indices reach ", indices[i], " along axis ", i, " of extent ", data[i]);
}

// A run of the output whose indices lie together and whose data do, but for the index: rows behind the axis, which move as a whole where their
// indices are all one (they were expanded, mostly), or steps along the last axis.
void prepare_gather_elements(PrepareContext& ctx) {
  const Shape data = ctx.shape(0), out = ctx.out_shape(0);
  const int rank = out.rank(), axis = normalize_axis(ctx.node.attr_int("axis", 0), rank);
  const Element e(ctx.dtype(0));
  const Strides strides = strides_of(data);
  const int64_t extent = data[axis], stride = strides[static_cast<size_t>(axis)];
  int inner = rank - 1;  // axes from here on are a run
  int64_t cols = out.back();
  while (inner > axis + 1 && strides[static_cast<size_t>(inner) - 1] == cols) cols *= out[--inner];
  const bool along = axis >= inner;  // the run goes along the axis
  const int64_t step = along ? 0 : 1, rows = cols ? out.count(0, inner) : 0;
  bool whole = along;  // runs begin at equal distances
  for (int k = 1; k < axis; ++k) whole &= out[k] == data[k];
  move_cost(ctx);
  with_index_type(ctx.dtype(1), [&]<class Index>(Index) {
    with_element_type(e, [&]<class T>(T) {
      ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
        const IndexKernels<Index>& kernels = index_kernels<Index>(scatter_kernels());
        constexpr int64_t kBlock = 512;
        w.parallel_for(rows, move_grain(cols * e.size), [&](int64_t b, int64_t end) {
          const Index* const all = a.in<Index>(1);
          // Bounds of many indices at a time, before any is used.
          for (const Index* i = all + b * cols; i < all + end * cols; i += kBlock) {
            const int64_t n = std::min<int64_t>(kBlock, all + end * cols - i);
            if (kernels.outside(i, n, extent)) [[unlikely]]
              for (int64_t k = 0; k < n; ++k) place(i[k], extent, label);
          }
          for (int64_t r = b; r < end; ++r) {
            int64_t base = whole ? r * extent : 0, t = whole ? 0 : r;
            for (int k = inner - 1; k >= 0 && t > 0; --k) {
              if (k != axis) base += t % out[k] * strides[static_cast<size_t>(k)];
              t /= out[k];
            }
            const Index* const index = all + r * cols;
            T* const to = a.out<T>(0) + r * cols;
            const T* const from = a.in<T>(0) + base;
            const auto at = [&](int64_t c) { return static_cast<int64_t>(index[c]) + (index[c] < 0 ? extent : 0); };
            if (stride == 1 && along) {
              for (int64_t c = 0; c < cols; ++c) to[c] = from[at(c)];
              continue;
            }
            int64_t p = kMixedRow;
            if (step && cols > 1) kernels.rows(index, 1, cols, extent, &p);
            if (p != kMixedRow) std::copy_n(from + p * stride, cols, to);
            else for (int64_t c = 0; c < cols; ++c) to[c] = from[c * step + at(c) * stride];
          }
        });
      });
    });
  });
}

// ---- GatherND: the last axis of the indices holds tuples that lead into the data

void infer_gather_nd(InferContext& ctx) {
  ctx.input(0);
  ctx.input(1);
  ctx.check(ctx.dtype(1) == DType::kInt64, "indices should be int64");
  if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  const Shape &data = ctx.shape(0), &indices = ctx.shape(1);
  const int64_t batch = ctx.node.attr_int("batch_dims", 0);
  ctx.check(data.rank() > 0 && indices.rank() > 0, "data and indices should have rank 1 at least");
  ctx.check(batch >= 0 && batch < std::min(data.rank(), indices.rank()), "batch_dims ", batch, " should be below both ranks");
  const Dim tuple = indices.back();
  if (is_symbol(tuple)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  ctx.check(tuple >= 1 && batch + tuple <= data.rank(), "index tuples of ", tuple, " entries do not fit data of rank ", data.rank(),
            " with batch_dims ", batch);
  Shape r;
  for (int i = 0; i + 1 < indices.rank(); ++i) r.push_back(i < batch ? unify(ctx, indices[i], data[i], "batch extents") : indices[i]);
  for (int i = static_cast<int>(batch + tuple); i < data.rank(); ++i) r.push_back(data[i]);
  ctx.set_output(0, ctx.dtype(0), r);
}

void prepare_gather_nd(PrepareContext& ctx) {
  const Shape data = ctx.shape(0), indices = ctx.shape(1);
  const int batch = static_cast<int>(ctx.node.attr_int("batch_dims", 0)), tuple = static_cast<int>(indices.back());
  const Element e(ctx.dtype(0));
  const Strides strides = strides_of(data);
  const int64_t block = data.count(batch + tuple, data.rank()), n = indices.count(0, indices.rank() - 1);
  const int64_t per_batch = indices.count(batch, indices.rank() - 1), batch_stride = data.count(batch, data.rank());
  move_cost(ctx);
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    const int64_t* index = a.in<int64_t>(1);
    w.parallel_for(n, move_grain(block * e.size), [&](int64_t b, int64_t end) {
      for (int64_t i = b; i < end; ++i) {
        int64_t from = i / per_batch * batch_stride;
        for (int k = 0; k < tuple; ++k)
          from += place(index[i * tuple + k], data[batch + k], label) * strides[static_cast<size_t>(batch + k)];
        copy_elements(e, offset(a.out(0), i * block, e), offset(a.in(0), from, e), block);
      }
    });
  });
}

const OpRegistration rows({
    {"Gather", "", 1, infer_gather, sub_byte<prepare_gather>},
    {"GatherElements", "", 11, infer_gather_elements, sub_byte<prepare_gather_elements>},
    {"GatherND", "", 11, infer_gather_nd, sub_byte<prepare_gather_nd>},
});

// The batch's coordinates before each tuple make it one of ScatterND.
void grad_gather_nd(GradContext& c) {
  using namespace grad_tools;
  GraphWriter& w = c.w;
  Value *const x = c.x(0), *at = c.x(1);
  const int64_t batch = c.node.attr_int("batch_dims", 0);
  if (batch > 0) {
    const int lead = c.rank(at) - 1;
    std::vector<Value*> parts;
    for (int64_t k = 0; k < batch; ++k) {
      std::vector<int64_t> shape(static_cast<size_t>(lead) + 1, 1);
      shape[static_cast<size_t>(k)] = -1;
      Value* const each = w.op("Reshape", {count_up(w, extent(w, x, k)), w.ints(shape)});
      parts.push_back(w.op("Expand", {each, w.op("Concat", {extents(w, at, 0, lead), w.ints({1})}, {{"axis", int64_t{0}}})}));
    }
    parts.push_back(at);
    at = w.op("Concat", parts, {{"axis", int64_t{-1}}});
  }
  c.set(0, w.op("ScatterND", {zeros_like(w, x), at, c.dy()}, {{"reduction", std::string("add")}}));
}

const GradRegistration grads({
    {"Gather", "", [](GradContext& c) {
       c.set(0, grad_tools::gather_back(c.w, c.dy(), c.x(1), c.w.shape_of(c.x(0)), c.node.attr_int("axis", 0)));
     }},
    {"GatherElements", "", [](GradContext& c) {
       c.set(0, c.w.op("ScatterElements", {grad_tools::zeros_like(c.w, c.x(0)), c.x(1), c.dy()},
                       {{"axis", c.node.attr_int("axis", 0)}, {"reduction", std::string("add")}}));
     }},
    {"GatherND", "", grad_gather_nd},
});

}  // namespace
}  // namespace tiercel

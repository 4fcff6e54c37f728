// Scatter, ScatterElements, ScatterND, TensorScatter: the data with some elements replaced by, or reduced with, updates.
// Where indices repeat, updates apply in their order.
#include "ops/numeric.h"
#include "ops/scatter_rows.h"

namespace tiercel {
namespace {

// ---- Reductions

Scatter reduction_of(const Node& node) {
  const std::string r = node.opset < 16 && node.domain.empty() ? "none" : node.attr_string("reduction", "none");
  if (r == "none") return Scatter::kNone;
  if (r == "add") return Scatter::kAdd;
  if (r == "mul") return Scatter::kMul;
  if (r == "max") return Scatter::kMax;
  if (r == "min") return Scatter::kMin;
  fail(Code::kInvalidGraph, node.label(), ": reduction '", r, "' is not known");
}

// Null for none.
ScatterFn combine_of(PrepareContext& ctx) {
  const Scatter r = reduction_of(ctx.node);
  const ScatterFn f = scatter_fn(scatter_kernels(), r, ctx.dtype(0));
  if (!f && r != Scatter::kNone) ctx.fail("elements of this type cannot be reduced");
  return f;
}

// ---- The data, copied unless the output lies over it. Collective, no barrier.

void copy_data(const Args& a, Worker& w, Element e, int64_t n) {
  if (a.in(0) == a.out(0)) return;
  w.parallel_for(n, move_grain(e.size), [&](int64_t b, int64_t end) {
    copy_elements(e, offset(a.out(0), b, e), offset(a.in(0), b, e), end - b);
  });
}

void allow_inplace(PrepareContext& ctx) {
  for (int i = 1; i < ctx.num_inputs(); ++i)
    if (ctx.node.input(i) == ctx.node.input(0)) return;  // the updates are read while the data are overwritten
  ctx.inplace(0, 0);
}

void infer_updates(InferContext& ctx, int updates) {
  ctx.input(0);
  ctx.check(ctx.dtype(updates) == ctx.dtype(0), "the updates should be of the data's type");
  ctx.set_output(0, ctx.type(0));
}

// ---- ScatterElements: out[.., indices[.., i, ..], ..] (+)= updates[.., i, ..]. ai.tiercel.ScatterElements: the indices broadcast to the updates,
// with one entry along each axis behind the scattered one.

void infer_scatter_elements(InferContext& ctx) {
  infer_updates(ctx, 2);
  check_index_type(ctx, 1);
  reduction_of(ctx.node);
  if (!ctx.ranked(0)) return;
  const Shape& data = ctx.shape(0);
  ctx.check(data.rank() > 0, "the data should have rank 1 at least");
  const int axis = ctx.axis(ctx.node.attr_int("axis", 0), data.rank());
  if (!ctx.ranked(1) || !ctx.ranked(2)) return;
  const Shape &indices = ctx.shape(1), &updates = ctx.shape(2);
  ctx.check(indices.rank() == data.rank() && updates.rank() == data.rank(), "data, indices and updates should have one rank");
  const bool broadcasts = !ctx.node.domain.empty();
  for (int i = 0; i < data.rank(); ++i) {
    if (broadcasts && i > axis) ctx.check(indices[i] == 1 || is_symbol(indices[i]), "the indices reach ", indices[i], " along axis ", i, ", where one serves all");
    else if (!broadcasts || indices[i] != 1) unify(ctx, indices[i], updates[i], "extents of indices and updates");
    ctx.check(i == axis || data[i] < 0 || updates[i] <= data[i], "the indices reach ", updates[i], " along axis ", i, " of extent ", data[i]);
  }
}

// Elements that meet in one place differ along the axis alone. Behind it, what lies together in updates and data alike is a row: where its indices
// are all one (they were expanded, mostly), it moves as a whole.
void prepare_scatter_elements(PrepareContext& ctx) {
  const Shape data = ctx.shape(0), indices = ctx.shape(1), updates = ctx.shape(2);
  const int rank = data.rank(), axis = normalize_axis(ctx.node.attr_int("axis", 0), rank);
  const Element e(ctx.dtype(0));
  const ScatterFn combine = combine_of(ctx);
  const int64_t n = data.count(), m = updates.count();
  const auto at = [](const Strides& s, int k) { return s[static_cast<size_t>(k)]; };
  const Strides data_strides = strides_of(data), update_strides = strides_of(updates), index_strides = strides_of(indices);
  allow_inplace(ctx);
  if (m == 0) {
    ctx.cost(0, static_cast<double>(2 * n * e.size));
    return ctx.run([=](const Args& a, Worker& w) { copy_data(a, w, e, n); });
  }
  int64_t width = 1;
  int k = rank - 1;
  for (; k > axis; --k) {
    if (updates[k] == 1) continue;
    if (at(data_strides, k) != width) break;
    width *= updates[k];
  }
  const bool whole = !(indices == updates);  // rows with one index each
  const auto axis_of = [&](int i) {
    const int64_t rows = whole ? indices[i] == 1 ? 0 : at(index_strides, i) : at(update_strides, i) / width;
    return ScatterRows::Axis{updates[i], at(data_strides, i), at(update_strides, i), rows};
  };
  std::vector<ScatterRows::Axis> lanes;
  for (int i = 0; i <= k; ++i) if (i != axis) lanes.push_back(axis_of(i));
  ScatterRows rows(e, combine, width, data[axis], at(data_strides, axis), axis_of(axis), lanes);
  rows.has_indices();
  const bool table = !rows.by_elements();
  const int64_t index_width = whole ? 1 : width, entries = indices.count() / index_width;
  if (table) ctx.workspace(entries * static_cast<int64_t>(sizeof(int64_t)));
  ctx.cost(combine ? static_cast<double>(m) : 0, static_cast<double>((2 * n + 3 * m) * e.size + bytes_of(ctx.dtype(1), indices.count())));
  with_index_type(ctx.dtype(1), [&]<class Index>(Index) {
    ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
      const Index* const index = a.in<Index>(1);
      int64_t* const places = table ? a.workspace<int64_t>() : nullptr;
      rows.look_up(index, entries, index_width, places, label, w);
      copy_data(a, w, e, n);
      w.barrier();
      rows.apply(a.in(2), a.out(0), places, index, w);
    });
  });
}

// ---- ScatterND: the last axis of the indices holds tuples that lead into the data

void infer_scatter_nd(InferContext& ctx) {
  infer_updates(ctx, 2);
  ctx.check(ctx.dtype(1) == DType::kInt64, "indices should be int64");
  reduction_of(ctx.node);
  if (!ctx.ranked(0) || !ctx.ranked(1)) return;
  const Shape &data = ctx.shape(0), &indices = ctx.shape(1);
  ctx.check(data.rank() > 0 && indices.rank() > 0, "data and indices should have rank 1 at least");
  if (is_symbol(indices.back())) return;
  ctx.check(indices.back() <= data.rank(), "index tuples of ", indices.back(), " entries do not fit data of rank ", data.rank());
  if (ctx.ranked(2)) {
    const Shape& updates = ctx.shape(2);
    const int lead = indices.rank() - 1, tuple = static_cast<int>(indices.back());
    ctx.check(updates.rank() == lead + data.rank() - tuple, "the updates should have rank ", lead + data.rank() - tuple);
    for (int i = 0; i < updates.rank(); ++i) unify(ctx, updates[i], i < lead ? indices[i] : data[i - lead + tuple], "extents of the updates");
  }
  // A few known numbers written over a known list.
  const auto values = small_ints(ctx, 0), updates = small_ints(ctx, 2);
  const Tensor* at = ctx.constant(1);
  if (!values || !updates || !at || data.rank() != 1 || indices.back() != 1 || reduction_of(ctx.node) != Scatter::kNone) return;
  auto result = *values;
  const auto index = at->ints();
  if (index.size() != updates->size()) return;
  for (size_t i = 0; i < index.size(); ++i) {
    const int64_t size = static_cast<int64_t>(result.size()), k = index[i] < 0 ? index[i] + size : index[i];
    ctx.check(k >= 0 && k < size, "index ", index[i], " is outside [", -size, ", ", size - 1, "]");
    result[static_cast<size_t>(k)] = (*updates)[i];
  }
  ctx.set_ints(0, std::move(result));
}

void prepare_scatter_nd(PrepareContext& ctx) {
  const Shape data = ctx.shape(0), indices = ctx.shape(1);
  const int tuple = static_cast<int>(indices.back());
  const Element e(ctx.dtype(0));
  const ScatterFn combine = combine_of(ctx);
  const int64_t n = data.count(), block = data.count(tuple, data.rank()), tuples = indices.count(0, indices.rank() - 1);
  allow_inplace(ctx);
  ctx.cost(combine ? static_cast<double>(tuples * block) : 0, static_cast<double>((2 * n + 3 * tuples * block) * e.size + 8 * indices.count()));
  if (tuples * block == 0) return ctx.run([=](const Args& a, Worker& w) { copy_data(a, w, e, n); });
  const ScatterRows rows(e, combine, block, data.count(0, tuple), block, {tuples, 0, block, 1}, {});
  ctx.workspace(tuples * static_cast<int64_t>(sizeof(int64_t)));
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    const int64_t* const index = a.in<int64_t>(1);
    int64_t* const places = a.workspace<int64_t>();
    if (tuple == 1) rows.look_up(index, tuples, 1, places, label, w);
    else w.parallel_for(tuples, 2048, [&](int64_t b, int64_t end) {
      for (int64_t i = b; i < end; ++i) {
        int64_t at = 0;
        for (int k = 0; k < tuple; ++k) at = at * data[k] + place(index[i * tuple + k], data[k], label);
        places[i] = at;
      }
    });
    copy_data(a, w, e, n);
    w.barrier();
    rows.apply<int64_t>(a.in(2), a.out(0), places, nullptr, w);
  });
}

// ---- TensorScatter: a cache with new entries written from write_indices on

void infer_tensor_scatter(InferContext& ctx) {
  infer_updates(ctx, 1);
  const std::string mode = ctx.node.attr_string("mode", "linear");
  ctx.check(mode == "linear" || mode == "circular", "mode '", mode, "' is not known");
  if (ctx.has_input(2)) check_index_type(ctx, 2);
  if (!ctx.ranked(0)) return;
  const Shape& cache = ctx.shape(0);
  const int axis = ctx.axis(ctx.node.attr_int("axis", -2), cache.rank());
  ctx.check(axis > 0, "axis 0 is the batch: another is needed");
  if (ctx.has_input(2) && ctx.ranked(2)) {
    ctx.check(ctx.shape(2).rank() == 1, "write_indices should be a 1-D tensor");
    unify(ctx, ctx.shape(2)[0], cache[0], "the batch and the length of write_indices");
  }
  if (!ctx.ranked(1)) return;
  const Shape& update = ctx.shape(1);
  ctx.check(update.rank() == cache.rank(), "cache and update should have one rank");
  for (int i = 0; i < cache.rank(); ++i) {
    if (i != axis) unify(ctx, cache[i], update[i], "extents of cache and update");
    else ctx.check(cache[i] < 0 || update[i] <= cache[i], "the update has ", update[i], " entries, the cache ", cache[i]);
  }
}

void prepare_tensor_scatter(PrepareContext& ctx) {
  const Shape cache = ctx.shape(0), update = ctx.shape(1);
  const int axis = normalize_axis(ctx.node.attr_int("axis", -2), cache.rank());
  const Element e(ctx.dtype(0));
  const bool circular = ctx.node.attr_string("mode", "linear") == "circular", given = ctx.has_input(2);
  const bool narrow = given && ctx.dtype(2) == DType::kInt32;
  const int64_t extent = cache[axis], steps = update[axis], inner = cache.count(axis + 1, cache.rank());
  const int64_t outer = cache.count(0, axis), per_batch = cache.count(1, axis), n = cache.count();
  allow_inplace(ctx);
  ctx.cost(0, static_cast<double>((2 * n + 2 * update.count()) * e.size));
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    copy_data(a, w, e, n);
    w.barrier();
    w.parallel_for(outer * steps, move_grain(inner * e.size), [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t o = t / steps, batch = o / per_batch;
        const int64_t start = !given ? 0 : narrow ? a.in<int32_t>(2)[batch] : a.in<int64_t>(2)[batch];
        const bool fits = start >= 0 && (circular ? start <= INT64_MAX - steps : start <= extent - steps);
        if (!fits) fail(Code::kInvalidArgument, label, ": write index ", start, " with ", steps, " entries leaves the cache of ", extent);
        const int64_t at = start + t % steps;
        copy_elements(e, offset(a.out(0), (o * extent + (circular ? at % extent : at)) * inner, e), offset(a.in(1), t * inner, e), inner);
      }
    });
  });
}

// Reductions of f16 and bf16 go by way of f32; plain replacement moves their bits.
template <PrepareFn prepare> void with_reduction(PrepareContext& ctx) {
  if (reduction_of(ctx.node) != Scatter::kNone) prepare_half(ctx, prepare);
  else sub_byte<prepare>(ctx);
}

const OpRegistration rows({
    {"Scatter", "", 9, infer_scatter_elements, with_reduction<prepare_scatter_elements>},
    {"ScatterElements", "", 11, infer_scatter_elements, with_reduction<prepare_scatter_elements>},
    {"ScatterElements", kTiercelDomain, 1, infer_scatter_elements, with_reduction<prepare_scatter_elements>},
    {"ScatterND", "", 11, infer_scatter_nd, with_reduction<prepare_scatter_nd>},
    {"TensorScatter", "", 24, infer_tensor_scatter, sub_byte<prepare_tensor_scatter>},
});

}  // namespace
}  // namespace tiercel

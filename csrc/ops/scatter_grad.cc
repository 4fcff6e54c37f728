// Gradients of Scatter, ScatterElements, ScatterND, TensorScatter and MaxUnpool: of the data where they stay, of the updates where they land.
#include "ops/scatter_grad.h"

#include <algorithm>
#include <set>

#include "ops/window.h"

namespace tiercel {

using namespace grad_tools;

bool distinct_tuples(const Tensor& indices, int64_t tuple, std::span<const Dim> extents) {
  if (indices.count() > 65536 || tuple <= 0) return false;
  const auto list = indices.ints();
  std::set<std::vector<int64_t>> seen;
  for (size_t i = 0; i + static_cast<size_t>(tuple) <= list.size(); i += static_cast<size_t>(tuple)) {
    std::vector<int64_t> t(list.begin() + static_cast<std::ptrdiff_t>(i), list.begin() + static_cast<std::ptrdiff_t>(i) + tuple);
    for (size_t k = 0; k < t.size(); ++k) {
      if (t[k] >= 0) continue;
      if (is_symbol(extents[k])) return false;
      t[k] += extents[k];
    }
    if (!seen.insert(std::move(t)).second) return false;
  }
  return true;
}

namespace {

// Repeated indices: with `none` the update that is written last has the gradient, with `add` all have; `mul` is right at zeros; those that tie for
// `max` and `min` share alike, the data being one of them. The last three as torch.scatter_reduce has them.
void grad_scatter(GradContext& c) {
  GraphWriter& w = c.w;
  const std::string reduction = c.node.opset < 16 ? "none" : c.node.attr_string("reduction", "none");
  const bool nd = c.node.op_type == "ScatterND";
  Value *const x = c.x(0), *const at = c.x(1), *const u = c.x(2), *const y = c.y(), *const dy = c.dy();
  AttributeList axis;
  if (!nd) axis.emplace_back("axis", c.node.attr_int("axis", 0));
  const auto gather = [&](Value* from) { return w.op(nd ? "GatherND" : "GatherElements", {from, at}, axis); };
  const auto scatter = [&](Value* to, Value* from, const char* how = "none") {
    AttributeList list = axis;
    list.emplace_back("reduction", std::string(how));
    return w.op(nd ? "ScatterND" : "ScatterElements", {to, at, from}, list);
  };
  if (reduction == "add") {
    c.set(0, dy);
    if (c.wants(2)) c.set(2, gather(dy));
    return;
  }
  if (reduction == "none") {
    if (c.wants(0)) c.set(0, scatter(dy, zeros_like(w, u)));
    if (!c.wants(2)) return;
    const Tensor* known = w.info(at).constant;
    const int lead = c.rank(at) - 1, rank = c.rank(x);
    Value* taken = gather(dy);
    if (!nd) {
      const bool unique = known && known->shape()[c.axis(c.node.attr_int("axis", 0), rank)] <= 1;
      if (!unique) {
        Value* const last = written_last(w, w.shape_of(at), w.shape_of(x), [&](Value* to, Value* ids) { return scatter(to, ids); }, gather);
        taken = only_where(w, last, taken);
      }
      return c.set(2, taken);
    }
    Dim tuple = w.shape(at).back();
    if (is_symbol(tuple)) tuple = lead + rank - c.rank(u);
    if (known && distinct_tuples(*known, tuple, std::span<const Dim>(w.shape(x).begin(), static_cast<size_t>(tuple)))) return c.set(2, taken);
    Value* last = written_last(w, extents(w, at, 0, lead), extents(w, x, 0, tuple), [&](Value* to, Value* ids) { return scatter(to, ids); }, gather);
    std::vector<int64_t> inner;
    for (int64_t i = 0; i < rank - tuple; ++i) inner.push_back(lead + i);
    return c.set(2, only_where(w, unsqueeze(w, last, inner), taken));
  }
  if (reduction == "mul") {
    if (c.wants(0)) c.set(0, w.mul(dy, scatter(w.expand_like(w.scalar_like(1, x), x), u, "mul")));
    if (!c.wants(2)) return;
    // The product of the others: divided by this factor, or where it is the only zero, taken without it.
    Value *const one = w.scalar_like(1, u), *const zero = w.op("Equal", {u, w.scalar_like(0, u)});
    Value* const zeros = gather(scatter(zeros_like(w, x), cast(w, zero, w.dtype(u)), "add"));
    Value* const alone = w.op("And", {zero, w.op("Equal", {zeros, one})});
    Value* const without = gather(w.mul(dy, scatter(x, w.op("Where", {alone, one, u}), "mul")));
    return c.set(2, w.op("Where", {alone, without, w.div(gather(w.mul(dy, y)), w.op("Where", {zero, one, u}))}));
  }
  const auto reaches = [&](Value* v, Value* most) { return cast(w, w.op("Equal", {v, most}), w.dtype(v)); };
  Value *const in_data = reaches(x, y), *const in_updates = reaches(u, gather(y));
  Value* const share = w.div(dy, scatter(in_data, in_updates, "add"));
  if (c.wants(0)) c.set(0, w.mul(in_data, share));
  if (c.wants(2)) c.set(2, w.mul(in_updates, gather(share)));
}

// The places of the update's entries along the axis: no two alike.
void grad_tensor_scatter(GradContext& c) {
  GraphWriter& w = c.w;
  Value *const cache = c.x(0), *const update = c.x(1);
  const int rank = c.rank(cache), axis = c.axis(c.node.attr_int("axis", -2), rank);
  std::vector<int64_t> ones(static_cast<size_t>(rank), 1);
  ones[static_cast<size_t>(axis)] = -1;
  Value* at = w.op("Reshape", {count_up(w, extent(w, update, axis)), w.ints(ones)});
  if (c.has(2)) {
    ones[static_cast<size_t>(axis)] = 1;
    ones[0] = -1;
    at = w.add(at, w.op("Reshape", {cast(w, c.x(2), DType::kInt64), w.ints(ones)}));
    if (c.node.attr_string("mode", "linear") == "circular") at = w.op("Mod", {at, extent(w, cache, axis)});
  }
  at = w.expand_like(at, update);
  const AttributeList along{{"axis", int64_t{axis}}};
  if (c.wants(0)) c.set(0, w.op("ScatterElements", {c.dy(), at, zeros_like(w, update)}, along));
  if (c.wants(1)) c.set(1, w.op("GatherElements", {c.dy(), at}, along));
}

// Indices count in the tensor that the window's default extents give, of which output_shape may show more or less.
void grad_max_unpool(GradContext& c) {
  GraphWriter& w = c.w;
  Value *const x = c.x(0), *dy = c.dy();
  const int rank = c.rank(x);
  const Window window = window_of(c.node, rank - 2);
  if (c.has(2)) {
    std::vector<int64_t> stride(static_cast<size_t>(rank), 1), rest(static_cast<size_t>(rank), 0);
    for (int a = 0; a < window.rank; ++a) {
      stride[static_cast<size_t>(a) + 2] = window.stride[a];
      rest[static_cast<size_t>(a) + 2] = window.kernel[a] - window.begin[a] - window.end[a] - window.stride[a];
    }
    Value* inner = w.op("Max", {w.add(w.mul(w.shape_of(x), w.ints(stride)), w.ints(rest)), integer(w, 0)});
    Value* const none = w.ints(std::vector<int64_t>(static_cast<size_t>(rank), 0));
    dy = w.op("Pad", {dy, w.op("Concat", {none, w.sub(inner, w.shape_of(dy))}, {{"axis", int64_t{0}}})});
  }
  const auto flat = [&](Value* v) { return w.op("Reshape", {v, w.ints({-1})}); };
  Value *const at = flat(c.x(1)), *const from = flat(dy);
  const AttributeList first{{"axis", int64_t{0}}};
  const auto gather = [&](Value* v) { return w.op("GatherElements", {v, at}, first); };
  Value* const last = written_last(w, w.shape_of(at), w.shape_of(from),
                                   [&](Value* to, Value* ids) { return w.op("ScatterElements", {to, at, ids}, first); }, gather);
  c.set(0, w.reshape_like(only_where(w, last, gather(from)), x));
}

const GradRegistration grads({
    {"Scatter", "", grad_scatter}, {"ScatterElements", "", grad_scatter}, {"ScatterND", "", grad_scatter},
    {"TensorScatter", "", grad_tensor_scatter}, {"MaxUnpool", "", grad_max_unpool},
});

}  // namespace
}  // namespace tiercel

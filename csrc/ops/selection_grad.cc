// Gradients of Compress, OneHot, Unique and Range, and of DequantizeLinear's scale.
#include "ops/grad_tools.h"

namespace tiercel {
namespace {

using namespace grad_tools;

// Indices of what was chosen lead dy back, along an axis or in the flattened input.
void back_to(GradContext& c, Value* indices) {
  GraphWriter& w = c.w;
  Value* const x = c.x(0);
  if (c.node.has("axis")) return c.set(0, gather_back(w, c.dy(), indices, w.shape_of(x), c.axis(c.node.attr_int("axis", 0), c.rank(x))));
  c.set(0, w.reshape_like(gather_back(w, c.dy(), indices, w.op("Reshape", {w.op("Size", {x}), w.ints({1})}), 0), x));
}

void grad_compress(GradContext& c) {  // a condition that is too long ends with the input
  GraphWriter& w = c.w;
  Value* const x = c.x(0);
  Value* extent_there = c.node.has("axis") ? extent(w, x, c.axis(c.node.attr_int("axis", 0), c.rank(x))) : w.op("Size", {x});
  Value* const condition = w.op("Slice", {c.x(1), w.ints({0}), w.op("Reshape", {extent_there, w.ints({1})})});
  back_to(c, w.op("Reshape", {w.op("NonZero", {condition}), w.ints({-1})}));
}

// To the first of those that are alike.
void grad_unique(GradContext& c) {
  if (c.dy(0)) back_to(c, c.made_output(1));
}

void grad_one_hot(GradContext& c) {  // values: [off, on]
  if (!c.wants(2)) return;
  GraphWriter& w = c.w;
  const DType t = w.dtype(c.x(2));
  Value* const hot = w.op("OneHot", {c.x(0), c.x(1), w.op("Concat", {w.op("Reshape", {w.scalar(0, t), w.ints({1})}), w.op("Reshape", {w.scalar(1, t), w.ints({1})})}, {{"axis", int64_t{0}}})},
                          {{"axis", c.node.attr_int("axis", -1)}});
  Value* const on = w.mul(c.dy(), hot);
  const auto one = [&](Value* v) { return w.op("Reshape", {sum_all(w, v), w.ints({1})}); };
  c.set(2, w.op("Concat", {one(w.sub(c.dy(), on)), one(on)}, {{"axis", int64_t{0}}}));
}

void grad_range(GradContext& c) {  // start + i delta
  GraphWriter& w = c.w;
  if (c.wants(0)) c.set(0, w.reshape_like(sum_all(w, c.dy()), c.x(0)));
  if (c.wants(1)) c.set(1, zeros_like(w, c.x(1)));
  if (c.wants(2)) {
    Value* const i = cast(w, count_up(w, extent(w, c.y(), 0)), w.dtype(c.dy()));
    c.set(2, w.reshape_like(sum_all(w, w.mul(c.dy(), i)), c.x(2)));
  }
}

// y = (x - zero) scale: x and zero are whole numbers, the scale of a tensor, of a slice or of a block has the sum over what it scaled.
void grad_dequantize(GradContext& c) {
  if (!c.wants(1)) return c.check(!c.wants(0), "that of the quantised values is not there: only the scale's");
  c.check(!c.wants(0), "that of the quantised values is not there: only the scale's");
  GraphWriter& w = c.w;
  Value *const x = c.x(0), *const scale = c.x(1);
  const int64_t block = c.node.attr_int("block_size", 0);
  Value* const one = w.expand_like(w.scalar_like(1, scale), scale);
  AttributeList list{{"axis", c.node.attr_int("axis", 1)}, {"block_size", block}};
  if (c.node.has("output_dtype")) list.emplace_back("output_dtype", c.node.attr_int("output_dtype", 0));
  Value* const product = cast(w, w.mul(w.op("DequantizeLinear", {x, one, c.x(2)}, list), c.dy()), w.dtype(scale));
  const int scales = c.rank(scale);
  if (scales == 0 || (scales == 1 && w.shape(scale)[0] == 1 && !block)) return c.set(1, w.reshape_like(sum_all(w, product), scale));
  const int rank = c.rank(x), axis = c.axis(c.node.attr_int("axis", 1), rank);
  if (!block) {
    std::vector<int64_t> others;
    for (int64_t k = 0; k < rank; ++k) if (k != axis) others.push_back(k);
    return c.set(1, others.empty() ? product : w.op("ReduceSum", {product, w.ints(others)}, {{"keepdims", int64_t{0}}}));
  }
  Value* const which = w.op("Div", {count_up(w, extent(w, x, axis)), integer(w, block)});
  c.set(1, gather_back(w, product, which, w.shape_of(scale), axis));
}

const GradRegistration grads({
    {"Compress", "", grad_compress}, {"Unique", "", grad_unique}, {"OneHot", "", grad_one_hot}, {"Range", "", grad_range},
    {"DequantizeLinear", "", grad_dequantize},
});

}  // namespace
}  // namespace tiercel

// Sequences of tensors: SequenceConstruct, SequenceEmpty, SequenceAt, SequenceInsert, SequenceErase, SequenceLength,
// SplitToSequence, ConcatFromSequence, SequenceMap. For gradients, which would be quadratic in the length without them (ai.tiercel):
//   SequenceZeros (s)                   zeros in the shapes of the items, all in one memory
//   SequenceAddAt (s, position, item)   s, with the item added to one of its own
#include <algorithm>
#include <cstring>

#include "base/float_formats.h"
#include "ops/bodies.h"
#include "ops/grad.h"

namespace tiercel {
namespace {

Type sequence_of(DType t) {
  Type y = Type::tensor(t);
  y.kind = Kind::kSequence;
  return y;
}

void check_sequence(const InferContext& ctx, int i) {
  ctx.check(ctx.type(i).kind == Kind::kSequence || ctx.type(i).dtype == DType::kUndefined, "input ", i, " should be a sequence");
}

const Sequence& sequence(const EvalContext& ctx, int i) {
  ctx.check(ctx.has_input(i) && ctx.value(i).is_sequence(), "input ", i, " should be a sequence");
  return *ctx.value(i).sequence();
}

RuntimeValue value_of(Sequence s) { return RuntimeValue(std::shared_ptr<const Sequence>(std::make_shared<Sequence>(std::move(s)))); }

// A position in [-n, last], counted from the front.
size_t position(const EvalContext& ctx, int i, int64_t n, int64_t last) {
  const int64_t given = read_int(ctx, ctx.value(i), "the position"), p = given < 0 ? given + n : given;
  ctx.check(p >= 0 && p <= last, "position ", given, " is outside the sequence of ", n);
  return static_cast<size_t>(p);
}

// ---- Making, reading, changing

void infer_construct(InferContext& ctx) {
  ctx.check(ctx.num_inputs() > 0, "at least one input is required");
  for (int i = 1; i < ctx.num_inputs(); ++i) ctx.check(ctx.dtype(i) == ctx.dtype(0), "all inputs should have one element type");
  ctx.set_output(0, sequence_of(ctx.dtype(0)));
}

void eval_construct(EvalContext& ctx, Worker&) {
  Sequence s;
  for (int i = 0; i < ctx.num_inputs(); ++i) s.items.push_back(ctx.tensor(i));
  s.dtype = s.items[0].dtype();
  ctx.set(0, value_of(std::move(s)));
}

DType empty_dtype(const Node& node) {
  const int64_t t = node.attr_int("dtype", 1);
  if (t <= 0 || t >= kNumDTypes) fail(Code::kInvalidGraph, node.label(), ": dtype ", t, " is not an element type");
  return static_cast<DType>(t);
}

void infer_empty(InferContext& ctx) { ctx.set_output(0, sequence_of(empty_dtype(ctx.node))); }
void eval_empty(EvalContext& ctx, Worker&) { ctx.set(0, value_of({empty_dtype(ctx.node), {}})); }

void infer_at(InferContext& ctx) {
  check_sequence(ctx, 0);
  ctx.input(1);
  ctx.set_output(0, Type::tensor(ctx.dtype(0)));
}

void eval_at(EvalContext& ctx, Worker&) {
  const auto& items = sequence(ctx, 0).items;
  const auto n = static_cast<int64_t>(items.size());
  ctx.set(0, items[position(ctx, 1, n, n - 1)]);
}

void infer_insert(InferContext& ctx) {
  check_sequence(ctx, 0);
  ctx.input(1);
  ctx.set_output(0, sequence_of(ctx.dtype(0) == DType::kUndefined ? ctx.dtype(1) : ctx.dtype(0)));
}

void eval_insert(EvalContext& ctx, Worker&) {
  Sequence s = sequence(ctx, 0);
  const Tensor& t = ctx.tensor(1);
  ctx.check(s.items.empty() || s.dtype == t.dtype(), "a tensor(", dtype_name(t.dtype()), ") does not fit a sequence of ", dtype_name(s.dtype));
  const auto n = static_cast<int64_t>(s.items.size());
  const size_t at = ctx.has_input(2) ? position(ctx, 2, n, n) : s.items.size();
  s.items.insert(s.items.begin() + static_cast<std::ptrdiff_t>(at), t);
  s.dtype = t.dtype();
  ctx.set(0, value_of(std::move(s)));
}

void infer_erase(InferContext& ctx) {
  check_sequence(ctx, 0);
  ctx.set_output(0, sequence_of(ctx.dtype(0)));
}

void eval_erase(EvalContext& ctx, Worker&) {
  Sequence s = sequence(ctx, 0);
  const auto n = static_cast<int64_t>(s.items.size());
  ctx.check(n > 0, "the sequence is empty");
  const size_t at = ctx.has_input(1) ? position(ctx, 1, n, n - 1) : s.items.size() - 1;
  s.items.erase(s.items.begin() + static_cast<std::ptrdiff_t>(at));
  ctx.set(0, value_of(std::move(s)));
}

void eval_zeros(EvalContext& ctx, Worker&) {
  const Sequence& from = sequence(ctx, 0);
  int64_t bytes = 1;
  for (const Tensor& t : from.items) bytes = std::max(bytes, t.bytes());
  const Buffer block = allocate(static_cast<size_t>(bytes));
  std::memset(block.get(), 0, static_cast<size_t>(bytes));
  Sequence s{from.dtype, {}};
  for (const Tensor& t : from.items) s.items.emplace_back(t.dtype(), t.shape(), block.get(), block);
  ctx.set(0, value_of(std::move(s)));
}

void infer_add_at(InferContext& ctx) {
  check_sequence(ctx, 0);
  ctx.input(1);
  ctx.input(2);
  const DType items = ctx.dtype(0), more = ctx.dtype(2);
  ctx.check(items == DType::kUndefined || is_float(items), "the items should be floats");
  ctx.check(items == more || items == DType::kUndefined || more == DType::kUndefined, "a tensor(", dtype_name(more), ") does not fit a sequence of ", dtype_name(items));
  ctx.set_output(0, sequence_of(items == DType::kUndefined ? more : items));
}

template <class T> Tensor sum_of(const Tensor& a, const Tensor& b) {
  Tensor y(a.dtype(), a.shape());
  std::transform(a.as<T>(), a.as<T>() + a.count(), b.as<T>(), y.as<T>(), [](T u, T v) {
    if constexpr (std::is_same_v<T, Half>) return to_half(to_float(u) + to_float(v));
    else if constexpr (std::is_same_v<T, BFloat16>) return to_bfloat16(to_float(u) + to_float(v));
    else return u + v;
  });
  return y;
}

void eval_add_at(EvalContext& ctx, Worker&) {
  Sequence s = sequence(ctx, 0);
  const auto n = static_cast<int64_t>(s.items.size());
  ctx.check(n > 0, "the sequence is empty");
  Tensor& item = s.items[position(ctx, 1, n, n - 1)];
  const Tensor& more = ctx.tensor(2);
  ctx.check(item.shape() == more.shape() && item.dtype() == more.dtype(), "a ", Type::tensor(more.dtype(), more.shape()).str(), " does not fit the item, a ",
            Type::tensor(item.dtype(), item.shape()).str());
  switch (item.dtype()) {
    case DType::kFloat: item = sum_of<float>(item, more); break;
    case DType::kDouble: item = sum_of<double>(item, more); break;
    case DType::kFloat16: item = sum_of<Half>(item, more); break;
    case DType::kBFloat16: item = sum_of<BFloat16>(item, more); break;
    default: ctx.check(false, "the items should be floats of 16 bits or more");
  }
  ctx.set(0, value_of(std::move(s)));
}

void infer_length(InferContext& ctx) {
  check_sequence(ctx, 0);
  ctx.set_output(0, DType::kInt64, {});
}

void eval_length(EvalContext& ctx, Worker&) {
  ctx.set(0, Tensor::of<int64_t>({}, {static_cast<int64_t>(sequence(ctx, 0).items.size())}));
}

// ---- To and from one tensor

void infer_split(InferContext& ctx) {
  ctx.input(0);
  if (ctx.ranked(0)) ctx.axis(ctx.node.attr_int("axis", 0), ctx.shape(0).rank());
  ctx.set_output(0, sequence_of(ctx.dtype(0)));
}

void eval_split(EvalContext& ctx, Worker&) {
  const Tensor& t = ctx.tensor(0);
  const int axis = normalize_axis(ctx.node.attr_int("axis", 0), t.shape().rank());
  ctx.check(axis >= 0, "axis ", ctx.node.attr_int("axis", 0), " is outside the rank ", t.shape().rank());
  ctx.check(bits_of(t.dtype()) >= 8, "elements below a byte are not supported");
  const int64_t n = t.shape()[axis];
  Sequence s{t.dtype(), {}};
  if (!ctx.has_input(1)) {
    const bool keep = ctx.node.attr_int("keepdims", 1) != 0;
    for (int64_t i = 0; i < n; ++i) s.items.push_back(keep ? part(t, axis, i, i + 1) : select(t, axis, i));
    return ctx.set(0, value_of(std::move(s)));
  }
  std::vector<int64_t> sizes = ctx.ints(1);
  if (ctx.tensor(1).shape().rank() == 0) {
    const int64_t size = sizes[0];
    ctx.check(size > 0, "split size ", size, " should be above 0");
    sizes.clear();
    for (int64_t at = 0; at < n; at += size) sizes.push_back(std::min(size, n - at));
  }
  int64_t at = 0;
  for (int64_t size : sizes) {
    ctx.check(size >= 0 && size <= n - at, "the split sizes leave the extent ", n, " of axis ", axis);
    s.items.push_back(part(t, axis, at, at + size));
    at += size;
  }
  ctx.check(at == n, "the split sizes add up to ", at, ", not to the extent ", n, " of axis ", axis);
  ctx.set(0, value_of(std::move(s)));
}

void infer_concat(InferContext& ctx) {
  check_sequence(ctx, 0);
  ctx.check(ctx.node.has("axis"), "attribute 'axis' is required");
  ctx.set_output(0, Type::tensor(ctx.dtype(0)));
}

void eval_concat(EvalContext& ctx, Worker&) {
  const Sequence& s = sequence(ctx, 0);
  ctx.check(!s.items.empty(), "an empty sequence cannot be concatenated");
  const bool stack = ctx.node.attr_int("new_axis", 0) != 0;
  const Tensor& first = s.items[0];
  ctx.check(bits_of(first.dtype()) >= 8, "elements below a byte are not supported");
  const int64_t given = ctx.node.attr_int("axis", 0);
  const int axis = normalize_axis(given, first.shape().rank() + stack);
  ctx.check(axis >= 0, "axis ", given, " is outside the rank ", first.shape().rank() + stack);
  Shape shape = first.shape();
  if (stack) shape.insert(axis, 0);
  else shape[axis] = 0;
  for (const Tensor& t : s.items) {
    Shape item = t.shape();
    if (stack) item.insert(axis, 1);
    bool same = item.rank() == shape.rank() && t.dtype() == first.dtype();
    for (int k = 0; same && k < shape.rank(); ++k) same = k == axis || item[k] == shape[k];
    ctx.check(same, "items of shapes ", first.shape(), " and ", t.shape(), " do not concatenate along axis ", axis);
    shape[axis] += item[axis];
  }
  Tensor out(first.dtype(), shape);
  const AxisSplit split(shape, axis);
  const Element e(first.dtype());
  Worker w = alone();
  int64_t at = 0;
  for (const Tensor& t : s.items) {
    const int64_t run = (stack ? 1 : t.shape()[axis]) * split.inner;
    StridedCopy(e, {{split.outer, run, split.extent * split.inner}, {run, 1, 1}}).run(t.data(), offset(out.data(), at, e), w);
    at += run;
  }
  ctx.set(0, out);
}

// ---- SequenceMap: a body for each item; other sequences walk along, tensors are given to every step

void infer_map(InferContext& ctx) {
  check_sequence(ctx, 0);
  Graph& body = body_of(ctx.node, "body", ctx.node.num_own_inputs(), ctx.num_outputs());
  std::vector<ValueInfo> own;
  for (int i = 0; i < ctx.node.num_own_inputs(); ++i) {
    own.emplace_back();
    own.back().type = ctx.type(i).kind == Kind::kSequence ? Type::tensor(ctx.dtype(i)) : ctx.type(i);
  }
  const auto out = infer_body(ctx, body, own);
  for (int i = 0; i < ctx.num_outputs(); ++i) ctx.set_output(i, sequence_of(out[static_cast<size_t>(i)].type.dtype));
}

void eval_map(EvalContext& ctx, Worker& w) {
  const Graph& body = *ctx.node.attr_graph("body");
  const int own = ctx.node.num_own_inputs();
  const bool lead = w.index() == 0;
  const auto n = w.agree([&] { return static_cast<int64_t>(sequence(ctx, 0).items.size()); });
  std::vector<Sequence> results(static_cast<size_t>(ctx.num_outputs()));
  for (int64_t i = 0; i < n; ++i) {
    std::vector<RuntimeValue> in;
    if (lead) {
      for (int k = 0; k < own; ++k) {
        if (!ctx.value(k).is_sequence()) { in.push_back(ctx.value(k)); continue; }
        const auto& items = sequence(ctx, k).items;
        ctx.check(static_cast<int64_t>(items.size()) == n, "input ", k, " has ", items.size(), " items, the first has ", n);
        in.push_back(items[static_cast<size_t>(i)]);
      }
      in = with_captures(ctx, body, std::move(in));
    }
    const auto out = ctx.bodies().run(body, std::move(in), w);
    if (!lead) continue;
    for (size_t k = 0; k < results.size(); ++k) {
      ctx.check(out[k].is_tensor(), "the body should give tensors");
      results[k].items.push_back(out[k].tensor());
    }
  }
  if (!lead) return;
  for (size_t k = 0; k < results.size(); ++k) {
    results[k].dtype = results[k].items.empty() ? body.outputs()[k]->type.dtype : results[k].items[0].dtype();
    ctx.set(static_cast<int>(k), value_of(std::move(results[k])));
  }
}

const OpRegistration rows({
    {"SequenceConstruct", "", 11, infer_construct, nullptr, eval_construct},
    {"SequenceEmpty", "", 11, infer_empty, nullptr, eval_empty},
    {"SequenceAt", "", 11, infer_at, nullptr, eval_at},
    {"SequenceInsert", "", 11, infer_insert, nullptr, eval_insert},
    {"SequenceErase", "", 11, infer_erase, nullptr, eval_erase},
    {"SequenceLength", "", 11, infer_length, nullptr, eval_length},
    {"SplitToSequence", "", 11, infer_split, nullptr, eval_split},
    {"ConcatFromSequence", "", 11, infer_concat, nullptr, eval_concat},
    {"SequenceMap", "", 17, infer_map, nullptr, eval_map, kCollective},
    {"SequenceZeros", kTiercelDomain, 1, infer_erase, nullptr, eval_zeros},
    {"SequenceAddAt", kTiercelDomain, 1, infer_add_at, nullptr, eval_add_at},
});

// ---- Gradients: that of a sequence is the sequence of its items' gradients

// The position in input `i`, counted from the front of a sequence of `length`.
Value* front_position(GradContext& c, int i, Value* length) {
  Value *p = c.w.op("Cast", {c.x(i)}, {{"to", static_cast<int64_t>(DType::kInt64)}}), *zero = c.w.constant(Tensor::of<int64_t>({}, {0}));
  return c.w.op("Where", {c.w.op("Less", {p, zero}), c.w.add(p, length), p});
}
Value* length_of(GradContext& c, Value* v) { return c.w.op("SequenceLength", {v}); }
Value* number(GradContext& c, int64_t i) { return c.w.constant(Tensor::of<int64_t>({}, {i})); }

void grad_construct(GradContext& c) {
  for (int i = 0; i < static_cast<int>(c.node.inputs.size()); ++i) {
    if (!c.wants(i)) continue;
    Value* item = c.w.op("SequenceAt", {c.dy(), number(c, i)});
    c.w.declare(item, c.w.type(c.x(i)));
    c.set(i, item);
  }
}

void grad_at(GradContext& c) { c.set(0, c.w.op("SequenceAddAt", {c.w.zeros_like(c.x(0)), c.x(1), c.dy()}, {}, kTiercelDomain)); }

void grad_add_at(GradContext& c) {
  c.set(0, c.dy());
  if (!c.wants(2)) return;
  Value* const item = c.w.op("SequenceAt", {c.dy(), c.x(1)});
  c.w.declare(item, c.w.type(c.x(2)));
  c.set(2, item);
}

void grad_insert(GradContext& c) {  // the length is dy's: so the sequence itself need not be kept
  Value* const p = c.has(2) ? front_position(c, 2, c.w.sub(length_of(c, c.dy()), number(c, 1))) : number(c, -1);
  if (c.wants(0)) c.set(0, c.w.op("SequenceErase", {c.dy(), p}));
  if (!c.wants(1)) return;
  Value* item = c.w.op("SequenceAt", {c.dy(), p});
  c.w.declare(item, c.w.type(c.x(1)));
  c.set(1, item);
}

void grad_erase(GradContext& c) {
  Value* const p = c.has(1) ? front_position(c, 1, length_of(c, c.x(0))) : c.w.sub(length_of(c, c.x(0)), number(c, 1));
  c.set(0, c.w.op("SequenceInsert", {c.dy(), c.w.zeros_like(c.w.op("SequenceAt", {c.x(0), p})), p}));
}

void grad_split(GradContext& c) {
  const bool stack = !c.has(1) && c.node.attr_int("keepdims", 1) == 0;
  Value* dx = c.w.op("ConcatFromSequence", {c.dy()}, {{"axis", c.node.attr_int("axis", 0)}, {"new_axis", int64_t{stack}}});
  c.w.declare(dx, c.w.type(c.x(0)));
  c.set(0, dx);
}

void grad_concat(GradContext& c) {
  const int64_t axis = c.node.attr_int("axis", 0);
  if (c.node.attr_int("new_axis", 0)) return c.set(0, c.w.op("SplitToSequence", {c.dy()}, {{"axis", axis}, {"keepdims", int64_t{0}}}));
  Value* shapes = c.w.map({c.x(0)}, [](GraphWriter& w, std::span<Value* const> items) { return w.shape_of(items[0]); });
  shapes = c.w.op("ConcatFromSequence", {shapes}, {{"axis", int64_t{0}}, {"new_axis", int64_t{1}}});
  Value* sizes = c.w.op("Gather", {shapes, number(c, axis)}, {{"axis", int64_t{1}}});
  c.w.declare(sizes, Type::tensor(DType::kInt64, Shape{c.w.graph().symbols().fresh()}));
  c.set(0, c.w.op("SplitToSequence", {c.dy(), sizes}, {{"axis", axis}}));
}

const GradRegistration grads({
    {"SequenceConstruct", "", grad_construct}, {"SequenceAt", "", grad_at}, {"SequenceInsert", "", grad_insert}, {"SequenceErase", "", grad_erase},
    {"SplitToSequence", "", grad_split}, {"ConcatFromSequence", "", grad_concat}, {"SequenceLength", "", nullptr}, {"SequenceEmpty", "", nullptr},
    {"SequenceAddAt", kTiercelDomain, grad_add_at}, {"SequenceZeros", kTiercelDomain, nullptr},
});

}  // namespace
}  // namespace tiercel

#include "ops/bodies.h"

namespace tiercel {

Graph& body_of(const Node& node, const char* key, int inputs, int outputs) {
  Graph* g = node.attr_graph(key);
  if (!g) fail(Code::kInvalidGraph, node.label(), ": attribute '", key, "' (a graph) is required");
  const int own = static_cast<int>(g->inputs().size()) - g->captured, out = static_cast<int>(g->outputs().size());
  if (inputs >= 0 && own != inputs)
    fail(Code::kInvalidGraph, node.label(), ": the body '", key, "' should have ", inputs, " inputs, not ", own);
  if (outputs >= 0 && out < outputs)
    fail(Code::kInvalidGraph, node.label(), ": the body '", key, "' should have ", outputs, " outputs, not ", out);
  return *g;
}

std::vector<RuntimeValue> with_captures(const EvalContext& ctx, const Graph& body, std::vector<RuntimeValue> own) {
  const int at = ctx.node.captures_begin(&body);
  for (int i = 0; i < body.captured; ++i) own.push_back(ctx.value(at + i));
  return own;
}

std::vector<ValueInfo> infer_body(const InferContext& ctx, Graph& body, std::vector<ValueInfo> own) {
  std::vector<ValueInfo> result;
  // Bodies out of functions declare no types: at load, the first time, they learn them.
  for (size_t i = 0; i < own.size() && i < body.inputs().size(); ++i) {
    Type& declared = body.inputs()[i]->type;
    if (declared.dtype != DType::kUndefined || own[i].type.dtype == DType::kUndefined) continue;
    declared.kind = own[i].type.kind;
    declared.dtype = own[i].type.dtype;
  }
  if (ctx.symbols().extends(body.symbols())) {  // else extents of the two mean different things
    std::vector<const ValueInfo*> in;
    for (const ValueInfo& i : own) in.push_back(&i);
    const int at = ctx.node.captures_begin(&body);
    for (int i = 0; i < body.captured; ++i) in.push_back(ctx.has_input(at + i) ? &ctx.input(at + i) : nullptr);
    try {
      const std::vector<ValueInfo> infos = infer_graph(body, in, false, true, &ctx.symbols());
      for (const Value* v : body.outputs()) {
        result.push_back(infos[static_cast<size_t>(v->id)]);
        if (!v->is_constant()) result.back().constant = nullptr;  // it may belong to a node of the body
      }
      return result;
    } catch (const Error&) {
      result.clear();
    }
  }
  for (const Value* v : body.outputs()) {
    result.emplace_back();
    result.back().type.kind = v->type.kind;
    result.back().type.dtype = v->type.dtype;
  }
  return result;
}

Type either(const InferContext& ctx, const Type& a, const Type& b, std::vector<Dim>* undecided) {
  Type r = a;
  if (r.dtype == DType::kUndefined) r.dtype = b.dtype;
  if (!a.is_tensor() || !b.is_tensor() || !a.ranked || !b.ranked || a.shape.rank() != b.shape.rank() || a.layout != b.layout) {
    r.ranked = false;
    r.shape = Shape();
    return r;
  }
  for (int i = 0; i < r.shape.rank(); ++i) {
    Dim& d = r.shape[i];
    if (d == b.shape[i]) continue;
    if (undecided && std::find(undecided->begin(), undecided->end(), d) != undecided->end()) continue;
    d = ctx.fresh();
    if (undecided) undecided->push_back(d);
  }
  return r;
}

// ---- Stack

void Stack::reserve(int64_t items) {
  if (items <= capacity_) return;
  capacity_ = std::max(items, capacity_ * 2);
  Shape shape = item_;
  shape.insert(0, capacity_);
  Tensor larger(buffer_.dtype(), shape);
  copy_elements(Element(buffer_.dtype()), larger.data(), buffer_.data(), count_ * item_.count());
  buffer_ = std::move(larger);
}

void Stack::add(const EvalContext& ctx, const Tensor& item) {
  const bool strided = axis_ != 0 || reverse_;
  if (count_ == 0) {
    item_ = item.shape();
    ctx.check(axis_ <= item_.rank(), "scan outputs of rank ", item_.rank(), " cannot be stacked along axis ", axis_);
    Shape shape = item_;
    shape.insert(axis_, std::max<int64_t>(total_, 1));
    buffer_ = Tensor(item.dtype(), shape);
    capacity_ = std::max<int64_t>(total_, 1);
  }
  ctx.check(item.shape() == item_ && item.dtype() == buffer_.dtype(), "a scan output has shape ", item.shape(), " and before had ",
            item_, ": all steps should give one shape");
  if (!strided) reserve(count_ + 1);
  const Element e(item.dtype());
  const int64_t at = reverse_ ? total_ - 1 - count_ : count_;
  const int64_t outer = item_.count(0, axis_), inner = item_.count(axis_, item_.rank());
  Worker w = alone();
  StridedCopy(e, {{outer, inner, capacity_ * inner}, {inner, 1, 1}}).run(item.data(), offset(buffer_.data(), at * inner, e), w);
  ++count_;
}

Tensor Stack::take(const Type& empty) {
  if (count_ == 0) {
    Shape shape;
    if (empty.ranked) for (Dim d : empty.shape) shape.push_back(std::max<Dim>(d, 0));
    shape.insert(std::min(axis_, shape.rank()), 0);
    return Tensor(empty.dtype == DType::kUndefined ? DType::kFloat : empty.dtype, shape);
  }
  Shape shape = item_;
  shape.insert(axis_, count_);
  return count_ == capacity_ ? buffer_ : buffer_.reshaped(shape);
}

// ---- Pieces

Tensor select(const Tensor& t, int axis, int64_t i) {
  const AxisSplit s(t.shape(), axis);
  Shape shape = t.shape();
  shape.erase(axis);
  const Element e(t.dtype());
  if (s.outer == 1 && bits_of(t.dtype()) >= 8) return Tensor(t.dtype(), shape, offset(t.data(), i * s.inner, e), t.owner());
  return part(t, axis, i, i + 1).reshaped(shape);
}

Tensor part(const Tensor& t, int axis, int64_t begin, int64_t end) {
  const AxisSplit s(t.shape(), axis);
  Shape shape = t.shape();
  shape[axis] = end - begin;
  Tensor r(t.dtype(), shape);
  const Element e(t.dtype());
  const int64_t run = (end - begin) * s.inner;
  Worker w = alone();
  StridedCopy(e, {{s.outer, s.extent * s.inner, run}, {run, 1, 1}}).run(offset(t.data(), begin * s.inner, e), r.data(), w);
  return r;
}

bool read_bool(const EvalContext& ctx, const RuntimeValue& v, const char* what) {
  ctx.check(v.is_tensor() && v.tensor().dtype() == DType::kBool && v.tensor().count() == 1, what, " should be one bool");
  return *v.tensor().as<uint8_t>() != 0;
}

int64_t read_int(const EvalContext& ctx, const RuntimeValue& v, const char* what) {
  ctx.check(v.is_tensor() && is_integer(v.tensor().dtype()) && v.tensor().count() == 1, what, " should be one integer");
  return v.tensor().ints()[0];
}

}  // namespace tiercel

// Compress: the slices along an axis (or the elements of the flattened input) whose condition is true.
#include "ops/movement.h"

namespace tiercel {
namespace {

std::vector<int64_t> chosen(const Tensor& condition, int64_t extent) {
  std::vector<int64_t> at;
  const auto* c = condition.as<uint8_t>();
  for (int64_t i = 0; i < std::min(extent, condition.count()); ++i) if (c[i]) at.push_back(i);
  return at;
}

void infer(InferContext& ctx) {
  ctx.input(0);
  ctx.check(ctx.dtype(1) == DType::kBool, "the condition should be bool");
  ctx.check(!ctx.ranked(1) || ctx.shape(1).rank() == 1, "the condition should be a 1-D tensor");
  const bool flat = !ctx.node.has("axis");
  if (!ctx.ranked(0)) return ctx.set_output(0, flat ? Type::tensor(ctx.dtype(0), {ctx.fresh()}) : Type::tensor(ctx.dtype(0)));
  const Shape& s = ctx.shape(0);
  const int axis = flat ? 0 : ctx.axis(ctx.node.attr_int("axis", 0), s.rank());
  const Dim extent = !flat ? s[axis] : s.known() ? s.count() : ctx.fresh();
  Shape r = flat ? Shape{extent} : s;
  r[axis] = ctx.constant(1) && extent >= 0 ? static_cast<Dim>(chosen(*ctx.constant(1), extent).size()) : ctx.fresh();
  ctx.set_output(0, ctx.dtype(0), r);
}

void eval(EvalContext& ctx, Worker&) {
  const Tensor flat_input = ctx.tensor(0), &condition = ctx.tensor(1);
  ctx.check(condition.dtype() == DType::kBool && condition.shape().rank() == 1, "the condition should be a 1-D bool tensor");
  ctx.check(bits_of(flat_input.dtype()) >= 8, "elements below a byte are not supported");
  const bool flat = !ctx.node.has("axis");
  const Tensor t = flat ? flat_input.reshaped({flat_input.count()}) : flat_input;
  const int axis = flat ? 0 : normalize_axis(ctx.node.attr_int("axis", 0), t.shape().rank());
  ctx.check(axis >= 0, "axis ", ctx.node.attr_int("axis", 0), " is outside the rank ", t.shape().rank());
  const AxisSplit s(t.shape(), axis);
  const auto at = chosen(condition, s.extent);
  Shape shape = t.shape();
  shape[axis] = static_cast<Dim>(at.size());
  Tensor out(t.dtype(), shape);
  const Element e(t.dtype());
  char* to = static_cast<char*>(out.data());
  for (int64_t o = 0; o < s.outer; ++o)
    for (int64_t i : at) {
      copy_elements(e, to, offset(t.data(), (o * s.extent + i) * s.inner, e), s.inner);
      to = offset(to, s.inner, e);
    }
  ctx.set(0, out);
}

const OpRegistration rows({{"Compress", "", 9, infer, nullptr, eval}});

}  // namespace
}  // namespace tiercel

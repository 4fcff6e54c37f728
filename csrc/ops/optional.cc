// Optional, OptionalHasElement, OptionalGetElement. At run time an optional is its element, or nothing.
#include "ops/grad.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

void infer_optional(InferContext& ctx) {
  Type t;
  if (ctx.has_input(0)) t = ctx.type(0);
  else {
    const Attribute* a = ctx.node.attribute("type");
    const Type* given = a ? std::get_if<Type>(a) : nullptr;
    ctx.check(given, "an optional without an element needs the attribute 'type'");
    t = *given;
  }
  t.kind = t.kind == Kind::kSequence || t.kind == Kind::kOptionalSequence ? Kind::kOptionalSequence : Kind::kOptional;
  ctx.set_output(0, std::move(t));
}

void eval_pass(EvalContext& ctx, Worker&) { if (ctx.has_input(0)) ctx.set(0, ctx.value(0)); }

void infer_has(InferContext& ctx) {
  ctx.set_output(0, DType::kBool, {});
  if (!ctx.has_input(0)) ctx.set_ints(0, {0});
}

void eval_has(EvalContext& ctx, Worker&) { ctx.set(0, Tensor::of<bool>({}, {ctx.has_input(0)})); }

void infer_get(InferContext& ctx) {
  Type t = ctx.type(0);
  t.kind = t.kind == Kind::kSequence || t.kind == Kind::kOptionalSequence ? Kind::kSequence : Kind::kTensor;
  ctx.set_output(0, std::move(t));
}

void eval_get(EvalContext& ctx, Worker&) {
  ctx.check(ctx.has_input(0), "the optional has no element");
  ctx.set(0, ctx.value(0));
}

const OpRegistration rows({
    {"Optional", "", 15, infer_optional, nullptr, eval_pass},
    {"OptionalHasElement", "", 15, infer_has, nullptr, eval_has},
    {"OptionalGetElement", "", 15, infer_get, nullptr, eval_get},
});

// The gradient of an optional is that of its element.
void grad(GradContext& c) { c.set(0, c.dy()); }

const GradRegistration grads({{"Optional", "", grad}, {"OptionalGetElement", "", grad}, {"OptionalHasElement", "", nullptr}});

}  // namespace
}  // namespace tiercel

// And, Or, Xor of bools; BitwiseAnd, BitwiseOr, BitwiseXor and BitShift of integers.
#include "ops/combine.h"
#include "ops/grad.h"

namespace tiercel {
namespace {

template <Binary B> Dim combine_bits(InferContext& ctx, Dim a, Dim b) {
  if (!is_symbol(a) && !is_symbol(b)) return B == Binary::kAnd ? (a & b) : B == Binary::kOr ? (a | b) : (a ^ b);
  if (B == Binary::kAnd && (a == 0 || b == 0)) return 0;
  if (B != Binary::kAnd && a == 0) return b;
  if (B != Binary::kAnd && b == 0) return a;
  if (B != Binary::kXor && a == b) return a;
  return ctx.fresh();
}

template <Binary B> void infer_logical(InferContext& ctx) {
  check_dtype(ctx, 0, ctx.dtype(0) == DType::kBool, "tensor(bool)");
  infer_broadcast(ctx, DType::kBool);
  carry_ints(ctx, [&](const auto& v) {
    if (B == Binary::kOr && (v[0] == 1 || v[1] == 1)) return Dim{1};
    return combine_bits<B>(ctx, v[0], v[1]);
  });
}

template <Binary B> void infer_bitwise(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  check_dtype(ctx, 0, is_integer(t) && is_arithmetic(t), "an integer tensor");
  infer_broadcast(ctx, t);
  carry_ints(ctx, [&](const auto& v) { return combine_bits<B>(ctx, v[0], v[1]); });
}

void infer_shift(InferContext& ctx) {
  const std::string d = ctx.node.attr_string("direction", "");
  ctx.check(d == "LEFT" || d == "RIGHT", "direction should be \"LEFT\" or \"RIGHT\", got \"", d, "\"");
  const DType t = ctx.dtype(0);
  check_dtype(ctx, 0, is_integer(t) && is_arithmetic(t), "an integer tensor");
  infer_broadcast(ctx, t);
}

void prepare(PrepareContext& ctx, Binary f) {
  Combination c;
  c.first = c.second = c.result = ctx.dtype(0);
  c.vectors = binary_fn(f, c.first);
  combine_elements(ctx, c);
}
template <Binary B> void prepare_bits(PrepareContext& ctx) { prepare(ctx, B); }
void prepare_shift(PrepareContext& ctx) {
  prepare(ctx, ctx.node.attr_string("direction", "") == "LEFT" ? Binary::kShl : Binary::kShr);
}

static const OpRegistration rows({
    {"And", "", 1, infer_logical<Binary::kAnd>, prepare_bits<Binary::kAnd>},
    {"Or", "", 1, infer_logical<Binary::kOr>, prepare_bits<Binary::kOr>},
    {"Xor", "", 1, infer_logical<Binary::kXor>, prepare_bits<Binary::kXor>},
    {"BitwiseAnd", "", 18, infer_bitwise<Binary::kAnd>, prepare_bits<Binary::kAnd>},
    {"BitwiseOr", "", 18, infer_bitwise<Binary::kOr>, prepare_bits<Binary::kOr>},
    {"BitwiseXor", "", 18, infer_bitwise<Binary::kXor>, prepare_bits<Binary::kXor>},
    {"BitShift", "", 11, infer_shift, prepare_shift},
});

static const GradRegistration grads({{"And", "", nullptr}, {"Or", "", nullptr}, {"Xor", "", nullptr}});

}  // namespace
}  // namespace tiercel

// Identity, Reshape, Flatten, Squeeze, Unsqueeze: the same memory, perhaps under another shape. ai.tiercel.SqueezeOnes takes attribute `axis` away
// where its extent is 1, and leaves it otherwise.
#include <algorithm>

#include "ops/grad.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

void alias(PrepareContext& ctx) { ctx.alias(0, 0); }

// Sets the output's shape; elements of tiny integer tensors stay known.
void set_reshaped(InferContext& ctx, const Shape& shape) {
  ctx.set_output(0, ctx.dtype(0), shape);
  if (shape.rank() <= 1)
    if (auto v = small_ints(ctx, 0)) ctx.set_ints(0, std::move(*v));
}

// ---- Identity: of tensors, sequences and optionals

void infer_identity(InferContext& ctx) {
  const ValueInfo& in = ctx.input(0);
  ctx.set_output(0, in.type);
  if (!ctx.has_output(0)) return;
  ctx.output(0).ints = in.ints;
  ctx.output(0).constant = in.constant;
}

void eval_identity(EvalContext& ctx, Worker&) { if (ctx.has_input(0)) ctx.set(0, ctx.value(0)); }

// ---- Reshape

// The extent for -1: the input's extents over the target's other ones. Equal extents, known or symbols, cancel first, so that
// [b, s, 768] -> [b, s, 12, -1] gives 64 for any b and s, zero included.
Dim remaining(const InferContext& ctx, const Shape& from, const Shape& to, int at) {
  std::vector<Dim> over(from.begin(), from.end()), under;
  for (int i = 0; i < to.rank(); ++i) {
    if (i == at) continue;
    const auto same = std::find(over.begin(), over.end(), to[i]);
    if (same != over.end()) over.erase(same);
    else under.push_back(to[i]);
  }
  if (std::any_of(under.begin(), under.end(), is_symbol)) return ctx.fresh();
  int64_t n = 1, d = 1;
  Dim symbol = 0;
  int symbols = 0;
  bool fits = true;
  for (Dim x : over) {
    if (is_symbol(x)) { symbol = x; ++symbols; }
    else fits = fits && !__builtin_mul_overflow(n, x, &n);
  }
  for (Dim x : under) fits = fits && !__builtin_mul_overflow(d, x, &d);
  ctx.check(fits, "the shape ", to, " is too large");
  if (symbols) return symbols == 1 && n == d && n ? symbol : ctx.fresh();
  ctx.check(d != 0 && n % d == 0, "cannot reshape ", from, " to ", to, ": ", n, " is not a multiple of ", d);
  return n / d;
}

void infer_reshape(InferContext& ctx) {
  ctx.input(0);
  std::optional<std::vector<Dim>> target;
  if (ctx.node.opset < 5) target = ctx.node.attr_ints("shape");
  else {
    ctx.input(1);
    ctx.check(!ctx.ranked(1) || ctx.shape(1).rank() == 1, "the target shape should be a 1-D tensor");
    target = small_ints(ctx, 1);
  }
  if (!target) {
    const auto rank = length_of(ctx, 1);
    if (!rank) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
    ctx.check(*rank <= kMaxRank, "a tensor of rank ", *rank, " is not supported");
    return ctx.set_output(0, ctx.dtype(0), fresh_shape(ctx, static_cast<int>(*rank)));
  }
  const bool allow_zero = ctx.node.attr_int("allowzero", 0) != 0, ranked = ctx.ranked(0);
  const Shape from = ranked ? ctx.shape(0) : Shape();
  Shape to(*target);
  int infer_at = -1;
  for (int i = 0; i < to.rank(); ++i) {
    Dim& d = to[i];
    if (is_symbol(d)) {  // a nameless unknown may be 0 or -1: only one that the input has is an extent for sure
      if (ctx.symbols().name(d).empty() && std::find(from.begin(), from.end(), d) == from.end()) d = ctx.fresh();
    } else if (d == -1) {
      ctx.check(infer_at < 0, "the target shape ", to, " has more than one -1");
      infer_at = i;
    } else if (d == 0 && !allow_zero) {
      ctx.check(!ranked || i < from.rank(), "extent 0 at position ", i, " copies an extent that the input does not have");
      d = ranked ? from[i] : ctx.fresh();
    } else {
      ctx.check(d >= 0, "extent ", d, " in the target shape is negative");
    }
  }
  if (infer_at >= 0) to[infer_at] = ranked ? remaining(ctx, from, to, infer_at) : ctx.fresh();
  else if (ranked && from.known() && std::count_if(to.begin(), to.end(), is_symbol) == 1)  // one unknown left: it is decided
    for (int i = 0; i < to.rank(); ++i)
      if (is_symbol(to[i])) { to[i] = remaining(ctx, from, to, i); break; }
  if (ranked && from.known() && to.known())
    ctx.check(from.count() == to.count(), "cannot reshape ", from, " (", from.count(), " elements) to ", to, " (",
              to.count(), ")");
  set_reshaped(ctx, to);
}

// ---- Flatten: [d0 * ... * d(axis-1), d(axis) * ...]

void infer_flatten(InferContext& ctx) {
  if (!ctx.ranked(0)) return ctx.set_output(0, ctx.dtype(0), fresh_shape(ctx, 2));
  const Shape& s = ctx.shape(0);
  const int64_t given = ctx.node.attr_int("axis", 1);
  ctx.check(given >= -s.rank() && given <= s.rank(), "axis ", given, " is outside [", -s.rank(), ", ", s.rank(), "]");
  const int axis = static_cast<int>(given < 0 ? given + s.rank() : given);
  auto product = [&](int first, int last) {
    Dim symbol = 0;
    int symbols = 0;
    int64_t n = 1;
    for (int i = first; i < last; ++i) {
      if (is_symbol(s[i])) { symbol = s[i]; ++symbols; }
      else ctx.check(!__builtin_mul_overflow(n, s[i], &n), "the shape ", s, " is too large");
    }
    return !symbols || n == 0 ? n : symbols == 1 && n == 1 ? symbol : ctx.fresh();
  };
  set_reshaped(ctx, {product(0, axis), product(axis, s.rank())});
}

// ---- Squeeze, Unsqueeze

// The axes, from the attribute (before opset 13) or the input; nullopt when they are not known yet. `given`: are there any?
std::optional<std::vector<int64_t>> axes_of(const InferContext& ctx, bool& given) {
  if (ctx.node.opset < 13) {
    given = ctx.node.has("axes");
    return ctx.node.attr_ints("axes");
  }
  given = ctx.has_input(1);
  return given ? known_ints(ctx, 1) : std::vector<int64_t>{};
}

void infer_squeeze(InferContext& ctx) {
  ctx.input(0);
  bool given = false;
  const auto axes = axes_of(ctx, given);
  const Type unknown = Type::tensor(ctx.dtype(0));
  if (!ctx.ranked(0)) return ctx.set_output(0, unknown);
  const Shape& s = ctx.shape(0);
  if (!axes) {
    const auto n = length_of(ctx, 1);
    if (!n || *n > s.rank()) return ctx.set_output(0, unknown);
    return ctx.set_output(0, ctx.dtype(0), fresh_shape(ctx, s.rank() - static_cast<int>(*n)));
  }
  bool drop[kMaxRank] = {};
  if (!given) {
    for (int i = 0; i < s.rank(); ++i) {
      if (is_symbol(s[i])) return ctx.set_output(0, unknown);  // it may be 1
      drop[i] = s[i] == 1;
    }
  }
  for (int64_t a : *axes) {
    const int i = ctx.axis(a, s.rank());
    ctx.check(is_symbol(s[i]) || s[i] == 1, "axis ", a, " of shape ", s, " should have extent 1");
    drop[i] = true;
  }
  Shape r;
  for (int i = 0; i < s.rank(); ++i) if (!drop[i]) r.push_back(s[i]);
  set_reshaped(ctx, r);
}

void infer_squeeze_ones(InferContext& ctx) {
  ctx.input(0);
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  const Shape& s = ctx.shape(0);
  const int axis = ctx.axis(ctx.node.attr_int("axis", 0), s.rank());
  if (is_symbol(s[axis])) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  Shape r;
  for (int i = 0; i < s.rank(); ++i) if (i != axis || s[i] != 1) r.push_back(s[i]);
  set_reshaped(ctx, r);
}

void infer_unsqueeze(InferContext& ctx) {
  ctx.input(0);
  bool given = false;
  const auto axes = axes_of(ctx, given);
  ctx.check(given, "axes are required");
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  const Shape& s = ctx.shape(0);
  const auto n = axes ? static_cast<int64_t>(axes->size()) : length_of(ctx, 1);
  if (!n) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  ctx.check(s.rank() + *n <= kMaxRank, "a tensor of rank ", s.rank() + *n, " is not supported");
  const int rank = s.rank() + static_cast<int>(*n);
  if (!axes) return ctx.set_output(0, ctx.dtype(0), fresh_shape(ctx, rank));
  bool added[kMaxRank] = {};
  for (int64_t a : *axes) {
    const int i = ctx.axis(a, rank);
    ctx.check(!added[i], "axis ", a, " stands twice in the axes");
    added[i] = true;
  }
  Shape r;
  for (int i = 0, from = 0; i < rank; ++i) r.push_back(added[i] ? 1 : s[from++]);
  set_reshaped(ctx, r);
}

const OpRegistration rows({
    {"Identity", "", 1, infer_identity, alias, eval_identity, kAnyLayout},
    {"Reshape", "", 1, infer_reshape, alias},
    {"Flatten", "", 1, infer_flatten, alias},
    {"Squeeze", "", 1, infer_squeeze, alias},
    {"Unsqueeze", "", 1, infer_unsqueeze, alias},
    {"SqueezeOnes", kTiercelDomain, 1, infer_squeeze_ones, alias},
});

void grad(GradContext& c) { c.set(0, c.w.reshape_like(c.dy(), c.x(0))); }
const GradRegistration grads({
    {"Identity", "", [](GradContext& c) { c.set(0, c.dy()); }}, {"Reshape", "", grad}, {"Flatten", "", grad}, {"Squeeze", "", grad},
    {"Unsqueeze", "", grad},
});

}  // namespace
}  // namespace tiercel

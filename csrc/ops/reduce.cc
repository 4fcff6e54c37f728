// ReduceSum, ReduceMean, ReduceMax, ReduceMin, ReduceProd, ReduceL1, ReduceL2, ReduceLogSum, ReduceLogSumExp, ReduceSumSquare.
#include "ops/grad.h"
#include "ops/reduce.h"

#include "ops/movement.h"

namespace tiercel {
namespace {

// ---- Axes: an attribute, later an input

// axis -> reduced?; null when the axes are not known yet. None given: all, or with noop_with_empty_axes none.
template <class Ctx> std::optional<std::vector<int64_t>> axes_of(const Ctx& ctx) {
  if (!ctx.has_input(1)) return ctx.node.attr_ints("axes");
  return known_ints(ctx, 1);
}

struct ReducedAxes {
  bool on[kMaxRank + 1] = {};
  ReducedAxes(const Node& node, const std::vector<int64_t>& axes, int rank) {
    if (axes.empty()) std::fill_n(on, rank, node.attr_int("noop_with_empty_axes", 0) == 0);
    for (int64_t a : axes) on[normalize_axis(a, rank)] = true;
  }
};

// Does reducing a single element change it?
constexpr bool changes_one(Reduction kind) {
  return kind == Reduction::kL1 || kind == Reduction::kL2 || kind == Reduction::kLogSum || kind == Reduction::kSumSquare;
}

// Would channels of zeros, as padding has them, become something else?
constexpr bool changes_zero(Reduction kind) {
  return kind == Reduction::kProd || kind == Reduction::kLogSum || kind == Reduction::kLogSumExp;
}

// ---- Inference

// Shape values: reductions of few known integers; a symbol survives when nothing else changes it.
std::optional<Dim> reduce_ints(Reduction kind, const std::vector<Dim>& v) {
  if (v.size() == 1 && !changes_one(kind)) return v[0];
  int64_t acc = kind == Reduction::kProd ? 1 : 0;
  Dim symbol = 0;
  int symbols = 0;
  for (size_t i = 0; i < v.size(); ++i) {
    if (is_symbol(v[i])) {
      symbol = v[i];
      ++symbols;
      continue;
    }
    switch (kind) {
      case Reduction::kSum: case Reduction::kMean: if (__builtin_add_overflow(acc, v[i], &acc)) return std::nullopt; break;
      case Reduction::kProd: if (__builtin_mul_overflow(acc, v[i], &acc)) return std::nullopt; break;
      case Reduction::kMax: acc = i ? std::max(acc, v[i]) : v[i]; break;
      case Reduction::kMin: acc = i ? std::min(acc, v[i]) : v[i]; break;
      default: return std::nullopt;
    }
  }
  if (v.empty() && (kind == Reduction::kMax || kind == Reduction::kMin || kind == Reduction::kMean)) return std::nullopt;
  if (!symbols) return kind == Reduction::kMean ? acc / static_cast<int64_t>(v.size()) : acc;
  if (symbols == 1 && ((kind == Reduction::kProd && acc == 1) || (kind == Reduction::kSum && acc == 0))) return symbol;
  return std::nullopt;
}

void check_dtype(const InferContext& ctx, Reduction kind) {
  const DType t = ctx.dtype(0);
  const bool order = kind == Reduction::kMax || kind == Reduction::kMin;
  ctx.check(is_real(t) || (is_integer(t) && bits_of(t) >= 8) || (order && t == DType::kBool), "does not reduce ", dtype_name(t));
}

template <Reduction kind> void infer(InferContext& ctx) {
  const Type& data = ctx.type(0);
  check_dtype(ctx, kind);
  const auto axes = axes_of(ctx);
  const bool keep = ctx.node.attr_int("keepdims", 1) != 0;
  if (!data.ranked) return ctx.set_output(0, Type::tensor(data.dtype));
  const int rank = data.shape.rank();
  if (!axes) {
    if (keep) return ctx.set_output(0, data.dtype, fresh_shape(ctx, rank));
    const auto n = length_of(ctx, 1);
    if (!n || *n == 0 || *n > rank) return ctx.set_output(0, Type::tensor(data.dtype));
    return ctx.set_output(0, data.dtype, fresh_shape(ctx, rank - static_cast<int>(*n)));
  }
  bool seen[kMaxRank + 1] = {};
  for (int64_t a : *axes) {
    bool& s = seen[ctx.axis(a, rank)];
    ctx.check(!s, "axis ", a, " stands twice in the axes");
    s = true;
  }
  const ReducedAxes reduced(ctx.node, *axes, rank);
  Shape y;
  bool all = true;
  for (int i = 0; i < rank; ++i) {
    if (!reduced.on[i]) y.push_back(data.shape[i]);
    else if (keep) y.push_back(1);
    all = all && reduced.on[i];
  }
  if (data.layout == Layout::kBlocked) {
    bool inside = keep && data.dtype == DType::kFloat;  // sums over the spatial axes leave the channels where they are
    for (int i = 0; i < rank; ++i) inside = inside && (!reduced.on[i] || i >= 2);
    ctx.check(inside && !changes_zero(kind), "takes channel blocks for its spatial axes only");
  }
  ctx.set_output(0, Type::tensor(data.dtype, y, data.layout));
  if (rank <= 1 && all)
    if (const auto v = small_ints(ctx, 0))
      if (const auto r = reduce_ints(kind, *v); r && (data.dtype == DType::kInt64 || *r == static_cast<int32_t>(*r)))
        ctx.set_ints(0, {*r});
}

// ---- Integers, bool and double: one loop for all

// What integers are summed in: wraps around as numpy's do. Means and norms of integers are truncated.
template <class T> using Wide = std::conditional_t<std::is_same_v<T, double>, double, std::conditional_t<std::is_signed_v<T>, int64_t, uint64_t>>;

template <class T> T reduce_one(Reduction kind, const T* x, const std::vector<ReduceView::Axis>& axes, int64_t count) {
  using W = Wide<T>;
  using U = std::conditional_t<std::is_same_v<T, double>, double, uint64_t>;  // overflow is defined
  constexpr bool kInteger = !std::is_same_v<T, double>;
  const auto each = [&](auto f) {
    const ReduceView::Axis inner = axes.empty() ? ReduceView::Axis{1, 0} : axes.back();
    for (int64_t i = 0; i < count; i += inner.extent) {
      int64_t rest = i / inner.extent, at = 0;
      for (size_t k = axes.empty() ? 0 : axes.size() - 1; k-- > 0;) {
        at += rest % axes[k].extent * axes[k].stride;
        rest /= axes[k].extent;
      }
      for (int64_t j = 0; j < inner.extent; ++j) f(static_cast<W>(x[at + j * inner.stride]));
    }
  };
  U sum = 0, prod = 1;
  double real = 0;
  switch (kind) {
    case Reduction::kSum: each([&](W v) { sum += static_cast<U>(v); }); return static_cast<T>(sum);
    case Reduction::kMean:
      each([&](W v) { sum += static_cast<U>(v); });
      if constexpr (kInteger) return count ? static_cast<T>(static_cast<W>(sum) / static_cast<W>(count)) : T{0};
      else return sum / static_cast<double>(count);
    case Reduction::kProd: each([&](W v) { prod *= static_cast<U>(v); }); return static_cast<T>(prod);
    case Reduction::kL1: each([&](W v) { sum += v < 0 ? -static_cast<U>(v) : static_cast<U>(v); }); return static_cast<T>(sum);
    case Reduction::kSumSquare: each([&](W v) { sum += static_cast<U>(v) * static_cast<U>(v); }); return static_cast<T>(sum);
    case Reduction::kL2: each([&](W v) { real += static_cast<double>(v) * static_cast<double>(v); }); return saturate<T>(std::sqrt(real));
    case Reduction::kLogSum: each([&](W v) { real += static_cast<double>(v); }); return saturate<T>(std::log(real));
    case Reduction::kMax: case Reduction::kMin: {
      const bool max = kind == Reduction::kMax;
      W best = max ? std::numeric_limits<T>::lowest() : std::numeric_limits<T>::max();
      if constexpr (!kInteger) best = max ? -INFINITY : INFINITY;
      each([&](W v) {
        if constexpr (!kInteger) if (std::isnan(v)) best = v;
        if (max ? v > best : v < best) best = v;
      });
      return static_cast<T>(best);
    }
    case Reduction::kLogSumExp: {
      double m = -INFINITY;
      each([&](W v) { m = std::max(m, static_cast<double>(v)); });
      if (!std::isfinite(m)) m = 0;
      each([&](W v) { real += std::exp(static_cast<double>(v) - m); });
      return saturate<T>(std::log(real) + m);
    }
  }
  return T{};
}

template <class T> void run_plain(Reduction kind, const ReduceView& view, const T* x, T* y, Worker& w) {
  w.parallel_for(view.outputs, grain_for(view.count), [&](int64_t b, int64_t e) {
    for (int64_t o = b; o < e; ++o) {
      int64_t rest = o, at = 0;
      for (size_t k = view.kept.size(); k-- > 0;) {
        at += rest % view.kept[k].extent * view.kept[k].stride;
        rest /= view.kept[k].extent;
      }
      y[o] = reduce_one(kind, x + at, view.reduced, view.count);
    }
  });
}

// ---- Preparation

using Run = std::function<void(const void* x, void* y, void* workspace, Worker&)>;

// The reduction of one shape, for any dtype; `workspace` is set to the bytes it needs.
Run reduction_of(Reduction kind, DType dtype, const Shape& shape, const bool* reduced, int64_t* workspace) {
  *workspace = 0;
  if (dtype == DType::kFloat) {
    const FloatReduction reduction(kind, shape, reduced);
    *workspace = reduction.workspace();
    return [=](const void* x, void* y, void* scratch, Worker& w) {
      reduction.run(static_cast<const float*>(x), static_cast<float*>(y), scratch, w);
    };
  }
  const ReduceView view(shape, reduced);
  if (dtype == DType::kBool)  // true is 1: the largest of none is false, the smallest true
    return [=](const void* x, void* out, void*, Worker& w) {
      uint8_t* y = static_cast<uint8_t*>(out);
      if (view.count) run_plain<uint8_t>(kind, view, static_cast<const uint8_t*>(x), y, w);
      else w.parallel_for(view.outputs, 16384, [&](int64_t b, int64_t e) { std::fill(y + b, y + e, kind == Reduction::kMin ? 1 : 0); });
    };
  Run run;
  with_plain_type(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    run = [=](const void* x, void* y, void*, Worker& w) { run_plain<T>(kind, view, static_cast<const T*>(x), static_cast<T*>(y), w); };
  });
  return run;
}

// Axes that are computed while the model runs, where the result's shape is known nevertheless.
void prepare_late(PrepareContext& ctx, Reduction kind) {
  ctx.serial();
  const bool wide = ctx.dtype(1) == DType::kInt64;
  ctx.run([=, shape = ctx.shape(0), n = ctx.shape(1).count(), dtype = ctx.dtype(0), outputs = ctx.out_shape(0).count(), &node = ctx.node](
              const Args& a, Worker& w) {
    std::vector<int64_t> axes;
    for (int64_t i = 0; i < n; ++i) {
      axes.push_back(wide ? a.in<int64_t>(1)[i] : a.in<int32_t>(1)[i]);
      if (normalize_axis(axes.back(), shape.rank()) < 0)
        fail(Code::kInvalidArgument, node.label(), ": axis ", axes.back(), " is outside a shape of rank ", shape.rank());
    }
    const ReducedAxes reduced(node, axes, shape.rank());
    if (ReduceView(shape, reduced.on).outputs != outputs)
      fail(Code::kInvalidArgument, node.label(), ": the axes do not give the shape that the model declares");
    int64_t bytes = 0;
    const Run run = reduction_of(kind, dtype, shape, reduced.on, &bytes);
    const Buffer scratch = bytes ? allocate(static_cast<size_t>(bytes)) : nullptr;
    run(a.in(0), a.out(0), scratch.get(), w);
  });
}

template <Reduction kind> void prepare(PrepareContext& ctx) {
  const auto axes = axes_of(ctx);
  if (!axes) return prepare_late(ctx, kind);
  Shape shape = ctx.shape(0);
  ReducedAxes reduced(ctx.node, *axes, shape.rank());
  if (ctx.layout(0) == Layout::kBlocked) {  // [N, C/16, spatial..., 16]
    shape[1] = ceil_div(shape[1], kChannelBlock);
    shape.push_back(kChannelBlock);
    reduced.on[shape.rank() - 1] = false;
  }
  const ReduceView view(shape, reduced.on);
  if (view.count == 1 && !changes_one(kind)) return ctx.alias(0, 0);
  const double n = static_cast<double>(shape.count());
  ctx.cost(n * (kind == Reduction::kLogSumExp ? 20 : 1), static_cast<double>(bytes_of(ctx.dtype(0), 1)) * (n + static_cast<double>(view.outputs)));
  int64_t bytes = 0;
  const Run run = reduction_of(kind, ctx.dtype(0), shape, reduced.on, &bytes);
  ctx.workspace(bytes);
  ctx.run([run](const Args& a, Worker& w) { run(a.in(0), a.out(0), a.workspace(), w); });
}

#define TIERCEL_ROW(name, kind) \
  {name, "", 1, infer<Reduction::kind>, half_as_float<prepare<Reduction::kind>>, nullptr, \
   changes_zero(Reduction::kind) ? kNone : kAnyLayout}
const OpRegistration rows({
    TIERCEL_ROW("ReduceSum", kSum), TIERCEL_ROW("ReduceMean", kMean), TIERCEL_ROW("ReduceMax", kMax), TIERCEL_ROW("ReduceMin", kMin),
    TIERCEL_ROW("ReduceProd", kProd), TIERCEL_ROW("ReduceL1", kL1), TIERCEL_ROW("ReduceL2", kL2),
    TIERCEL_ROW("ReduceLogSum", kLogSum), TIERCEL_ROW("ReduceLogSumExp", kLogSumExp), TIERCEL_ROW("ReduceSumSquare", kSumSquare),
});
#undef TIERCEL_ROW

// ---- Gradients ----------------------------------------------------------------------------------------------------------

// The axes that a node reduces, negative ones as they are; empty: all of them, or none (noop).
std::vector<int64_t> grad_axes(GradContext& c) { return c.has(1) ? c.ints(1, "axes") : c.node.attr_ints("axes"); }
bool is_noop(GradContext& c, const std::vector<int64_t>& axes) { return axes.empty() && c.node.attr_int("noop_with_empty_axes", 0) != 0; }

// A value of the result's shape (null stays null), with the reduced axes back as ones.
Value* kept(GradContext& c, Value* v) {
  if (!v || c.node.attr_int("keepdims", 1)) return v;
  std::vector<int64_t> axes = grad_axes(c);
  return axes.empty() ? v : c.w.op("Unsqueeze", {v, c.w.ints(axes)});  // a scalar broadcasts as it is
}

// The same reduction of another value.
Value* reduced(GradContext& c, const char* op, Value* v) {
  std::vector<int64_t> axes = grad_axes(c);
  return axes.empty() ? c.w.op(op, {v}, {{"keepdims", int64_t{1}}}) : c.w.op(op, {v, c.w.ints(axes)}, {{"keepdims", int64_t{1}}});
}

// f(writer, x, y, dy): with y and dy as they broadcast to x.
template <class F> void grad_reduction(GradContext& c, F f) {
  if (is_noop(c, grad_axes(c))) {
    c.check(c.node.op_type == "ReduceSum" || c.node.op_type == "ReduceMean" || c.node.op_type == "ReduceMax" || c.node.op_type == "ReduceMin",
            "noop_with_empty_axes has none here");
    return c.set(0, c.dy());
  }
  c.set(0, f(c, c.x(0), kept(c, c.y()), kept(c, c.dy())));
}

Value* grad_extreme(GradContext& c, Value* x, Value* y, Value* dy) {  // equal ones share
  GraphWriter& w = c.w;
  Value* const mask = w.op("Cast", {w.op("Equal", {x, y})}, {{"to", static_cast<int64_t>(w.dtype(x))}});
  return w.mul(mask, w.div(dy, reduced(c, "ReduceSum", mask)));
}

Value* grad_product(GradContext& c, Value* x, Value*, Value* dy) {  // the product of the others, whether or not there are zeros
  GraphWriter& w = c.w;
  Value *zero = w.scalar_like(0, x), *one = w.scalar_like(1, x), *is_zero = w.op("Equal", {x, zero});
  Value* const filled = w.op("Where", {is_zero, one, x});
  Value* const zeros = reduced(c, "ReduceSum", w.op("Where", {is_zero, one, zero}));
  Value* const product = reduced(c, "ReduceProd", filled);
  Value* const at_zero = w.op("Where", {w.op("Equal", {zeros, one}), product, zero});
  Value* const elsewhere = w.op("Where", {w.op("Equal", {zeros, zero}), product, zero});
  return w.mul(dy, w.op("Where", {is_zero, at_zero, w.div(elsewhere, filled)}));
}

Value* grad_norm(GradContext& c, Value* x, Value* y, Value* dy) {  // zero where the norm is
  GraphWriter& w = c.w;
  Value* const zero = w.scalar_like(0, x);
  return w.mul(x, w.op("Where", {w.op("Equal", {y, zero}), zero, w.div(dy, y)}));
}

using C = GradContext;
const GradRegistration grads({
    {"ReduceSum", "", [](C& c) { grad_reduction(c, [](C& k, Value* x, Value*, Value* dy) { return k.w.expand_like(dy, x); }); }},
    {"ReduceMean", "", [](C& c) {
       grad_reduction(c, [](C& k, Value* x, Value* y, Value* dy) { return k.w.expand_like(k.w.times_ratio(dy, y, x), x); });
     }},
    {"ReduceMax", "", [](C& c) { grad_reduction(c, grad_extreme); }},
    {"ReduceMin", "", [](C& c) { grad_reduction(c, grad_extreme); }},
    {"ReduceProd", "", [](C& c) { grad_reduction(c, grad_product); }},
    {"ReduceL1", "", [](C& c) { grad_reduction(c, [](C& k, Value* x, Value*, Value* dy) { return k.w.mul(k.w.op("Sign", {x}), dy); }); }},
    {"ReduceL2", "", [](C& c) { grad_reduction(c, grad_norm); }},
    {"ReduceLogSum", "", [](C& c) {
       grad_reduction(c, [](C& k, Value* x, Value* y, Value* dy) { return k.w.expand_like(k.w.mul(dy, k.w.op("Exp", {k.w.neg(y)})), x); });
     }},
    {"ReduceLogSumExp", "", [](C& c) {
       grad_reduction(c, [](C& k, Value* x, Value* y, Value* dy) { return k.w.mul(dy, k.w.op("Exp", {k.w.sub(x, y)})); });
     }},
    {"ReduceSumSquare", "", [](C& c) { grad_reduction(c, [](C& k, Value* x, Value*, Value* dy) { return k.w.mul(dy, k.w.scale(x, 2)); }); }},
});

}  // namespace
}  // namespace tiercel

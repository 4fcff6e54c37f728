// Conv (ONNX), and ai.tiercel.Conv: the same with a residual (input 3, added before the activation), an activation (see
// ops/activation.h) and the attributes `layout`: "blocked" or "plain", of the output (absent: the input's), and `winograd`: 1 lets
// Winograd's algorithm serve where it is estimated to be faster.
#include <algorithm>

#include "kernels/conv/reference.h"
#include "ops/activation.h"
#include "ops/conv_gemm.h"
#include "ops/conv_run.h"
#include "ops/grad.h"
#include "ops/overlap_add.h"
#include "ops/registry.h"
#include "ops/window.h"
#include "ops/winograd_run.h"

namespace tiercel {
namespace {

std::span<const int64_t> spatial(const Shape& s) { return s.span().subspan(2); }

void infer(InferContext& ctx) {
  const Type& x = ctx.type(0);
  const Type& w = ctx.type(1);
  ctx.check(x.is_tensor() && is_float(x.dtype) && bits_of(x.dtype) >= 16, "input X should be float, double, float16 or bfloat16");
  ctx.check(w.dtype == x.dtype, "X and W should have one type");
  if (ctx.has_input(2)) {
    ctx.check(ctx.dtype(2) == x.dtype, "X and B should have one type");
    if (ctx.ranked(2)) ctx.check(ctx.shape(2).rank() == 1, "B should have one axis");
  }
  if (!x.ranked && !w.ranked) return ctx.set_output(0, Type::tensor(x.dtype));
  const int rank = (x.ranked ? x.shape : w.shape).rank();
  ctx.check(rank >= 3, "X and W should have a batch, a channel and at least one spatial axis");
  ctx.check(!x.ranked || !w.ranked || x.shape.rank() == w.shape.rank(), "X and W should have the same rank");
  const int64_t groups = ctx.node.attr_int("group", 1);
  ctx.check(groups >= 1, "group should be at least 1, is ", groups);
  if (w.ranked) {
    const Dim outputs = w.shape[0], in_group = w.shape[1];
    ctx.check(is_symbol(outputs) || outputs % groups == 0, "the ", outputs, " output channels do not divide into ", groups, " groups");
    int64_t channels = 0;
    if (!is_symbol(in_group) && x.ranked && !is_symbol(x.shape[1]))
      ctx.check(!__builtin_mul_overflow(in_group, groups, &channels) && channels == x.shape[1], "X has ", x.shape[1],
                " channels, but W asks for ", groups, " x ", in_group);
    if (ctx.has_input(2) && ctx.ranked(2)) unify(ctx, ctx.shape(2)[0], outputs, "the lengths of B and of W's first axis");
  }
  Shape out;
  out.resize(rank);
  out[0] = x.ranked ? x.shape[0] : ctx.fresh();
  out[1] = w.ranked ? w.shape[0] : ctx.fresh();
  const bool kernel_known = ctx.node.has("kernel_shape") || (w.ranked && std::none_of(w.shape.begin() + 2, w.shape.end(), is_symbol));
  if (x.ranked && kernel_known) {
    Window window = window_of(ctx.node, rank - 2, w.ranked ? spatial(w.shape) : std::span<const int64_t>());
    for (int a = 0; a < rank - 2; ++a) {
      out[2 + a] = window.slide(a, x.shape[2 + a], ctx.symbols());
      ctx.check(is_symbol(out[2 + a]) || out[2 + a] >= 0, "the kernel spans ", window.reach(a), " pixels of spatial axis ", a,
                ", the padded input has ", x.shape[2 + a] + window.begin[a] + window.end[a]);
    }
  } else {
    for (int a = 2; a < rank; ++a) out[a] = ctx.fresh();
  }
  Type y = Type::tensor(x.dtype, out, x.layout);
  if (ctx.node.has("layout")) {
    const std::string layout = ctx.node.attr_string("layout", "");
    ctx.check(layout == "blocked" || layout == "plain", "attribute layout should be blocked or plain, is \"", layout, "\"");
    y.layout = layout == "blocked" ? Layout::kBlocked : Layout::kPlain;
  }
  ctx.check(y.layout == Layout::kPlain || x.dtype == DType::kFloat, "only float tensors can be blocked");
  if (ctx.has_input(3)) {
    const Type& r = ctx.type(3);
    ctx.check(r.dtype == x.dtype && r.layout == y.layout, "the residual should have the output's type and layout");
    ctx.check(!r.ranked || !r.shape.known() || !out.known() || r.shape == out, "the residual should have the output's shape ", out);
  }
  ctx.set_output(0, y);
}

// Any rank and type, on the plain loops.
template <class T> void prepare_reference(PrepareContext& ctx, const Window& window) {
  const Shape x = ctx.shape(0), y = ctx.out_shape(0);
  const int64_t groups = ctx.node.attr_int("group", 1);
  const Activation activation = activation_of(ctx.node);
  const int64_t plane = y.count(2, y.rank());
  ctx.run([=](const Args& args, Worker& worker) {
    const reference::ConvExtents e{x[0], x[1], y[1], groups, window.rank, x.data() + 2, y.data() + 2, window.kernel.data(),
                                   window.stride.data(), window.dilation.data(), window.begin.data()};
    worker.parallel_for(x[0] * y[1], 1, [&](int64_t begin, int64_t end) {
      T* const out = args.out<T>(0);
      reference::conv(e, args.in<T>(0), args.in<T>(1), args.in<T>(2), out, begin, end);
      if constexpr (std::is_same_v<T, float>) {
        const float* const residual = args.in<float>(3);
        for (int64_t i = begin * plane; i < end * plane; ++i) out[i] = activate(out[i] + (residual ? residual[i] : 0), activation);
      }
    });
  });
  ctx.cost(2.0 * static_cast<double>(x[0] * plane) * static_cast<double>(y[1]) * static_cast<double>(x[1] / groups) *
               static_cast<double>(window.taps()) * 20,  // scalar
           4.0 * static_cast<double>(x.count() + y.count()));
}

void prepare(PrepareContext& ctx) {
  const Shape &x = ctx.shape(0), &w = ctx.shape(1), &y = ctx.out_shape(0);
  if (y.count() == 0) return ctx.run([](const Args&, Worker&) {});
  Window window = window_of(ctx.node, x.rank() - 2, spatial(w));
  for (int a = 0; a < window.rank; ++a) window.slide(a, x[2 + a]);
  if (ctx.has_input(2) && ctx.shape(2)[0] != y[1]) ctx.fail("B should have ", y[1], " elements");
  if (ctx.has_input(3) && !(ctx.shape(3) == y)) ctx.fail("the residual should have the output's shape ", y.str());
  const DType dtype = ctx.dtype(0);
  if (dtype == DType::kFloat && window.rank <= 3) {
    ConvProblem p;
    p.batch = x[0];
    p.channels = x[1];
    p.outputs = y[1];
    p.groups = ctx.node.attr_int("group", 1);
    for (int a = 0, to = 3 - window.rank; a < window.rank; ++a, ++to) {
      p.in[to] = x[2 + a];
      p.out[to] = y[2 + a];
      p.kernel[to] = window.kernel[a];
      p.stride[to] = window.stride[a];
      p.dilation[to] = window.dilation[a];
      p.pad[to] = window.begin[a];
    }
    const bool blocked = ctx.layout(0) == Layout::kBlocked && ctx.out_layout(0) == Layout::kBlocked;
    const bool constant = ctx.constant(1) && (!ctx.has_input(2) || ctx.constant(2));
    if (ctx.node.attr_int("winograd", 0) && blocked && constant)
      if (const int tile = winograd_tile(p)) return prepare_winograd_conv(ctx, p, activation_of(ctx.node), tile);
    if (ctx.constant(1) && !ctx.has_input(3) && ctx.out_layout(0) == Layout::kPlain && p.in_plane() > 0 &&
        std::all_of(p.stride, p.stride + 3, [](int64_t s) { return s == 1; }) && suits_overlap_add(false, p.channels, p.outputs, p.taps(), p.groups, window.rank))
      return prepare_overlap_add(ctx, p, activation_of(ctx.node));
    if (conv_suits_gemm(ctx, p)) return prepare_gemm_conv(ctx, p, activation_of(ctx.node));
    if (conv_is_direct(p)) {
      prepare_direct_conv(ctx, p, activation_of(ctx.node), "direct");
      if (ctx.constant(1)) ctx.drops(1);
      return;
    }
  }
  if (ctx.layout(0) != Layout::kPlain || ctx.out_layout(0) != Layout::kPlain) ctx.fail("this convolution has no blocked kernel");
  switch (dtype) {
    case DType::kFloat: return prepare_reference<float>(ctx, window);
    case DType::kDouble: return prepare_reference<double>(ctx, window);
    case DType::kFloat16: return prepare_reference<Half>(ctx, window);
    case DType::kBFloat16: return prepare_reference<BFloat16>(ctx, window);
    default: ctx.fail("X should be float, double, float16 or bfloat16");
  }
}

const OpRegistration rows({
    {"Conv", "", 1, infer, prepare, nullptr, kAnyLayout},
    {"Conv", kTiercelDomain, 1, infer, prepare, nullptr, kAnyLayout},
});

void grad(GradContext& c) {
  const int rank = c.rank(c.x(0));
  AttributeList attributes;
  for (const char* key : {"strides", "dilations", "pads", "kernel_shape"})
    if (c.node.has(key)) attributes.emplace_back(key, c.node.attr_ints(key));
  if (c.node.has("auto_pad")) attributes.emplace_back("auto_pad", c.node.attr_string("auto_pad", ""));
  attributes.emplace_back("group", c.node.attr_int("group", 1));
  if (c.wants(0)) c.set(0, c.w.op("ConvGradX", {c.dy(), c.x(1), nullptr, nullptr, c.w.shape_of(c.x(0))}, attributes, kTiercelDomain));
  if (c.wants(1)) c.set(1, c.w.op("ConvGradW", {c.dy(), c.x(0), c.w.shape_of(c.x(1))}, attributes, kTiercelDomain));
  if (!c.wants(2)) return;
  std::vector<int64_t> axes{0};
  for (int a = 2; a < rank; ++a) axes.push_back(a);
  c.set(2, c.w.op("ReduceSum", {c.dy(), c.w.ints(axes)}, {{"keepdims", int64_t{0}}}));
}

const GradRegistration grads({{"Conv", "", grad}});

}  // namespace
}  // namespace tiercel

// ConvTranspose (ONNX), and ai.tiercel.ConvTranspose: the same with a residual (input 3), an activation and the attribute `layout`.
// ai.tiercel.ConvGradX (dy, w, -, -, shape): the gradient of a convolution's input, of that shape, from the attributes of the convolution.
#include <algorithm>
#include <cstring>

#include "kernels/conv/reference.h"
#include "ops/activation.h"
#include "ops/conv_gemm.h"
#include "ops/conv_run.h"
#include "ops/grad.h"
#include "ops/overlap_add.h"
#include "ops/registry.h"
#include "ops/window.h"

namespace tiercel {
namespace {

// out = (in - 1) stride + output_padding + reach - pads, where either the pads or `out` (output_shape, auto_pad) are given.
// Resolves window.begin and end; negative: no such output.
struct Extents {
  Window window;
  std::vector<int64_t> output_padding, output_shape;

  Extents(const Node& node, int rank, std::span<const int64_t> kernel) : window(window_of(node, rank, kernel)) {
    output_padding = node.attr_ints("output_padding");
    output_shape = node.attr_ints("output_shape");
    if (output_padding.empty()) output_padding.assign(static_cast<size_t>(rank), 0);
    if (static_cast<int>(output_padding.size()) != rank)
      fail(Code::kInvalidGraph, node.label(), ": attribute output_padding should have ", rank, " entries");
    if (static_cast<int>(output_shape.size()) == rank + 2) output_shape.erase(output_shape.begin(), output_shape.begin() + 2);
    if (!output_shape.empty() && static_cast<int>(output_shape.size()) != rank)
      fail(Code::kInvalidGraph, node.label(), ": attribute output_shape should have ", rank, " entries");
    for (int a = 0; a < rank; ++a) {
      if (output_padding[a] < 0 || output_padding[a] > INT32_MAX)
        fail(Code::kInvalidGraph, node.label(), ": output_padding[", a, "] = ", output_padding[a]);
      if (!output_shape.empty() && (output_shape[a] < 0 || output_shape[a] > INT32_MAX))
        fail(Code::kInvalidGraph, node.label(), ": output_shape[", a, "] = ", output_shape[a]);
    }
  }
  int64_t out(int a, int64_t in) {
    if (in > INT32_MAX) return -1;
    const int64_t full = (in - 1) * window.stride[a] + output_padding[a] + window.reach(a);
    const bool same = window.auto_pad == AutoPad::kSameUpper || window.auto_pad == AutoPad::kSameLower;
    if (output_shape.empty() && !same) {
      if (window.auto_pad == AutoPad::kValid) window.begin[a] = window.end[a] = 0;
      return full - window.begin[a] - window.end[a];
    }
    const int64_t out = output_shape.empty() ? in * window.stride[a] : output_shape[a];
    const int64_t total = full - out;  // negative: zeros are appended
    const int64_t half = total >= 0 ? total / 2 : 0;
    window.begin[a] = window.auto_pad == AutoPad::kSameUpper ? half : std::max<int64_t>(total, 0) - half;
    window.end[a] = total - window.begin[a];
    return out;
  }
};

std::span<const int64_t> spatial(const Shape& s) { return s.span().subspan(2); }

void infer(InferContext& ctx) {
  const Type& x = ctx.type(0);
  const Type& w = ctx.type(1);
  ctx.check(x.is_tensor() && is_float(x.dtype) && bits_of(x.dtype) >= 16, "X should be float, double, float16 or bfloat16");
  ctx.check(w.dtype == x.dtype, "X and W should have one type");
  if (ctx.has_input(2)) {
    ctx.check(ctx.dtype(2) == x.dtype, "X and B should have one type");
    if (ctx.ranked(2)) ctx.check(ctx.shape(2).rank() == 1, "B should have one axis");
  }
  if (!x.ranked && !w.ranked) return ctx.set_output(0, Type::tensor(x.dtype));
  const int rank = (x.ranked ? x.shape : w.shape).rank();
  ctx.check(rank >= 3, "X and W should have two axes and at least one spatial axis");
  ctx.check(!x.ranked || !w.ranked || x.shape.rank() == w.shape.rank(), "X and W should have the same rank");
  const int64_t groups = ctx.node.attr_int("group", 1);
  ctx.check(groups >= 1, "group should be at least 1, is ", groups);
  Shape out;
  out.resize(rank);
  out[0] = x.ranked ? x.shape[0] : ctx.fresh();
  out[1] = ctx.fresh();
  if (w.ranked) {
    if (x.ranked) unify(ctx, x.shape[1], w.shape[0], "the channels of X and W's first axis");
    ctx.check(is_symbol(w.shape[0]) || w.shape[0] % groups == 0, "the ", w.shape[0], " input channels do not divide into ", groups, " groups");
    if (!is_symbol(w.shape[1])) ctx.check(!__builtin_mul_overflow(w.shape[1], groups, &out[1]), "too many output channels");
    if (ctx.has_input(2) && ctx.ranked(2)) unify(ctx, ctx.shape(2)[0], out[1], "the length of B and the number of output channels");
  }
  const bool kernel_known = ctx.node.has("kernel_shape") || (w.ranked && std::none_of(w.shape.begin() + 2, w.shape.end(), is_symbol));
  if (x.ranked && kernel_known) {
    Extents e(ctx.node, rank - 2, w.ranked ? spatial(w.shape) : std::span<const int64_t>());
    for (int a = 0; a < rank - 2; ++a) {
      const Dim in = x.shape[2 + a];
      if (is_symbol(in)) {
        out[2 + a] = !e.output_shape.empty() ? e.output_shape[a] : ctx.fresh();
        continue;
      }
      out[2 + a] = in > 0 ? e.out(a, in) : 0;
      ctx.check(out[2 + a] >= 0, "spatial axis ", a, " of the output would have extent ", out[2 + a]);
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
  ctx.set_output(0, y);
}

bool is_grad(const Node& node) { return node.op_type == "ConvGradX"; }

void infer_grad(InferContext& ctx) {
  ctx.check(ctx.type(0).is_tensor() && is_float(ctx.dtype(0)) && ctx.dtype(1) == ctx.dtype(0), "dy and W should be floats of one type");
  ctx.check(ctx.dtype(4) == DType::kInt64, "the shape should be int64");
  const auto ints = ctx.ints(4);
  ctx.set_output(0, ints ? Type::tensor(ctx.dtype(0), Shape{std::span<const Dim>(*ints)}) : Type::tensor(ctx.dtype(0)));
}

// Of the forward convolution, with auto_pad resolved.
Window grad_window(PrepareContext& ctx) {
  const Shape &dy = ctx.shape(0), &w = ctx.shape(1), &x = ctx.out_shape(0);
  if (dy.rank() < 3 || w.rank() != dy.rank() || x.rank() != dy.rank()) ctx.fail("dy, W and the shape should have one rank, 3 at least");
  Window window = window_of(ctx.node, x.rank() - 2, spatial(w));
  const int64_t groups = ctx.node.attr_int("group", 1);
  if (dy[1] != w[0] || groups < 1 || w[0] % groups || x[1] != w[1] * groups || x[0] != dy[0]) ctx.fail("dy, W and the shape do not fit");
  for (int a = 0; a < window.rank; ++a)
    if (window.slide(a, x[2 + a]) != dy[2 + a]) ctx.fail("dy ", dy.str(), " is not of this convolution");
  return window;
}

template <class T> void prepare_reference(PrepareContext& ctx, const Window& window) {
  const Shape x = ctx.shape(0), y = ctx.out_shape(0);
  const int64_t groups = ctx.node.attr_int("group", 1), plane = y.count(2, y.rank());
  const Activation activation = activation_of(ctx.node);
  ctx.run([=](const Args& args, Worker& worker) {
    const reference::ConvExtents e{x[0], x[1], y[1], groups, window.rank, x.data() + 2, y.data() + 2, window.kernel.data(),
                                   window.stride.data(), window.dilation.data(), window.begin.data()};
    worker.parallel_for(x[0] * y[1], 1, [&](int64_t begin, int64_t end) {
      T* const out = args.out<T>(0);
      reference::conv_transpose(e, args.in<T>(0), args.in<T>(1), args.in<T>(2), out, begin, end);
      if constexpr (std::is_same_v<T, float>) {
        const float* const residual = args.in<float>(3);
        for (int64_t i = begin * plane; i < end * plane; ++i) out[i] = activate(out[i] + (residual ? residual[i] : 0), activation);
      }
    });
  });
  ctx.cost(2.0 * static_cast<double>(x.count()) * static_cast<double>(y[1] / groups) * static_cast<double>(window.taps()) * 20,
           4.0 * static_cast<double>(x.count() + y.count()));
}

void prepare(PrepareContext& ctx) {
  const Shape &x = ctx.shape(0), &w = ctx.shape(1), &y = ctx.out_shape(0);
  if (y.count() == 0) return ctx.run([](const Args&, Worker&) {});
  Window window;
  bool fixed = true;  // do the pads follow from the attributes alone?
  if (is_grad(ctx.node)) {
    if (x.count() == 0)
      return ctx.run([bytes = bytes_of(ctx.dtype(0), y.count())](const Args& a, Worker& worker) {
        if (worker.index() == 0) std::memset(a.out(0), 0, static_cast<size_t>(bytes));
      });
    window = grad_window(ctx);
    fixed = window.auto_pad == AutoPad::kNotSet;
  } else {
    Extents e(ctx.node, x.rank() - 2, spatial(w));
    for (int a = 0; a < e.window.rank; ++a) e.out(a, x[2 + a]);
    window = e.window;
    fixed = e.output_shape.empty();
  }
  if (ctx.has_input(2) && ctx.shape(2)[0] != y[1]) ctx.fail("B should have ", y[1], " elements");
  if (ctx.has_input(3) && (!(ctx.shape(3) == y) || ctx.layout(3) != ctx.out_layout(0)))
    ctx.fail("the residual should have the output's shape ", y.str(), " and layout");
  const DType dtype = ctx.dtype(0);
  if (dtype == DType::kFloat && window.rank <= 3) {
    ConvProblem p;
    p.transposed = true;
    p.batch = x[0];
    p.channels = x[1];
    p.outputs = y[1];
    p.groups = ctx.node.attr_int("group", 1);
    std::string key = "transposed";  // phases depend on strides, dilations and pads
    for (int a = 0, to = 3 - window.rank; a < window.rank; ++a, ++to) {
      p.in[to] = x[2 + a];
      p.out[to] = y[2 + a];
      p.kernel[to] = window.kernel[a];
      p.stride[to] = window.stride[a];
      p.dilation[to] = window.dilation[a];
      p.pad[to] = window.begin[a];
      key += cat(",", p.stride[to], ",", p.dilation[to], ",", p.pad[to]);
    }
    if (is_grad(ctx.node)) {
      ConvProblem forward = p;
      forward.transposed = false;
      std::swap(forward.channels, forward.outputs);
      std::swap(forward.in, forward.out);
      if (conv_suits_gemm(ctx, forward)) return prepare_gemm_conv_grad(ctx, forward);
    }
    if (ctx.constant(1) && !ctx.has_input(3) && ctx.out_layout(0) == Layout::kPlain && p.in_plane() > 0 &&
        suits_overlap_add(true, p.channels, p.outputs, p.taps(), p.groups, window.rank))
      return prepare_overlap_add(ctx, p, is_grad(ctx.node) ? Activation{} : activation_of(ctx.node));
    if (conv_is_direct(p)) {
      prepare_direct_conv(ctx, p, activation_of(ctx.node), key);
      if (ctx.constant(1) && fixed) ctx.drops(1);  // else the pads, and so the packing, follow the input's shape
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
    {"ConvTranspose", "", 1, infer, prepare, nullptr, kAnyLayout},
    {"ConvTranspose", kTiercelDomain, 1, infer, prepare, nullptr, kAnyLayout},
    {"ConvGradX", kTiercelDomain, 1, infer_grad, prepare},
});

// dx is the convolution of dy with the same weights; dW that of a convolution from dy to x.
void grad(GradContext& c) {
  const int rank = c.rank(c.x(0));
  c.check(c.node.attr_string("auto_pad", "NOTSET") == "NOTSET" && !c.node.has("output_shape"), "auto_pad and output_shape have none");
  AttributeList attributes;
  for (const char* key : {"strides", "dilations", "pads", "kernel_shape"})
    if (c.node.has(key)) attributes.emplace_back(key, c.node.attr_ints(key));
  attributes.emplace_back("group", c.node.attr_int("group", 1));
  if (c.wants(0)) c.set(0, c.w.op("Conv", {c.dy(), c.x(1)}, attributes));
  if (c.wants(1)) c.set(1, c.w.op("ConvGradW", {c.x(0), c.dy(), c.w.shape_of(c.x(1))}, attributes, kTiercelDomain));
  if (!c.wants(2)) return;
  std::vector<int64_t> axes{0};
  for (int a = 2; a < rank; ++a) axes.push_back(a);
  c.set(2, c.w.op("ReduceSum", {c.dy(), c.w.ints(axes)}, {{"keepdims", int64_t{0}}}));
}

const GradRegistration grads({{"ConvTranspose", "", grad}});

}  // namespace
}  // namespace tiercel

// ConvInteger, QLinearConv: convolutions of 8-bit integers less their zero points, summed in int32.
#include "ops/movement.h"
#include "ops/numeric.h"
#include "ops/window.h"

namespace tiercel {
namespace {

bool is_byte(DType t) { return t == DType::kInt8 || t == DType::kUInt8; }

int32_t byte_at(const void* p, DType t, int64_t i) {
  return t == DType::kInt8 ? static_cast<const int8_t*>(p)[i] : static_cast<const uint8_t*>(p)[i];
}

struct Form {
  int x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias;
};
constexpr Form kInteger{0, -1, 2, 1, -1, 3, -1, -1, -1};
constexpr Form kLinear{0, 1, 2, 3, 4, 5, 6, 7, 8};

// One number, or one for each output channel.
void check_channels(const InferContext& ctx, int i, Dim channels) {
  if (i < 0 || !ctx.has_input(i) || !ctx.ranked(i)) return;
  const Shape& s = ctx.shape(i);
  if (!s.known() || s.count() == 1) return;
  ctx.check(s.rank() == 1, "input ", i, " should be a number or a vector, got ", s);
  unify(ctx, s[0], channels, "the length of a parameter of W and the output channels");
}

template <Form form> void infer(InferContext& ctx) {
  const Type &x = ctx.type(form.x), &w = ctx.type(form.w);
  for (int i : {form.x, form.w}) ctx.check(is_byte(ctx.dtype(i)), "input ", i, " should be int8 or uint8, got ", dtype_name(ctx.dtype(i)));
  for (auto [zero, operand] : {std::pair{form.x_zero, form.x}, {form.w_zero, form.w}})
    if (ctx.has_input(zero)) ctx.check(ctx.dtype(zero) == ctx.dtype(operand), "a zero point should have the type of its operand");
  DType y = DType::kInt32;
  if (form.y_zero >= 0) {
    y = ctx.dtype(form.y_zero);
    ctx.check(is_byte(y), "the zero point of the result should be int8 or uint8, got ", dtype_name(y));
    for (int i : {form.x_scale, form.w_scale, form.y_scale}) ctx.check(ctx.dtype(i) == DType::kFloat, "input ", i, " should be float");
    if (ctx.has_input(form.bias)) ctx.check(ctx.dtype(form.bias) == DType::kInt32, "B should be int32");
  }
  for (int i : {form.x_scale, form.x_zero, form.y_scale, form.y_zero})
    if (i >= 0 && ctx.has_input(i) && ctx.ranked(i) && ctx.shape(i).known())
      ctx.check(ctx.shape(i).count() == 1, "input ", i, " should be one number, got ", ctx.shape(i));
  if (!x.ranked || !w.ranked) return ctx.set_output(0, Type::tensor(y));
  const int rank = x.shape.rank();
  ctx.check(rank >= 3 && w.shape.rank() == rank, "X and W should have the same rank, of at least 3");
  const int64_t groups = ctx.node.attr_int("group", 1);
  ctx.check(groups >= 1, "group should be at least 1, is ", groups);
  if (!is_symbol(w.shape[0])) ctx.check(w.shape[0] % groups == 0, "the ", w.shape[0], " output channels do not divide into ", groups, " groups");
  int64_t channels = 0;
  if (!is_symbol(w.shape[1]) && !is_symbol(x.shape[1]))
    ctx.check(!__builtin_mul_overflow(w.shape[1], groups, &channels) && channels == x.shape[1], "X has ", x.shape[1], " channels, but W asks for ",
              groups, " x ", w.shape[1]);
  for (int i : {form.w_scale, form.w_zero, form.bias}) check_channels(ctx, i, w.shape[0]);
  Shape out = x.shape;
  out[1] = w.shape[0];
  const bool kernel_known = ctx.node.has("kernel_shape") || std::none_of(w.shape.begin() + 2, w.shape.end(), is_symbol);
  if (kernel_known) {
    Window window = window_of(ctx.node, rank - 2, w.shape.span().subspan(2));
    for (int a = 0; a < rank - 2; ++a) {
      out[2 + a] = window.slide(a, x.shape[2 + a], ctx.symbols());
      ctx.check(is_symbol(out[2 + a]) || out[2 + a] >= 0, "the kernel spans ", window.reach(a), " pixels of spatial axis ", a, ", the padded input has ",
                x.shape[2 + a] + window.begin[a] + window.end[a]);
    }
  } else {
    for (int a = 2; a < rank; ++a) out[a] = ctx.fresh();
  }
  ctx.set_output(0, y, out);
}

// For each output pixel and tap: the pixels of one window in x, or -1 in the padding.
template <class F> void for_taps(const Window& w, const int64_t* at, const Shape& x, F f) {
  const int64_t taps = w.taps();
  for (int64_t t = 0; t < taps; ++t) {
    int64_t rest = t, index[kMaxRank], from = 0;
    for (int a = w.rank - 1; a >= 0; --a) {
      index[a] = rest % w.kernel[a];
      rest /= w.kernel[a];
    }
    bool inside = true;
    for (int a = 0; a < w.rank; ++a) {
      const int64_t p = at[a] * w.stride[a] - w.begin[a] + index[a] * w.dilation[a];
      inside = inside && p >= 0 && p < x[2 + a];
      from = from * x[2 + a] + p;
    }
    if (inside) f(t, from);
  }
}

template <Form form> void prepare(PrepareContext& ctx) {
  const Shape x = ctx.shape(form.x), weights = ctx.shape(form.w), y = ctx.out_shape(0);
  Window window = window_of(ctx.node, x.rank() - 2, weights.span().subspan(2));
  for (int a = 0; a < window.rank; ++a) window.slide(a, x[2 + a]);
  const DType tx = ctx.dtype(form.x), tw = ctx.dtype(form.w), ty = ctx.out_dtype(0);
  const auto present = [&](int i) { return i >= 0 && ctx.has_input(i) ? i : -1; };
  const int x_zero = present(form.x_zero), w_zero = present(form.w_zero), bias = present(form.bias);
  const bool many_zeros = w_zero >= 0 && ctx.shape(w_zero).count() > 1, many_scales = form.w_scale >= 0 && ctx.shape(form.w_scale).count() > 1;
  const int64_t groups = ctx.node.attr_int("group", 1), outputs = weights[0], in_group = weights[1], taps = window.taps();
  const int64_t per_group = outputs / groups, space = y.count(2, y.rank()), plane = x.count(2, x.rank());
  ctx.cost(2 * static_cast<double>(y.count()) * static_cast<double>(in_group * taps), static_cast<double>(x.count() + weights.count() + 4 * y.count()));
  ctx.run([=](const Args& a, Worker& w) {
    const int32_t zx = x_zero < 0 ? 0 : byte_at(a.in(x_zero), tx, 0);
    w.parallel_for(y[0] * outputs * space, 256, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t pixel = i % space, o = i / space % outputs, n = i / space / outputs, c0 = o / std::max<int64_t>(per_group, 1) * in_group;
        int64_t at[kMaxRank], rest = pixel;
        for (int k = window.rank - 1; k >= 0; --k) {
          at[k] = rest % y[2 + k];
          rest /= y[2 + k];
        }
        const int32_t zw = w_zero < 0 ? 0 : byte_at(a.in(w_zero), tw, many_zeros ? o : 0);
        uint32_t sum = bias < 0 ? 0 : static_cast<uint32_t>(a.in<int32_t>(bias)[o]);
        for_taps(window, at, x, [&](int64_t t, int64_t from) {
          for (int64_t c = 0; c < in_group; ++c)
            sum += static_cast<uint32_t>((byte_at(a.in(form.x), tx, (n * x[1] + c0 + c) * plane + from) - zx) *
                                         (byte_at(a.in(form.w), tw, (o * in_group + c) * taps + t) - zw));
        });
        if (form.y_zero < 0) {
          a.out<int32_t>(0)[i] = static_cast<int32_t>(sum);
          continue;
        }
        const float scale = *a.in<float>(form.x_scale) * a.in<float>(form.w_scale)[many_scales ? o : 0] / *a.in<float>(form.y_scale);
        const double low = ty == DType::kInt8 ? -128 : 0, zero = byte_at(a.in(form.y_zero), ty, 0);
        const double v = std::nearbyint(static_cast<double>(static_cast<int32_t>(sum)) * static_cast<double>(scale) + zero);
        a.out<uint8_t>(0)[i] = static_cast<uint8_t>(static_cast<int32_t>(std::isnan(v) ? low : std::clamp(v, low, low + 255)));
      }
    });
  });
}

const OpRegistration rows({
    {"ConvInteger", "", 10, infer<kInteger>, prepare<kInteger>},
    {"QLinearConv", "", 10, infer<kLinear>, prepare<kLinear>},
});

}  // namespace
}  // namespace tiercel

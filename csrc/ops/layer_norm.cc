// LayerNormalization, RMSNormalization and their forms with a residual addition:
//   com.microsoft  SimplifiedLayerNormalization, SkipLayerNormalization, SkipSimplifiedLayerNormalization
//   ai.tiercel     LayerNormalization (x, scale?, bias?), RMSNormalization (x, scale?): num_axes axes from `axis` on (0: all)
//                  SkipLayerNormalization (x, skip, scale?, bias?, shift?) -> y, sum    u = x + skip + shift, y = norm(u)
//                  SkipRMSNormalization (x, skip, scale?) -> y, sum
// Attributes axis (-1: the first of the normalised axes) and epsilon.
#include "kernels/norm/norm.h"

#include "ops/grad.h"
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

// Where an operator has its operands and results; -1: nowhere.
struct Form {
  bool rms;
  int skip, scale, bias, shift;
  int mean, rstd, sum;
  float epsilon;
};
constexpr Form kLayerNorm{false, -1, 1, 2, -1, 1, 2, -1, 1e-5f};
constexpr Form kRmsNorm{true, -1, 1, -1, -1, -1, -1, -1, 1e-5f};
constexpr Form kSimplified{true, -1, 1, -1, -1, -1, 1, -1, 1e-5f};
constexpr Form kSkip{false, 1, 2, 3, 4, 1, 2, 3, 1e-12f};
constexpr Form kSkipSimplified{true, 1, 2, -1, 3, 1, 2, 3, 1e-12f};
constexpr Form kTiercel{false, -1, 1, 2, -1, -1, -1, -1, 1e-5f};
constexpr Form kTiercelRms{true, -1, 1, -1, -1, -1, -1, -1, 1e-5f};
constexpr Form kTiercelSkip{false, 1, 2, 3, 4, -1, -1, 1, 1e-5f};
constexpr Form kTiercelSkipRms{true, 1, 2, -1, -1, -1, -1, 1, 1e-5f};

// ai.tiercel: axes inside a shape, whose scale and bias are [n] along them.
bool is_inner(const Node& node, int rank) {
  const int64_t axes = node.domain == kTiercelDomain ? node.attr_int("num_axes", 0) : 0;
  return axes > 0 && normalize_axis(node.attr_int("axis", -1), rank) + axes < rank;
}

template <Form form> void infer(InferContext& ctx) {
  check_real(ctx, 0);
  const Type& x = ctx.type(0);
  const bool rms_onnx = form.rms && form.skip < 0 && ctx.node.is("RMSNormalization");
  const DType y = rms_onnx ? ctx.dtype(form.scale) : x.dtype;
  Type out = x;
  out.dtype = y;
  ctx.set_output(0, out);
  const auto stash = static_cast<DType>(ctx.node.attr_int("stash_type", static_cast<int>(DType::kFloat)));
  if (form.mean >= 0 || form.rstd >= 0) ctx.check(is_real(stash), "stash_type ", static_cast<int>(stash), " is not a float type");
  for (int i : {form.scale, form.bias, form.shift, form.skip})
    if (i >= 0 && ctx.has_input(i)) check_real(ctx, i);
  if (form.sum >= 0) ctx.set_output(form.sum, x);
  for (int i : {form.mean, form.rstd}) if (i >= 0) ctx.set_output(i, Type::tensor(stash));
  if (!x.ranked) return;
  const int rank = x.shape.rank();
  const int axis = ctx.axis(ctx.node.attr_int("axis", -1), rank);
  if (is_inner(ctx.node, rank)) {
    ctx.check(form.skip < 0, "normalises the last axes only");
    for (int i : {form.scale, form.bias})
      if (i >= 0 && ctx.has_input(i) && ctx.ranked(i)) ctx.check(ctx.shape(i).rank() == 1, "input ", i, " should be 1-D");
    return;
  }
  for (int i : {form.scale, form.bias, form.shift, form.skip}) {  // they broadcast to x, never the other way
    if (i < 0 || !ctx.has_input(i) || !ctx.ranked(i)) continue;
    const Shape& s = ctx.shape(i);
    bool fits = s.rank() <= rank;
    for (int k = 0; fits && k < s.rank(); ++k) {
      const Dim d = s[k], to = x.shape[rank - s.rank() + k];
      fits = d == 1 || is_symbol(d) || is_symbol(to) || d == to;
    }
    ctx.check(fits, "input ", i, " of shape ", s, " does not broadcast to ", x.shape);
  }
  Shape stat = x.shape;
  for (int i = axis; i < rank; ++i) stat[i] = 1;
  for (int i : {form.mean, form.rstd}) if (i >= 0) ctx.set_output(i, stash, stat);
}

// Strides of `from` broadcast to the shape `to`.
Strides broadcast_strides(const Shape& from, const Shape& to) {
  Strides s{};
  int64_t stride = 1;
  for (int i = from.rank() - 1; i >= 0; --i) {
    s[static_cast<size_t>(to.rank() - from.rank() + i)] = from[i] == 1 ? 0 : stride;
    stride *= from[i];
  }
  return s;
}

// An operand read at any element of x.
template <class T> struct Operand {
  const void* data = nullptr;
  bool single = false;  // float beside a double x
  Strides strides{};
  double at(const Shape& x, int64_t i) const {
    int64_t offset = 0;
    for (int k = x.rank() - 1; k >= 0; --k) {
      offset += i % x[k] * strides[static_cast<size_t>(k)];
      i /= x[k];
    }
    return single ? static_cast<const float*>(data)[offset] : static_cast<const T*>(data)[offset];
  }
};

// Any broadcast, any mix of float and double: plain loops.
template <class T, Form form> void prepare_plain(PrepareContext& ctx, int64_t rows, int64_t n, float epsilon) {
  struct Input { int index; bool single; Strides strides; };
  std::vector<Input> inputs;
  const Shape shape = ctx.shape(0);
  for (int i : {form.skip, form.shift, form.scale, form.bias})
    inputs.push_back(i >= 0 && ctx.has_input(i) ? Input{i, ctx.dtype(i) == DType::kFloat, broadcast_strides(ctx.shape(i), shape)} : Input{-1, false, {}});
  std::vector<bool> single_out;
  for (int i = 0; i < ctx.num_outputs(); ++i) single_out.push_back(ctx.has_output(i) && ctx.out_dtype(i) == DType::kFloat);
  const bool x_single = ctx.dtype(0) == DType::kFloat;
  ctx.run([=](const Args& a, Worker& w) {
    Operand<T> in[4];
    for (size_t k = 0; k < 4; ++k)
      if (inputs[k].index >= 0) in[k] = {a.in(inputs[k].index), inputs[k].single, inputs[k].strides};
    const auto put = [&](int output, int64_t i, double v) {
      if (output < 0 || output >= static_cast<int>(single_out.size()) || !a.out(output)) return;
      if (single_out[static_cast<size_t>(output)]) a.out<float>(output)[i] = static_cast<float>(v);
      else a.out<T>(output)[i] = static_cast<T>(v);
    };
    w.parallel_for(rows, grain_for(n), [&](int64_t b, int64_t e) {
      for (int64_t r = b; r < e; ++r) {
        const auto u = [&](int64_t i) {
          const double x = x_single ? a.in<float>(0)[i] : a.in<T>(0)[i];
          return x + (in[0].data ? in[0].at(shape, i) : 0) + (in[1].data ? in[1].at(shape, i) : 0);
        };
        double mean = 0, square = 0;
        if (!form.rms) {
          for (int64_t i = r * n; i < (r + 1) * n; ++i) mean += u(i);
          mean /= static_cast<double>(n);
        }
        for (int64_t i = r * n; i < (r + 1) * n; ++i) square += (u(i) - mean) * (u(i) - mean);
        const double rstd = 1 / std::sqrt(square / static_cast<double>(n) + epsilon);
        for (int64_t i = r * n; i < (r + 1) * n; ++i) {
          const double v = u(i);
          put(form.sum, i, v);
          put(0, i, (v - mean) * rstd * (in[2].data ? in[2].at(shape, i) : 1) + (in[3].data ? in[3].at(shape, i) : 0));
        }
        put(form.mean, r, mean);
        put(form.rstd, r, rstd);
      }
    });
  });
}

// Does the operand lie as [n] along the normalised axes?
bool along_rows(const Shape& s, const Shape& x, int axis) {
  int k = 0;
  while (k < s.rank() && s[k] == 1 && s.rank() - k > x.rank() - axis) ++k;
  if (s.rank() - k != x.rank() - axis) return false;
  for (int i = k; i < s.rank(); ++i) if (s[i] != x[axis + i - k]) return false;
  return true;
}

// Along axes inside the shape: columns.
template <Form form> void prepare_columns(PrepareContext& ctx, int axis) {
  const Shape& x = ctx.shape(0);
  const int end = axis + static_cast<int>(ctx.node.attr_int("num_axes", 0));
  const int64_t outer = x.count(0, axis), n = x.count(axis, end), inner = x.count(end, x.rank());
  const float epsilon = ctx.node.attr_float("epsilon", form.epsilon);
  const int scale = ctx.has_input(1) ? 1 : -1, bias = ctx.has_input(2) ? 2 : -1;
  for (int i = 0; i < ctx.num_inputs(); ++i) {
    if (ctx.has_input(i) && ctx.dtype(i) != DType::kFloat) ctx.fail("normalises float along inner axes only");
    if (i && ctx.has_input(i) && ctx.shape(i).count() != n) ctx.fail("scale and bias should have ", n, " elements");
  }
  const double count = static_cast<double>(x.count());
  ctx.cost(8 * count, 8 * count);
  ctx.inplace(0, 0);
  const int64_t fit = 65536 / std::max<int64_t>(n, 1) / 64 * 64;  // a strip is passed three times: it stays in cache
  const int64_t strip = std::clamp<int64_t>(fit, 64, kColumnNormStrip), strips = ceil_div(inner, strip);
  ctx.run([=](const Args& a, Worker& w) {
    w.parallel_for(outer * strips, grain_for(n * std::min(strip, inner), 8192), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const int64_t c = i % strips * strip, at = i / strips * n * inner + c;
        const ColumnNorm k{.x = a.in<float>(0) + at, .scale = scale < 0 ? nullptr : a.in<float>(scale),
                           .bias = bias < 0 ? nullptr : a.in<float>(bias), .y = a.out<float>(0) + at, .n = n, .stride = inner,
                           .cols = std::min(strip, inner - c), .epsilon = epsilon};
        (form.rms ? norm().rms_norm_columns : norm().layer_norm_columns)(k);
      }
    });
  });
}

template <Form form> void prepare(PrepareContext& ctx) {
  const Shape& x = ctx.shape(0);
  const int axis = normalize_axis(ctx.node.attr_int("axis", -1), x.rank());
  if (is_inner(ctx.node, x.rank())) return prepare_columns<form>(ctx, axis);
  const int64_t rows = x.count(0, axis), n = x.count(axis, x.rank());
  const float epsilon = ctx.node.attr_float("epsilon", form.epsilon);
  const double count = static_cast<double>(rows * n);
  ctx.cost(8 * count, 4 * count * (2 + (form.skip >= 0) + (form.sum >= 0 && ctx.has_output(form.sum))));
  const auto present = [&](int i) { return i >= 0 && ctx.has_input(i); };
  bool fast = true;
  for (int i = 0; i < ctx.num_inputs(); ++i) fast = fast && (!ctx.has_input(i) || ctx.dtype(i) == DType::kFloat);
  for (int i = 0; i < ctx.num_outputs(); ++i) fast = fast && (!ctx.has_output(i) || ctx.out_dtype(i) == DType::kFloat);
  for (int i : {form.scale, form.bias, form.shift}) fast = fast && (!present(i) || along_rows(ctx.shape(i), x, axis));
  int64_t skip_rows = rows;  // the residual may repeat over leading axes
  if (present(form.skip)) {
    const Shape& s = ctx.shape(form.skip);
    skip_rows = n ? s.count() / n : rows;
    int k = 0;
    while (k < s.rank() && s[k] == 1) ++k;
    for (int i = k; i < s.rank(); ++i) fast = fast && s[i] == x[x.rank() - s.rank() + i];
    fast = fast && skip_rows > 0 && s.rank() - k >= x.rank() - axis;
  }
  if (!fast) return prepare_plain<double, form>(ctx, rows, n, epsilon);
  ctx.inplace(0, 0);
  const auto result = [&](int i) { return i >= 0 && ctx.has_output(i) ? i : -1; };
  const auto operand = [&](int i) { return present(i) ? i : -1; };
  Form f = form;  // without what this node leaves out
  for (int* i : {&f.skip, &f.scale, &f.bias, &f.shift}) *i = operand(*i);
  for (int* i : {&f.mean, &f.rstd, &f.sum}) *i = result(*i);
  if (f.sum >= 0 && f.skip >= 0 && skip_rows == rows) ctx.inplace(f.sum, f.skip);
  ctx.run([=](const Args& a, Worker& w) {
    const auto in = [&](int i) { return i < 0 ? nullptr : a.in<float>(i); };
    const auto out = [&](int i) { return i < 0 ? nullptr : a.out<float>(i); };
    w.parallel_for(rows, grain_for(n, 8192), [&](int64_t b, int64_t e) {
      while (b < e) {
        const int64_t first = b % skip_rows, m = std::min(e - b, skip_rows - first);
        RowNorm k{.x = in(0) + b * n, .y = out(0) + b * n, .n = n, .epsilon = epsilon};
        if (const float* p = in(f.skip)) k.skip = p + first * n;
        k.shift = in(f.shift);
        k.scale = in(f.scale);
        k.bias = in(f.bias);
        if (float* p = out(f.sum)) k.sum = p + b * n;
        if (float* p = out(f.mean)) k.mean = p + b;
        if (float* p = out(f.rstd)) k.rstd = p + b;
        (form.rms ? norm().rms_norm : norm().layer_norm)(k, m);
        b += m;
      }
    });
  });
}

const OpRegistration rows({
    {"LayerNormalization", "", 1, infer<kLayerNorm>, half_as_float<prepare<kLayerNorm>>},
    {"RMSNormalization", "", 23, infer<kRmsNorm>, half_as_float<prepare<kRmsNorm>>},
    {"SimplifiedLayerNormalization", "", 1, infer<kSimplified>, half_as_float<prepare<kSimplified>>},
    {"SimplifiedLayerNormalization", kMicrosoftDomain, 1, infer<kSimplified>, half_as_float<prepare<kSimplified>>},
    {"SkipLayerNormalization", kMicrosoftDomain, 1, infer<kSkip>, half_as_float<prepare<kSkip>>},
    {"SkipSimplifiedLayerNormalization", kMicrosoftDomain, 1, infer<kSkipSimplified>, half_as_float<prepare<kSkipSimplified>>},
    {"LayerNormalization", kTiercelDomain, 1, infer<kTiercel>, half_as_float<prepare<kTiercel>>},
    {"RMSNormalization", kTiercelDomain, 1, infer<kTiercelRms>, half_as_float<prepare<kTiercelRms>>},
    {"SkipLayerNormalization", kTiercelDomain, 1, infer<kTiercelSkip>, half_as_float<prepare<kTiercelSkip>>},
    {"SkipRMSNormalization", kTiercelDomain, 1, infer<kTiercelSkipRms>, half_as_float<prepare<kTiercelSkipRms>>},
});

template <Form form> void grad(GradContext& c) {
  c.check(!c.dy(1) && !c.dy(2), "that of the mean and the deviation is not there");
  const std::vector<Value*> d = c.w.ops("LayerNormGrad", {c.dy(), c.x(0), c.x(form.scale)}, 3,
                                        {{"axis", c.node.attr_int("axis", -1)}, {"epsilon", c.node.attr_float("epsilon", form.epsilon)},
                                         {"rms", int64_t{form.rms}}}, kTiercelDomain);
  c.set(0, d[0]);
  c.set(form.scale, d[1]);
  if (form.bias >= 0) c.set(form.bias, d[2]);
}

// With a residual: u = x + skip + shift is an output, or made one; what comes back to u goes to all three.
template <Form form> void grad_skip(GradContext& c) {
  GraphWriter& w = c.w;
  for (int i : {form.mean, form.rstd}) c.check(!c.dy(i), "that of the mean and the deviation is not there");
  Value *du = c.dy(form.sum), *dy = c.dy(), *scale = c.x(form.scale);
  const float epsilon = c.node.attr_float("epsilon", form.epsilon);
  if (dy) {
    Value* const u = c.made_output(form.sum);
    const bool row = scale && w.ranked(scale) && w.ranked(u) && w.shape(scale).rank() == 1 && w.shape(scale)[0] == w.shape(u).back();
    std::vector<Value*> in{scale && !row ? w.mul(dy, scale) : dy, u};
    if (row) in.push_back(scale);
    const std::vector<Value*> d = w.ops("LayerNormGrad", std::move(in), 3, {{"axis", int64_t{-1}}, {"epsilon", epsilon}, {"rms", int64_t{form.rms}}}, kTiercelDomain);
    du = du ? w.add(du, d[0]) : d[0];
    if (row) {
      c.set(form.scale, d[1]);
    } else if (c.wants(form.scale)) {  // it is spread over x, or may be
      const auto mean = [&](Value* v) { return w.op("ReduceMean", {v, w.ints({-1})}, {{"keepdims", int64_t{1}}}); };
      Value* const x = form.rms ? u : w.sub(u, mean(u));
      c.set_summed(form.scale, w.mul(dy, w.div(x, w.op("Sqrt", {w.shift(mean(w.mul(x, x)), epsilon)}))));
    }
    if (form.bias >= 0 && c.wants(form.bias)) c.set(form.bias, row && w.same_shape(scale, c.x(form.bias)) ? d[2] : w.sum_to(dy, c.x(form.bias)));
  }
  if (!du) return;
  for (int i : {0, form.skip, form.shift}) if (i >= 0) c.set_summed(i, du);
}

const GradRegistration grads({
    {"SimplifiedLayerNormalization", kMicrosoftDomain, grad<kSimplified>}, {"SkipLayerNormalization", kMicrosoftDomain, grad_skip<kSkip>},
    {"SkipSimplifiedLayerNormalization", kMicrosoftDomain, grad_skip<kSkipSimplified>},
    {"LayerNormalization", "", grad<kLayerNorm>}, {"RMSNormalization", "", grad<kRmsNorm>}, {"SimplifiedLayerNormalization", "", grad<kSimplified>},
});

}  // namespace
}  // namespace tiercel

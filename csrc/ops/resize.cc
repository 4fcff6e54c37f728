// Resize (opset 10 and up) and Upsample: nearest, linear and cubic interpolation along any axes.
#include "ops/grad.h"
#include "ops/numeric.h"
#include "ops/resize_taps.h"

#include <cmath>

#include "base/float_formats.h"
#include "kernels/resize/resize.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

using enum ResizeMode::Interpolation;

// ---- What is asked for

bool upsamples(const Node& node) { return node.op_type == "Upsample" || (node.domain == kTiercelDomain && node.has("upsample")); }

ResizeMode mode_of(const Node& node) {
  ResizeMode m;
  const std::string name = node.attr_string("mode", "nearest");
  if (name == "linear" || name == "bilinear") m.interpolation = kLinear;
  else if (name == "cubic") m.interpolation = kCubic;
  else if (name != "nearest") fail(Code::kInvalidGraph, node.label(), ": mode '", name, "' is not known");
  if (upsamples(node) || node.opset < 11) {
    m.coordinates = "asymmetric";
    m.nearest = "legacy";
    return m;
  }
  m.coordinates = node.attr_string("coordinate_transformation_mode", "half_pixel");
  m.nearest = node.attr_string("nearest_mode", "round_prefer_floor");
  auto known = [&](const std::string& what, std::initializer_list<const char*> names) {
    if (std::find(names.begin(), names.end(), what) == names.end())
      fail(Code::kInvalidGraph, node.label(), ": '", what, "' is not a known coordinate_transformation_mode or nearest_mode");
  };
  known(m.coordinates, {"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
                        "tf_half_pixel_for_nn", "tf_crop_and_resize"});
  known(m.nearest, {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"});
  m.antialias = node.attr_int("antialias", 0) != 0 && m.interpolation != kNearest;
  m.exclude_outside = node.attr_int("exclude_outside", 0) != 0;
  m.cubic_a = node.attr_float("cubic_coeff_a", -0.75f);
  m.extrapolation = node.attr_float("extrapolation_value", 0);
  return m;
}

// Extents, scales and crops of all axes.
struct Request {
  Shape out;
  double scale[kMaxRank], crop_start[kMaxRank], crop_end[kMaxRank];
};

// Number of elements of an input that may be empty, as older exporters leave what they do not use.
template <class Context> bool given(const Context& ctx, int i) {
  if (!ctx.has_input(i)) return false;
  if (const Tensor* t = ctx.constant(i)) return t->count() != 0;
  if constexpr (requires { ctx.ranked(i); })
    return !(ctx.ranked(i) && ctx.shape(i).known() && ctx.shape(i).count() == 0);
  else return ctx.shape(i).count() != 0;
}

// nullopt: not known yet. Symbols stand where extents are unknown.
template <class Context> std::optional<Request> request_of(const Context& ctx, const Shape& in) {
  const Node& node = ctx.node;
  Request r;
  r.out = in;
  std::vector<int64_t> axes;
  if (node.has("axes")) {
    bool seen[kMaxRank] = {};
    for (int64_t a : node.attr_ints("axes")) {
      const int axis = normalize_axis(a, in.rank());
      if (axis < 0 || seen[axis]) ctx.fail("axis ", a, " in 'axes' is outside the rank ", in.rank(), " or stands there twice");
      seen[axis] = true;
      axes.push_back(axis);
    }
  } else {
    for (int i = 0; i < in.rank(); ++i) axes.push_back(i);
  }
  for (int i = 0; i < in.rank(); ++i) { r.scale[i] = 1; r.crop_start[i] = 0; r.crop_end[i] = 1; }
  const bool old = upsamples(node) || node.opset < 11;
  if (!old && given(ctx, 1) && node.attr_string("coordinate_transformation_mode", "") == "tf_crop_and_resize") {
    if (!ctx.constant(1)) return std::nullopt;
    const auto roi = ctx.constant(1)->doubles();
    if (roi.size() != 2 * axes.size()) ctx.fail("roi has ", roi.size(), " entries, ", 2 * axes.size(), " are needed");
    for (size_t i = 0; i < axes.size(); ++i) { r.crop_start[axes[i]] = roi[i]; r.crop_end[axes[i]] = roi[axes.size() + i]; }
  }
  if (!old && given(ctx, 3)) {
    const auto sizes = ctx.ints(3);
    if (!sizes) return std::nullopt;
    if (sizes->size() != axes.size()) ctx.fail("sizes has ", sizes->size(), " entries, ", axes.size(), " are needed");
    const std::string policy = node.attr_string("keep_aspect_ratio_policy", "stretch");
    double common = policy == "not_larger" ? INFINITY : 0;
    bool known = true;
    for (size_t i = 0; i < axes.size(); ++i) {
      const int a = static_cast<int>(axes[i]);
      const Dim size = (*sizes)[i];
      if (!is_symbol(size) && (size < 0 || size > INT32_MAX)) ctx.fail("size ", size, " of axis ", a, " is out of range");
      r.out[a] = size;
      if (is_symbol(size) || is_symbol(in[a])) { known = false; continue; }
      r.scale[a] = in[a] ? static_cast<double>(size) / static_cast<double>(in[a]) : 1;
      common = policy == "not_larger" ? std::min(common, r.scale[a]) : std::max(common, r.scale[a]);
    }
    if (policy == "stretch") return r;
    if (policy != "not_larger" && policy != "not_smaller") ctx.fail("keep_aspect_ratio_policy '", policy, "' is not known");
    if (!known) return std::nullopt;
    for (int64_t a : axes) {
      r.scale[a] = common;
      r.out[static_cast<int>(a)] = static_cast<int64_t>(common * static_cast<double>(in[static_cast<int>(a)]) + 0.5);
    }
    return r;
  }
  std::vector<double> scales;
  if (upsamples(node) && node.opset < 7) {
    scales.assign(axes.size(), 1.0);
    if (scales.size() >= 2) {
      scales[scales.size() - 2] = node.attr_float("height_scale", 1);
      scales.back() = node.attr_float("width_scale", 1);
    }
  } else if (upsamples(node) && node.opset < 9) {
    for (float s : node.attr_floats("scales")) scales.push_back(s);
  } else {
    const int i = old ? 1 : 2;
    if (!given(ctx, i)) ctx.fail("neither scales nor sizes are given");
    if (!ctx.constant(i)) return std::nullopt;
    scales = ctx.constant(i)->doubles();
  }
  if (scales.size() != axes.size()) ctx.fail("scales has ", scales.size(), " entries, ", axes.size(), " are needed");
  for (size_t i = 0; i < axes.size(); ++i) {
    const int a = static_cast<int>(axes[i]);
    const double s = scales[i];
    if (!(s > 0) || !std::isfinite(s)) ctx.fail("scale ", s, " of axis ", a, " should be above 0 and finite");
    r.scale[a] = s;
    if (s == 1) continue;
    // In float, as other engines have it: 10 * 0.7f is 7.
    const double size = std::floor(static_cast<double>(static_cast<float>(s) * static_cast<float>(in[a])));
    if (is_symbol(in[a])) continue;
    if (size > INT32_MAX) ctx.fail("scale ", s, " makes axis ", a, " too large");
    r.out[a] = static_cast<int64_t>(size);
  }
  return r;
}

void infer(InferContext& ctx) {
  ctx.input(0);
  mode_of(ctx.node);
  const DType dtype = ctx.dtype(0);
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(dtype));
  const Shape& in = ctx.shape(0);
  auto r = request_of(ctx, in);
  if (!r) return ctx.set_output(0, dtype, fresh_shape(ctx, in.rank()));
  for (int i = 0; i < in.rank(); ++i) {
    if (is_symbol(in[i]) && r->scale[i] != 1) r->out[i] = ctx.fresh();
    else if (in[i] == 0) ctx.check(is_symbol(r->out[i]) || r->out[i] == 0, "axis ", i, " is empty and cannot grow");
    ctx.check(in[i] <= INT32_MAX, "axis ", i, " is too large");
  }
  if (r->out.known()) check_fits(ctx, dtype, r->out);
  const Layout layout = ctx.type(0).layout;
  ctx.check(layout == Layout::kPlain || (r->out[0] == in[0] && r->out[1] == in[1] && r->scale[0] == 1 && r->scale[1] == 1),
            "a blocked tensor is resized along its spatial axes alone");
  ctx.set_output(0, Type::tensor(dtype, r->out, layout));
}

// ---- Nearest: any element type, rows picked by index

void prepare_nearest(PrepareContext& ctx, const ResizeMode& mode, std::vector<ResizeTaps> taps) {
  const Shape in = storage_shape(ctx.shape(0), ctx.layout(0)), out = storage_shape(ctx.out_shape(0), ctx.layout(0));
  const Element e(ctx.dtype(0));
  int last = 0;
  for (int i = 0; i < in.rank(); ++i) if (!taps[static_cast<size_t>(i)].identity) last = i;
  const int64_t inner = in.count(last + 1, in.rank()), width = out[last], rows = out.count(0, last);
  const Strides strides = strides_of(in);
  Tensor outside(ctx.dtype(0), {});
  if (!e.string) {
    const auto v = static_cast<int64_t>(std::nearbyint(mode.extrapolation));
    if (ctx.dtype(0) == DType::kFloat) *outside.as<float>() = static_cast<float>(mode.extrapolation);
    else if (ctx.dtype(0) == DType::kFloat16) *outside.as<Half>() = to_half(static_cast<float>(mode.extrapolation));
    else if (ctx.dtype(0) == DType::kBFloat16) *outside.as<BFloat16>() = to_bfloat16(static_cast<float>(mode.extrapolation));
    else if (ctx.dtype(0) == DType::kDouble) *outside.as<double>() = mode.extrapolation;
    else if (is_integer(ctx.dtype(0)) || ctx.dtype(0) == DType::kBool) outside = Tensor::from_ints(ctx.dtype(0), {}, &v);
    else std::memset(outside.data(), 0, static_cast<size_t>(outside.bytes()));
  }
  move_cost(ctx);
  ctx.run([=, taps = std::move(taps)](const Args& a, Worker& w) {
    const ResizeTaps& row = taps[static_cast<size_t>(last)];
    int size_log = 0;
    while ((int64_t{1} << size_log) < e.size) ++size_log;
    w.parallel_for(rows, move_grain(width * inner * e.size), [&](int64_t begin, int64_t end) {
      int64_t before = -2;  // source of the row before this one
      for (int64_t r = begin; r < end; ++r) {
        int64_t from = 0, t = r;
        for (int k = last - 1; k >= 0 && from >= 0; --k) {
          const ResizeTaps& x = taps[static_cast<size_t>(k)];
          const auto i = static_cast<size_t>(t % out[k]);
          t /= out[k];
          if (!x.outside.empty() && x.outside[i]) from = -1;
          else from += (x.identity ? static_cast<int64_t>(i) : x.index[i]) * strides[static_cast<size_t>(k)];
        }
        char* to = offset(a.out(0), r * width * inner, e);
        if (from < 0) fill_elements(e, to, outside.data(), width * inner);
        else if (from == before) copy_elements(e, to, offset(a.out(0), (r - 1) * width * inner, e), width * inner);
        else if (row.identity) copy_elements(e, to, offset(a.in(0), from, e), width * inner);
        else if (inner == 1 && !e.string) resize_kernels().pick[size_log](offset(a.in(0), from, e), row.index.data(), to, width);
        else if (inner * e.size == 64 && !e.string)  // a block of channels
          for (int64_t i = 0; i < width; ++i)
            std::memcpy(static_cast<char*>(to) + i * 64, offset(a.in(0), from + row.index[static_cast<size_t>(i)] * inner, e), 64);
        else for (int64_t i = 0; i < width; ++i)
          copy_elements(e, offset(to, i * inner, e), offset(a.in(0), from + row.index[static_cast<size_t>(i)] * inner, e), inner);
        if (from >= 0 && from != before && !row.outside.empty())
          for (int64_t i = 0; i < width; ++i)
            if (row.outside[static_cast<size_t>(i)]) fill_elements(e, offset(to, i * inner, e), outside.data(), inner);
        before = from < 0 ? -2 : from;
      }
    });
  });
}

// ---- Weighted: one pass an axis, innermost first, on slabs that stay in cache

template <class T> float widen(T v, float) { if constexpr (std::is_arithmetic_v<T>) return static_cast<float>(v); else return to_float(v); }
template <class T> double widen(T v, double) { return static_cast<double>(v); }
template <class T, class C> T narrow(C v) {
  if constexpr (std::is_same_v<T, Half>) return to_half(v);
  else if constexpr (std::is_same_v<T, BFloat16>) return to_bfloat16(v);
  else if constexpr (std::is_floating_point_v<T>) return static_cast<T>(v);
  else {
    using L = std::numeric_limits<T>;
    const double r = std::nearbyint(static_cast<double>(v));
    if (!(r >= static_cast<double>(L::min()))) return L::min();  // NaN too
    return r >= static_cast<double>(L::max()) ? L::max() : static_cast<T>(r);
  }
}

// One axis: [pre, in, post] -> [pre, out range, post].
template <class C> struct Pass {
  ResizeTaps taps;
  std::vector<C> weight;
  int64_t post = 1;
  C extrapolation;

  void row(const C* in, int64_t first, int64_t i, C* out) const {
    if (!taps.outside.empty() && taps.outside[static_cast<size_t>(i)]) return (void)std::fill_n(out, post, extrapolation);
    const int32_t* index = taps.index.data() + i;
    const C* w = weight.data() + i;
    if constexpr (std::is_same_v<C, float>) {
      resize_kernels().rows_f32(in, first, index, w, taps.out, taps.taps, out, post);
    } else {
      std::fill_n(out, post, C(0));
      for (int t = 0; t < taps.taps; ++t)
        for (int64_t j = 0; j < post; ++j) out[j] += w[t * taps.out] * in[(index[t * taps.out] - first) * post + j];
    }
  }
  // Outputs [begin, end) of the axis; `in` starts at input row `first`.
  void run(const C* in, int64_t first, int64_t begin, int64_t end, C* out) const {
    if (post == 1 && begin == 0 && end == taps.out && first == 0) {
      if constexpr (std::is_same_v<C, float>) {
        resize_kernels().gather_f32(in, taps.index.data(), weight.data(), taps.taps, out, taps.out);
        for (int64_t i = 0; i < taps.out && !taps.outside.empty(); ++i) if (taps.outside[static_cast<size_t>(i)]) out[i] = extrapolation;
        return;
      }
    }
    if constexpr (std::is_same_v<C, float>) {
      if (post <= 64 && begin == 0 && end == taps.out && first == 0 && taps.outside.empty())
        return resize_kernels().columns_f32(in, taps.index.data(), weight.data(), taps.taps, out, taps.out, post);
    }
    for (int64_t i = begin; i < end; ++i) row(in, first, i, out + (i - begin) * post);
  }
};

template <class T, class C> void prepare_weighted(PrepareContext& ctx, const ResizeMode& mode, std::vector<ResizeTaps> taps) {
  const Shape in = storage_shape(ctx.shape(0), ctx.layout(0)), out = storage_shape(ctx.out_shape(0), ctx.layout(0));
  std::vector<Pass<C>> passes;  // outermost first
  int sliced = -1;              // the outermost resized axis: tasks are ranges of its outputs
  for (int i = 0; i < in.rank(); ++i) {
    ResizeTaps& t = taps[static_cast<size_t>(i)];
    if (t.identity) continue;
    if (sliced < 0) sliced = i;
    Pass<C> p;
    p.weight.assign(t.weight.begin(), t.weight.end());
    p.taps = std::move(t);
    p.post = out.count(i + 1, out.rank());
    p.extrapolation = static_cast<C>(mode.extrapolation);
    passes.push_back(std::move(p));
  }
  const Pass<C>& top = passes[0];
  const int64_t outer = in.count(0, sliced), row_in = in.count(sliced + 1, in.rank()), row_out = top.post;
  const int64_t height = top.taps.out;
  int64_t chunk = row_out == 1 ? height : std::min(height, std::max<int64_t>(16, 32768 / row_out));
  const int64_t chunks = ceil_div(height, chunk);
  // Input rows [low, high) that each chunk reads.
  std::vector<std::pair<int64_t, int64_t>> reads;
  int64_t most = 1;
  for (int64_t c = 0; c < chunks; ++c) {
    int64_t low = top.taps.in, high = 0;
    for (int t = 0; t < top.taps.taps; ++t)
      for (int64_t i = c * chunk; i < std::min(height, (c + 1) * chunk); ++i) {
        const int64_t k = top.taps.index[static_cast<size_t>(t * height + i)];
        low = std::min(low, k);
        high = std::max(high, k + 1);
      }
    if (row_out == 1) low = 0;
    reads.push_back({low, high});
    most = std::max(most, high - low);
  }
  int64_t widest = std::max(row_in, row_out), size = row_in;  // of a slab's row, through the passes
  for (size_t k = passes.size(); k-- > 1;) {
    size = size / passes[k].taps.in * passes[k].taps.out;
    widest = std::max(widest, size);
  }
  constexpr bool converts = !std::is_same_v<T, C>;
  const int64_t buffer = round_up(std::max(most * widest, converts ? chunk * row_out : 0), 64);
  if (converts || passes.size() > 1) ctx.workspace(ctx.threads() * 3 * buffer * static_cast<int64_t>(sizeof(C)));
  double flops = 0;
  for (const Pass<C>& p : passes) flops += 2.0 * p.taps.taps * static_cast<double>(out.count());
  ctx.cost(flops, static_cast<double>((in.count() + out.count()) * static_cast<int64_t>(sizeof(T))));
  ctx.run([=, passes = std::move(passes)](const Args& args, Worker& w) {
    C* scratch = args.workspace<C>() ? args.workspace<C>() + w.index() * 3 * buffer : nullptr;
    const Pass<C>& top_pass = passes[0];
    w.parallel_for(outer * chunks, std::max<int64_t>(1, 16384 / std::max<int64_t>(chunk * row_out, 1)), [&](int64_t b, int64_t e) {
      for (int64_t t = b; t < e; ++t) {
        const int64_t o = t / chunks, c = t % chunks, begin = c * chunk, end = std::min(height, begin + chunk);
        const auto [low, high] = reads[static_cast<size_t>(c)];
        const T* source = args.in<T>(0) + (o * top_pass.taps.in + low) * row_in;
        int64_t n = (high - low) * row_in;
        const C* from;
        C* next = scratch;
        if constexpr (converts) {
          for (int64_t i = 0; i < n; ++i) next[i] = widen(source[i], C{});
          from = next;
          next += buffer;
        } else from = source;
        for (size_t k = passes.size(); k-- > 1;) {
          const Pass<C>& p = passes[k];
          const int64_t in_run = p.taps.in * p.post, out_run = p.taps.out * p.post, runs = n / in_run;
          for (int64_t r = 0; r < runs; ++r) p.run(from + r * in_run, 0, 0, p.taps.out, next + r * out_run);
          n = runs * out_run;
          from = next;
          next = next == scratch ? scratch + buffer : next == scratch + buffer ? scratch + 2 * buffer : scratch;
        }
        T* to = args.out<T>(0) + (o * height + begin) * row_out;
        if constexpr (converts) {
          top_pass.run(from, low, begin, end, next);
          for (int64_t i = 0; i < (end - begin) * row_out; ++i) to[i] = narrow<T>(next[i]);
        } else top_pass.run(from, low, begin, end, to);
      }
    });
  });
}

void prepare(PrepareContext& ctx) {
  const Shape& in = ctx.shape(0);
  const ResizeMode mode = mode_of(ctx.node);
  const auto request = request_of(ctx, in);
  if (!request) ctx.fail("scales or sizes should be known by now");
  if (ctx.out_shape(0).count() == 0) return ctx.run([](const Args&, Worker&) {});
  std::vector<ResizeTaps> taps;
  bool identity = true;
  for (int i = 0; i < in.rank(); ++i) {
    taps.push_back(resize_taps(mode, in[i], ctx.out_shape(0)[i], request->scale[i], request->crop_start[i], request->crop_end[i]));
    identity = identity && taps.back().identity;
  }
  if (identity) return ctx.alias(0, 0);
  taps.emplace_back().identity = true;  // the lanes of blocks
  if (mode.interpolation == kNearest) return prepare_nearest(ctx, mode, std::move(taps));
  switch (ctx.dtype(0)) {
    case DType::kFloat: return prepare_weighted<float, float>(ctx, mode, std::move(taps));
    case DType::kFloat16: return prepare_weighted<Half, float>(ctx, mode, std::move(taps));
    case DType::kBFloat16: return prepare_weighted<BFloat16, float>(ctx, mode, std::move(taps));
    case DType::kDouble: return prepare_weighted<double, double>(ctx, mode, std::move(taps));
    case DType::kUInt8: return prepare_weighted<uint8_t, double>(ctx, mode, std::move(taps));
    case DType::kInt8: return prepare_weighted<int8_t, double>(ctx, mode, std::move(taps));
    case DType::kUInt16: return prepare_weighted<uint16_t, double>(ctx, mode, std::move(taps));
    case DType::kInt16: return prepare_weighted<int16_t, double>(ctx, mode, std::move(taps));
    case DType::kUInt32: return prepare_weighted<uint32_t, double>(ctx, mode, std::move(taps));
    case DType::kInt32: return prepare_weighted<int32_t, double>(ctx, mode, std::move(taps));
    case DType::kUInt64: return prepare_weighted<uint64_t, double>(ctx, mode, std::move(taps));
    case DType::kInt64: return prepare_weighted<int64_t, double>(ctx, mode, std::move(taps));
    default: ctx.fail("elements of this type can be resized in mode 'nearest' alone");
  }
}

// ---- ai.tiercel.ResizeGrad (dy, roi, scales, sizes, shape): each result's gradient goes where its taps looked, an axis at a time ----

void infer_grad(InferContext& ctx) {
  check_real(ctx, 0);
  const auto ints = ctx.ints(4);
  ctx.set_output(0, ints ? Type::tensor(ctx.dtype(0), Shape{std::span<const Dim>(*ints)}) : Type::tensor(ctx.dtype(0)));
}

template <class T> void back_along(const ResizeTaps& taps, int64_t inner, const T* dy, T* dx) {
  std::fill_n(dx, taps.in * inner, T(0));
  for (int64_t o = 0; o < taps.out; ++o) {
    if (!taps.outside.empty() && taps.outside[static_cast<size_t>(o)]) continue;
    for (int64_t t = 0; t < taps.taps; ++t) {
      const size_t at = static_cast<size_t>(t * taps.out + o);
      const T weight = static_cast<T>(taps.weight[at]);
      T* const to = dx + taps.index[at] * inner;
      for (int64_t k = 0; k < inner; ++k) to[k] += weight * dy[o * inner + k];
    }
  }
}

template <class T> void make_grad(PrepareContext& ctx, std::vector<ResizeTaps> taps) {
  const Shape in = ctx.out_shape(0), out = ctx.shape(0);
  int64_t most = 0, size = out.count();
  std::vector<int> axes;
  for (int i = 0; i < in.rank(); ++i) {
    if (taps[static_cast<size_t>(i)].identity) continue;
    axes.push_back(i);
    size = size / out[i] * in[i];
    most = std::max(most, size);
  }
  const int64_t half = round_up(most * static_cast<int64_t>(sizeof(T)), 64);
  ctx.workspace(2 * half);
  ctx.cost(8 * static_cast<double>(out.count()), 16 * static_cast<double>(out.count()));
  ctx.run([=, taps = std::move(taps)](const Args& a, Worker& w) {
    Shape now = out;
    const T* from = a.in<T>(0);
    for (size_t k = 0; k < axes.size(); ++k) {
      const int axis = axes[k];
      const ResizeTaps& t = taps[static_cast<size_t>(axis)];
      const int64_t outer = now.count(0, axis), inner = now.count(axis + 1, now.rank());
      T* const to = k + 1 == axes.size() ? a.out<T>(0) : reinterpret_cast<T*>(a.workspace<char>() + static_cast<int64_t>(k % 2) * half);
      if (k) w.barrier();
      w.parallel_for(outer, grain_for(t.out * inner * 2), [&](int64_t b, int64_t e) {
        for (int64_t o = b; o < e; ++o) back_along(t, inner, from + o * t.out * inner, to + o * t.in * inner);
      });
      now[axis] = t.in;
      from = to;
    }
  });
}

void prepare_grad(PrepareContext& ctx) {
  const Shape &in = ctx.out_shape(0), &out = ctx.shape(0);
  const auto request = request_of(ctx, in);
  if (!request) ctx.fail("scales or sizes should be known by now");
  if (in.rank() != out.rank()) ctx.fail("dy and the shape should have one rank");
  if (out.count() == 0 || in.count() == 0)
    return ctx.run([n = bytes_of(ctx.out_dtype(0), in.count())](const Args& a, Worker& w) {
      if (w.index() == 0 && n) std::memset(a.out(0), 0, static_cast<size_t>(n));
    });
  std::vector<ResizeTaps> taps;
  bool identity = true;
  for (int i = 0; i < in.rank(); ++i) {
    taps.push_back(resize_taps(mode_of(ctx.node), in[i], out[i], request->scale[i], request->crop_start[i], request->crop_end[i]));
    identity = identity && taps.back().identity;
  }
  if (identity) return ctx.alias(0, 0);
  if (ctx.dtype(0) == DType::kDouble) make_grad<double>(ctx, std::move(taps));
  else make_grad<float>(ctx, std::move(taps));
}

const OpRegistration rows({
    {"Resize", "", 10, infer, prepare, nullptr, kAnyLayout},
    {"Upsample", "", 1, infer, prepare, nullptr, kAnyLayout},
    {"ResizeGrad", kTiercelDomain, 1, infer_grad, half_as_float<prepare_grad>},
});

void grad(GradContext& c) {
  std::vector<Value*> in{c.dy(), c.x(1), c.x(2), c.x(3), c.w.shape_of(c.x(0))};
  Value* const dx = c.w.op("ResizeGrad", in, {}, kTiercelDomain);
  dx->producer->attributes = c.node.attributes;
  dx->producer->opset = c.node.opset;  // their meaning depends on it, and on the operator
  if (upsamples(c.node)) dx->producer->set("upsample", int64_t{1});
  c.set(0, dx);
}
const GradRegistration grads({{"Resize", "", grad}, {"Upsample", "", grad}});

}  // namespace
}  // namespace tiercel

// MaxPool (with Indices), AveragePool, LpPool, MaxUnpool (ONNX). Blocked and plain f32 on the kernels, the rest on plain loops.
#include <algorithm>
#include <cmath>

#include "kernels/pool/pool.h"
#include "kernels/pool/reference.h"
#include "ops/grad.h"
#include "ops/registry.h"
#include "ops/window.h"

namespace tiercel {
namespace {

using reference::Pool;

void check_input(const InferContext& ctx, bool bytes) {
  const DType t = ctx.dtype(0);
  ctx.check(ctx.type(0).is_tensor() && ((is_float(t) && bits_of(t) >= 16) || (bytes && (t == DType::kInt8 || t == DType::kUInt8))),
            bytes ? "X should be float, double, float16, bfloat16, int8 or uint8" : "X should be float, double, float16 or bfloat16");
  if (ctx.ranked(0)) ctx.check(ctx.shape(0).rank() >= 3, "X should have a batch, a channel and at least one spatial axis");
}

template <Pool pool> void infer(InferContext& ctx) {
  check_input(ctx, pool == Pool::kMax);
  if (ctx.has_output(1)) ctx.check(pool == Pool::kMax, "there is one output");
  if (!ctx.ranked(0)) {
    ctx.set_output(0, Type::tensor(ctx.dtype(0)));
    return ctx.set_output(1, Type::tensor(DType::kInt64));
  }
  Shape out = ctx.shape(0);
  Window w = window_of(ctx.node, out.rank() - 2);
  for (int a = 0; a < w.rank; ++a) {
    const Dim in = out[2 + a];
    out[2 + a] = w.slide(a, in, ctx.symbols());
    ctx.check(is_symbol(out[2 + a]) || out[2 + a] >= 0, "the window spans ", w.reach(a), " pixels of spatial axis ", a,
              ", the padded input has ", in + w.begin[a] + w.end[a]);
  }
  ctx.set_output(0, Type::tensor(ctx.dtype(0), out, ctx.type(0).layout));
  ctx.check(!ctx.has_output(1) || ctx.type(0).layout == Layout::kPlain, "indices need a plain input");
  ctx.set_output(1, DType::kInt64, out);
}

template <class T> void prepare_reference(PrepareContext& ctx, const Window& w, const reference::PoolOptions& options) {
  const Shape x = ctx.shape(0), y = ctx.out_shape(0);
  const bool indices = ctx.has_output(1);
  ctx.run([=](const Args& args, Worker& worker) {
    const reference::PoolExtents e{w.rank, x.data() + 2, y.data() + 2, w.kernel.data(), w.stride.data(), w.dilation.data(),
                                   w.begin.data(), w.end.data()};
    worker.parallel_for(x[0] * x[1], 1, [&](int64_t begin, int64_t end) {
      reference::pool(e, options, args.in<T>(0), args.out<T>(0), indices ? args.out<int64_t>(1) : nullptr, begin, end);
    });
  });
  ctx.cost(static_cast<double>(y.count()) * static_cast<double>(w.taps()) * 20, 8.0 * static_cast<double>(x.count()));
}

PoolShape pool_shape(const Window& w, const Shape& x, const Shape& y) {
  PoolShape s;
  for (int a = 0; a < 3; ++a) {
    const int from = a - (3 - w.rank);
    s.in[a] = from < 0 ? 1 : x[2 + from];
    s.out[a] = from < 0 ? 1 : y[2 + from];
    s.kernel[a] = from < 0 ? 1 : w.kernel[from];
    s.stride[a] = from < 0 ? 1 : w.stride[from];
    s.dilation[a] = from < 0 ? 1 : w.dilation[from];
    s.origin[a] = from < 0 ? 0 : -w.begin[from];
    s.limit[a] = from < 0 ? 1 : x[2 + from] + w.end[from];
  }
  return s;
}

void prepare_f32(PrepareContext& ctx, const Window& w, const reference::PoolOptions& options) {
  const Shape x = ctx.shape(0), y = ctx.out_shape(0);
  const bool blocked = ctx.layout(0) == Layout::kBlocked, largest = options.pool == Pool::kMax;
  PoolShape s = pool_shape(w, x, y);
  s.count_padding = options.count_padding;
  const int64_t rows = s.out[0] * s.out[1], in_plane = s.in[0] * s.in[1] * s.in[2], out_plane = rows * s.out[2];
  const int64_t width = blocked ? kChannelBlock : 1, blocks = ceil_div(x[1], width), planes = x[0] * blocks;
  const double work = static_cast<double>(out_plane * width) * static_cast<double>(w.taps());  // of a plane
  const int64_t parts = std::clamp<int64_t>(std::max(ceil_div(8, planes), blocked ? std::min<int64_t>(2, rows / 8) : 1), 1, rows);
  const auto grain = static_cast<int64_t>(std::clamp(1e5 * static_cast<double>(parts) / work, 1.0, static_cast<double>(planes * parts)));
  ctx.workspace(blocked ? 0 : ctx.threads() * round_up(s.in[2], 16) * 4);
  ctx.cost(work * static_cast<double>(planes), 4.0 * static_cast<double>((in_plane + out_plane) * width * planes));
  ctx.run([=, channels = x[1]](const Args& args, Worker& worker) {
    worker.parallel_for(planes * parts, grain, [&](int64_t i, int64_t last) {
      for (; i < last; ++i) {
        // By rows first, as convolutions are cut.
        const int64_t plane = i / (blocks * parts) * blocks + i % blocks, part = i / blocks % parts;
        const int64_t begin = rows * part / parts, end = rows * (part + 1) / parts;
        const float* const from = args.in<float>(0) + plane * in_plane * width;
        float* const to = args.out<float>(0) + plane * out_plane * width;
        if (blocked) {
          const int tail = static_cast<int>(std::min<int64_t>(kChannelBlock, channels - plane % blocks * kChannelBlock));
          (largest ? pool().max_block : pool().mean_block)(s, from, to, tail, begin, end);
        } else {
          float* const line = args.workspace<float>() + worker.index() * round_up(s.in[2], 16);
          (largest ? pool().max_plane : pool().mean_plane)(s, from, to, line, begin, end);
        }
      }
    });
  });
}

// Taps [first, last) of axis a lie inside at output pixel o, which begins at input pixel `from`.
struct Taps { int64_t from, first, last; };
Taps taps_of(const PoolShape& s, int a, int64_t o) {
  const int64_t from = o * s.stride[a] + s.origin[a], first = from >= 0 ? 0 : ceil_div(-from, s.dilation[a]);
  return {from, first, from >= s.in[a] ? 0 : std::min(ceil_div(s.in[a] - from, s.dilation[a]), s.kernel[a])};
}

// (sum |x|^p)^(1/p) for p of 1, 2 and 3, a row of sums in double at a time, the taps in their order.
template <class T, int p> void lp_plane(const PoolShape& s, const T* x, T* y, double* sums) {
  const int64_t width = s.out[2], left = s.origin[2] + (width - 1) * s.stride[2];  // of tap 0 of the last output
  const int64_t from = left >= 0 ? 0 : ceil_div(-left, s.dilation[2]);               // a window may be far larger than the image
  for (int64_t r = 0; r < s.out[0] * s.out[1]; ++r, y += width) {
    const Taps d = taps_of(s, 0, r / s.out[1]), h = taps_of(s, 1, r % s.out[1]);
    std::fill_n(sums, width, 0.0);
    for (int64_t i = d.first; i < d.last; ++i)
      for (int64_t j = h.first; j < h.last; ++j) {
        const T* const line = x + ((d.from + i * s.dilation[0]) * s.in[1] + h.from + j * s.dilation[1]) * s.in[2];
        for (int64_t k = from; k < s.kernel[2]; ++k) {
          const int64_t at = s.origin[2] + k * s.dilation[2], step = s.stride[2];  // of output 0
          if (at >= s.in[2]) break;
          const int64_t begin = at >= 0 ? 0 : std::min(ceil_div(-at, step), width), end = std::min(ceil_div(s.in[2] - at, step), width);
          for (int64_t o = begin; o < end; ++o) {
            const double v = std::fabs(static_cast<double>(line[at + o * step]));
            sums[o] += p == 1 ? v : p == 2 ? v * v : v * v * v;
          }
        }
      }
    for (int64_t o = 0; o < width; ++o) y[o] = static_cast<T>(p == 1 ? sums[o] : p == 2 ? std::sqrt(sums[o]) : std::cbrt(sums[o]));
  }
}

template <class T> void prepare_lp(PrepareContext& ctx, const Window& w, int p) {
  const Shape &x = ctx.shape(0), &y = ctx.out_shape(0);
  const PoolShape s = pool_shape(w, x, y);
  const int64_t planes = x[0] * x[1], in_plane = s.in[0] * s.in[1] * s.in[2], out_plane = s.out[0] * s.out[1] * s.out[2];
  const double work = 2 * static_cast<double>(out_plane) * static_cast<double>(w.taps());
  const auto grain = static_cast<int64_t>(std::clamp(1e5 / work, 1.0, static_cast<double>(planes)));
  const auto run = p == 1 ? lp_plane<T, 1> : p == 2 ? lp_plane<T, 2> : lp_plane<T, 3>;
  const int64_t line = round_up(s.out[2], 8);
  ctx.workspace(ctx.threads() * line * 8);
  ctx.run([=](const Args& args, Worker& worker) {
    worker.parallel_for(planes, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) run(s, args.in<T>(0) + i * in_plane, args.out<T>(0) + i * out_plane, args.workspace<double>() + worker.index() * line);
    });
  });
  ctx.cost(work * static_cast<double>(planes), static_cast<double>((in_plane + out_plane) * planes) * sizeof(T));
}

template <Pool kind> void prepare(PrepareContext& ctx) {
  const Shape &x = ctx.shape(0), &y = ctx.out_shape(0);
  if (y.count() == 0) return ctx.run([](const Args&, Worker&) {});
  Window w = window_of(ctx.node, x.rank() - 2);
  for (int a = 0; a < w.rank; ++a) w.slide(a, x[2 + a]);
  reference::PoolOptions options{kind};
  if (kind == Pool::kMean) options.count_padding = ctx.node.attr_int("count_include_pad", 0) != 0;
  if (kind == Pool::kMax) options.column_major = ctx.node.attr_int("storage_order", 0) != 0;
  if (kind == Pool::kLp) options.p = ctx.node.opset < 2 ? ctx.node.attr_float("p", 2) : static_cast<double>(ctx.node.attr_int("p", 2));
  constexpr int64_t kMost = int64_t{1} << 31;
  bool fast = !ctx.has_output(1) && w.rank <= 3;
  for (int a = 0; a < w.rank; ++a) fast = fast && x[2 + a] < kMost && w.reach(a) < kMost;
  if (kind != Pool::kLp && fast && ctx.dtype(0) == DType::kFloat) return prepare_f32(ctx, w, options);
  if (kind == Pool::kLp && fast && (options.p == 1 || options.p == 2 || options.p == 3)) {
    if (ctx.dtype(0) == DType::kFloat) return prepare_lp<float>(ctx, w, static_cast<int>(options.p));
    if (ctx.dtype(0) == DType::kDouble) return prepare_lp<double>(ctx, w, static_cast<int>(options.p));
  }
  if (ctx.layout(0) != Layout::kPlain) ctx.fail("this pool has no blocked kernel");
  switch (ctx.dtype(0)) {
    case DType::kFloat: return prepare_reference<float>(ctx, w, options);
    case DType::kDouble: return prepare_reference<double>(ctx, w, options);
    case DType::kFloat16: return prepare_reference<Half>(ctx, w, options);
    case DType::kBFloat16: return prepare_reference<BFloat16>(ctx, w, options);
    case DType::kInt8: return prepare_reference<int8_t>(ctx, w, options);
    case DType::kUInt8: return prepare_reference<uint8_t>(ctx, w, options);
    default: ctx.fail("X has a type that this operator does not take");
  }
}

// ---- MaxUnpool: Y is zero but for X's elements, put where Indices say.

void infer_unpool(InferContext& ctx) {
  check_input(ctx, false);
  ctx.check(ctx.dtype(1) == DType::kInt64, "the indices should be int64");
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  const Shape& x = ctx.shape(0);
  if (ctx.ranked(1) && x.known() && ctx.shape(1).known()) ctx.check(ctx.shape(1) == x, "the indices should have X's shape");
  const Window w = window_of(ctx.node, x.rank() - 2);
  Shape out = x;
  if (ctx.has_input(2)) {
    const auto asked = ctx.ints(2);
    if (asked) ctx.check(static_cast<int>(asked->size()) == x.rank(), "output_shape should have ", x.rank(), " entries");
    for (int i = 0; i < x.rank(); ++i) {
      out[i] = asked ? (*asked)[i] : ctx.fresh();
      ctx.check(is_symbol(out[i]) || out[i] >= 0, "output_shape[", i, "] = ", out[i]);
    }
  } else {
    for (int a = 0; a < w.rank; ++a) {
      if (is_symbol(x[2 + a])) { out[2 + a] = ctx.fresh(); continue; }
      int64_t steps = 0;
      ctx.check(!__builtin_mul_overflow(x[2 + a] - 1, w.stride[a], &steps), "the output is too large");
      out[2 + a] = steps - w.begin[a] - w.end[a] + w.kernel[a];
      ctx.check(out[2 + a] >= 0, "the output would have extent ", out[2 + a]);
    }
  }
  ctx.set_output(0, ctx.dtype(0), out);
}

template <class T> void prepare_unpool_of(PrepareContext& ctx) {
  const int64_t n = ctx.shape(0).count(), total = ctx.out_shape(0).count();
  if (!(ctx.shape(1) == ctx.shape(0))) ctx.fail("the indices should have X's shape");
  // Indices count in the tensor that the window's default extents give: with output_shape each plane is placed in a larger one.
  const Shape &x = ctx.shape(0), &y = ctx.out_shape(0);
  const Window w = window_of(ctx.node, x.rank() - 2);
  Shape inner = x;
  for (int a = 0; a < w.rank; ++a) inner[2 + a] = std::max<int64_t>(0, (x[2 + a] - 1) * w.stride[a] - w.begin[a] - w.end[a] + w.kernel[a]);
  const bool same = inner == y;
  const int64_t inner_count = inner.count();
  ctx.serial();
  ctx.run([=, label = ctx.node.label()](const Args& args, Worker& worker) {
    worker.parallel_for(1, 1, [&](int64_t, int64_t) {
      T* const out = args.out<T>(0);
      std::fill_n(out, total, T{});
      for (int64_t i = 0; i < n; ++i) {
        int64_t at = args.in<int64_t>(1)[i];
        if (at < 0 || at >= inner_count) fail(Code::kInvalidArgument, label, ": index ", at, " is outside [0, ", inner_count, ")");
        if (!same) {
          int64_t to = 0, step = 1;
          bool inside = true;
          for (int a = inner.rank() - 1; a >= 0; --a) {
            const int64_t c = at % inner[a];
            inside = inside && c < y[a];
            to += c * step;
            step *= y[a];
            at /= inner[a];
          }
          if (!inside) continue;
          at = to;
        }
        out[at] = args.in<T>(0)[i];
      }
    });
  });
}

void prepare_unpool(PrepareContext& ctx) {
  switch (bits_of(ctx.dtype(0))) {
    case 16: return prepare_unpool_of<uint16_t>(ctx);
    case 32: return prepare_unpool_of<uint32_t>(ctx);
    default: return prepare_unpool_of<uint64_t>(ctx);
  }
}

const OpRegistration rows({
    {"MaxPool", "", 1, infer<Pool::kMax>, prepare<Pool::kMax>, nullptr, kAnyLayout},
    {"AveragePool", "", 1, infer<Pool::kMean>, prepare<Pool::kMean>, nullptr, kAnyLayout},
    {"LpPool", "", 1, infer<Pool::kLp>, prepare<Pool::kLp>},
    {"MaxUnpool", "", 9, infer_unpool, prepare_unpool},
});

// ---- Gradients ----------------------------------------------------------------------------------------------------------

AttributeList window_attributes(const Node& node) {
  AttributeList list;
  for (const char* key : {"kernel_shape", "strides", "dilations", "pads"})
    if (node.has(key)) list.emplace_back(key, node.attr_ints(key));
  for (const char* key : {"ceil_mode", "count_include_pad"})
    if (node.has(key)) list.emplace_back(key, node.attr_int(key, 0));
  if (node.has("auto_pad")) list.emplace_back("auto_pad", node.attr_string("auto_pad", ""));
  return list;
}

const GradRegistration grads({
    {"MaxPool", "", [](GradContext& c) { c.set(0, c.w.op("MaxPoolGrad", {c.dy(), c.x(0)}, window_attributes(c.node), kTiercelDomain)); }},
    {"AveragePool", "", [](GradContext& c) {
       c.set(0, c.w.op("AveragePoolGrad", {c.dy(), c.w.shape_of(c.x(0))}, window_attributes(c.node), kTiercelDomain));
     }},
});

}  // namespace
}  // namespace tiercel

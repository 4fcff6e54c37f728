// QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear: one scale for all, for each slice along an axis, or for blocks of it.
#include "kernels/cast/convert.h"
#include "kernels/quantize/quantize.h"
#include "kernels/reduce/reduce.h"
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

// ---- Which scale an element has

struct ScaleView {
  int64_t outer = 1, n = 1, inner = 1, block = 0, blocks = 1;
  bool single = true;  // one scale for all

  // f(at, run, parameter, step): elements [at, at + run) have the parameters `parameter`, `parameter + step`, ...
  template <class F> void for_runs(int64_t begin, int64_t end, F f) const {
    for (int64_t at = begin; at < end;) {
      int64_t run = end - at, parameter = 0, step = 0;
      if (!single) {
        const int64_t j = at % inner, i = at / inner % n, o = at / inner / n;
        if (inner > 1) {
          run = std::min(run, inner - j);
          parameter = block ? (o * blocks + i / block) * inner + j : i;
          step = block ? 1 : 0;
        } else if (block) {
          run = std::min({run, block - i % block, n - i});
          parameter = o * blocks + i / block;
        } else {
          run = std::min(run, n - i);
          parameter = i;
          step = 1;
        }
      }
      f(at, run, parameter, step);
      at += run;
    }
  }
};

int64_t default_axis(const Node& node) { return node.attr_int("axis", 1); }

ScaleView view_of(const PrepareContext& ctx) {
  const Shape &x = ctx.shape(0), &s = ctx.shape(1);
  ScaleView v;
  v.single = s.count() == 1 && s.rank() <= 1;
  if (v.single) return v;
  const int axis = normalize_axis(default_axis(ctx.node), x.rank());
  const AxisView a(x, axis);
  v.outer = a.outer;
  v.n = a.n;
  v.inner = a.inner;
  if (s.rank() > 1 || x.rank() == 1) {
    v.block = ctx.node.attr_int("block_size", 0);
    v.blocks = s[axis];
  }
  return v;
}

void infer_scale(InferContext& ctx, int scale, int zero) {
  const Node& node = ctx.node;
  const int64_t block = node.attr_int("block_size", 0);
  ctx.check(block >= 0, "block_size should not be negative, got ", block);
  const auto number = [&](int i) { return ctx.shape(i).rank() == 0 || (ctx.shape(i).rank() == 1 && ctx.shape(i)[0] == 1); };
  if (ctx.has_input(zero) && ctx.ranked(zero) && ctx.ranked(scale) && !(number(zero) && number(scale))) {
    ctx.check(ctx.shape(zero).rank() == ctx.shape(scale).rank(), "scale and zero point should have one shape");
    for (int i = 0; i < ctx.shape(zero).rank(); ++i) unify(ctx, ctx.shape(zero)[i], ctx.shape(scale)[i], "the shapes of scale and zero point");
  }
  if (!ctx.ranked(scale) || !ctx.ranked(0)) return;
  const Shape &s = ctx.shape(scale), &x = ctx.shape(0);
  if (s.rank() == 0 || (s.rank() == 1 && s[0] == 1 && !block)) return;
  const int axis = ctx.axis(default_axis(node), x.rank());
  if (block) {
    ctx.check(s.rank() == x.rank(), "with block_size the scale should have the rank of x, ", x.rank(), ", got ", s.rank());
    for (int i = 0; i < x.rank(); ++i) {
      if (is_symbol(x[i]) || is_symbol(s[i])) continue;
      const int64_t want = i == axis ? ceil_div(x[i], block) : x[i];
      ctx.check(s[i] == want, "the scale should have ", want, " elements along axis ", i, ", got ", s[i]);
    }
    return;
  }
  ctx.check(s.rank() == 1, "the scale should be a number or a vector, got the shape ", s);
  unify(ctx, s[0], x[axis], "the length of the scale and of x along the axis");
}

// ---- Scales and zero points as float, at the start of the workspace

// The type in whole bytes of a packed one.
DType whole(DType t) {
  switch (t) {
    case DType::kInt4: case DType::kInt2: return DType::kInt8;
    case DType::kUInt4: case DType::kUInt2: return DType::kUInt8;
    default: return t;
  }
}
bool packed_signed(DType t) { return t == DType::kInt4 || t == DType::kInt2; }
bool is_packed(DType t) { return bits_of(t) < 8; }

// n elements of any type, from element `at` on (whole bytes in a packed type), as float.
struct ToFloat {
  DType dtype = DType::kFloat;
  Convert convert;
  explicit ToFloat(DType t = DType::kFloat) : dtype(t) {
    if (t != DType::kFloat) convert = Convert(whole(t), DType::kFloat);
  }
  void operator()(const void* x, int64_t at, int64_t n, float* y) const {
    const char* p = static_cast<const char*>(x);
    if (dtype == DType::kFloat) {
      std::copy_n(static_cast<const float*>(x) + at, n, y);
    } else if (is_packed(dtype)) {
      char codes[1024];
      const int per_byte = 8 / bits_of(dtype);
      for (int64_t i = 0; i < n;) {  // unpacking begins on whole bytes
        const int64_t first = (at + i) / per_byte * per_byte, skip = at + i - first, m = std::min<int64_t>(n - i, 1024 - skip);
        unpack_bits(x, first, skip + m, bits_of(dtype), packed_signed(dtype), codes);
        convert(codes + skip, y + i, m);
        i += m;
      }
    } else {
      convert(p + at * bits_of(dtype) / 8, y, n);
    }
  }
};

struct Parameters {
  ToFloat scale, zero;
  int64_t count;
  bool has_zero;

  Parameters(const PrepareContext& ctx, int s, int z)
      : scale(ctx.dtype(s)), zero(ctx.has_input(z) ? ctx.dtype(z) : DType::kFloat), count(ctx.shape(s).count()), has_zero(ctx.has_input(z)) {
    if (has_zero && ctx.shape(z).count() != count) ctx.fail("scale and zero point should have one shape");
  }
  int64_t bytes() const { return 8 * round_up(count, 16); }
  float* scales(const Args& a) const { return a.workspace<float>(); }
  float* zeros(const Args& a) const { return a.workspace<float>() + round_up(count, 16); }
  // Collective; ends with a barrier.
  void load(const Args& a, Worker& w) const {
    w.parallel_for(count, 16384, [&](int64_t b, int64_t e) {
      scale(a.in(1), b, e - b, scales(a) + b);
      if (has_zero) zero(a.in(2), b, e - b, zeros(a) + b);
      else std::fill(zeros(a) + b, zeros(a) + e, 0.0f);
    });
    w.barrier();
  }
};

constexpr int64_t kGrain = 16384;  // a multiple of what lies in a byte
constexpr int64_t kTileElements = 512;

// ---- DequantizeLinear: (x - zero) scale

void infer_dequantize(InferContext& ctx) {
  const DType t = ctx.dtype(0), s = ctx.dtype(1);
  ctx.check(is_integer(t) || is_float(t), "does not take ", dtype_name(t));
  ctx.check(is_float(s), "the scale should be a float type, got ", dtype_name(s));
  if (ctx.has_input(2)) ctx.check(ctx.dtype(2) == t, "the zero point should have the type of x");
  infer_scale(ctx, 1, 2);
  const auto asked = static_cast<DType>(ctx.node.attr_int("output_dtype", 0));
  const DType y = asked != DType::kUndefined ? asked : bits_of(s) >= 16 ? s : DType::kFloat;
  ctx.check(y == DType::kFloat || is_half(y), "output_dtype should be float, float16 or bfloat16");
  Type out = ctx.type(0);
  out.dtype = y;
  ctx.set_output(0, out);
}

void prepare_dequantize(PrepareContext& ctx) {
  const ScaleView view = view_of(ctx);
  const Parameters p(ctx, 1, 2);
  const DType t = ctx.dtype(0);
  const ToFloat load(t);
  const int64_t count = ctx.shape(0).count();
  ctx.workspace(p.bytes());
  ctx.cost(3 * static_cast<double>(count), static_cast<double>(bytes_of(t, count)) + 4 * static_cast<double>(count));
  ctx.run([=](const Args& a, Worker& w) {
    p.load(a, w);
    const float *scales = p.scales(a), *zeros = p.zeros(a);
    float* y = a.out<float>(0);
    w.parallel_for(count, kGrain, [&](int64_t b, int64_t e) {
      view.for_runs(b, e, [&](int64_t at, int64_t n, int64_t k, int64_t step) {
        if (!step && t == DType::kUInt8) return quantize().dequantize_u8(a.in<uint8_t>(0) + at, n, zeros[k], scales[k], y + at);
        if (!step && t == DType::kInt8) return quantize().dequantize_s8(a.in<int8_t>(0) + at, n, zeros[k], scales[k], y + at);
        load(a.in(0), at, n, y + at);
        if (step) for (int64_t i = 0; i < n; ++i) y[at + i] = (y[at + i] - zeros[k + i]) * scales[k + i];
        else for (int64_t i = 0; i < n; ++i) y[at + i] = (y[at + i] - zeros[k]) * scales[k];
      });
    });
  });
}

// ---- QuantizeLinear: round(x / scale) + zero, held within the type

void infer_quantize(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  ctx.check((is_real(t) && t != DType::kDouble) || t == DType::kInt32, "does not take ", dtype_name(t));
  const auto asked = static_cast<DType>(ctx.node.attr_int("output_dtype", 0));
  const DType y = ctx.has_input(2) ? ctx.dtype(2) : asked != DType::kUndefined ? asked : DType::kUInt8;
  ctx.check(asked == DType::kUndefined || asked == y, "output_dtype and the type of the zero point differ");
  const bool narrow = static_cast<int>(y) < kNumDTypes && bits_of(y) > 0 && (is_integer(y) ? bits_of(y) <= 16 : is_float(y) && bits_of(y) <= 8);
  ctx.check(narrow && y != DType::kFloat8E8M0, "cannot quantise to ", static_cast<int>(y) < kNumDTypes ? dtype_name(y) : "an unknown type");
  infer_scale(ctx, 1, 2);
  Type out = ctx.type(0);
  out.dtype = y;
  ctx.set_output(0, out);
}

struct Range {
  float low, high;
};
Range range_of(DType t) {
  const int bits = bits_of(t);
  const float n = static_cast<float>(1 << (is_signed(t) ? bits - 1 : bits));
  return is_signed(t) ? Range{-n, n - 1} : Range{0, n - 1};
}

// The division is done in f32 and rounded to the type that `precision` names, or to the scale's.
void prepare_quantize_as(PrepareContext& ctx, DType quotient) {
  const ScaleView view = view_of(ctx);
  const Parameters p(ctx, 1, 2);
  const DType t = ctx.dtype(0), to = ctx.out_dtype(0);
  const ToFloat load(t);
  const NarrowMode mode{ctx.node.attr_int("saturate", 1) != 0, Rounding::kUp};
  const Convert store(DType::kFloat, whole(to), mode);
  const bool integer = is_integer(to), bytes = bits_of(to) == 8 && integer && t == DType::kFloat && !is_half(quotient);
  const Range range = range_of(to);
  const int64_t count = ctx.shape(0).count();
  ctx.workspace(p.bytes());
  ctx.cost(4 * static_cast<double>(count), static_cast<double>(bytes_of(t, count)) + static_cast<double>(count));
  ctx.run([=](const Args& a, Worker& w) {
    p.load(a, w);
    const float *scales = p.scales(a), *zeros = p.zeros(a);
    const auto element = [&](float x, int64_t k) {
      float q = x / scales[k];
      if (is_half(quotient)) {
        uint16_t h;
        floats_to_halves(quotient, &q, &h, 1);
        halves_to_floats(quotient, &h, &q, 1);
      }
      if (!integer) return q + zeros[k];
      q = std::nearbyint(q) + zeros[k];
      return std::isnan(q) ? range.low : std::clamp(q, range.low, range.high);
    };
    w.parallel_for(count, kGrain, [&](int64_t b, int64_t e) {
      if (bytes) {
        view.for_runs(b, e, [&](int64_t at, int64_t n, int64_t k, int64_t step) {
          if (step)  // a scale each
            for (int64_t i = 0; i < n; ++i) {
              const auto v = static_cast<int32_t>(element(a.in<float>(0)[at + i], k + i));
              a.out<uint8_t>(0)[at + i] = static_cast<uint8_t>(v);
            }
          else if (to == DType::kUInt8) quantize().quantize_u8(a.in<float>(0) + at, n, zeros[k], scales[k], a.out<uint8_t>(0) + at);
          else quantize().quantize_s8(a.in<float>(0) + at, n, zeros[k], scales[k], a.out<int8_t>(0) + at);
        });
        return;
      }
      float tile[kTileElements];
      char codes[4 * kTileElements];
      for (int64_t first = b; first < e; first += kTileElements) {
        const int64_t m = std::min(kTileElements, e - first);
        load(a.in(0), first, m, tile);
        view.for_runs(first, first + m, [&](int64_t at, int64_t n, int64_t k, int64_t step) {
          for (int64_t i = 0; i < n; ++i) tile[at - first + i] = element(tile[at - first + i], k + step * i);
        });
        char* y = a.out<char>(0);
        if (is_packed(to)) {
          store(tile, codes, m);
          pack_bits(codes, first, m, bits_of(to), y);
        } else {
          store(tile, y + first * bits_of(to) / 8, m);
        }
      }
    });
  });
}

void prepare_quantize_float(PrepareContext& ctx) {
  prepare_quantize_as(ctx, static_cast<DType>(ctx.node.attr_int("precision", 0)));
}
// Half scales ask for a half quotient, but conversion hides what they were.
template <DType quotient> void prepare_quantize_half(PrepareContext& ctx) {
  const auto precision = static_cast<DType>(ctx.node.attr_int("precision", 0));
  prepare_quantize_as(ctx, precision == DType::kUndefined ? quotient : precision);
}
void prepare_quantize(PrepareContext& ctx) {
  const DType s = ctx.dtype(1);
  prepare_half(ctx, s == DType::kFloat16 ? prepare_quantize_half<DType::kFloat16>
                    : s == DType::kBFloat16 ? prepare_quantize_half<DType::kBFloat16> : prepare_quantize_float);
}

// ---- DynamicQuantizeLinear: the scale and zero point that span the data and 0 by uint8

void infer_dynamic(InferContext& ctx) {
  ctx.check(ctx.dtype(0) == DType::kFloat, "x should be float, got ", dtype_name(ctx.dtype(0)));
  Type y = ctx.type(0);
  y.dtype = DType::kUInt8;
  ctx.set_output(0, y);
  ctx.set_output(1, DType::kFloat, {});
  ctx.set_output(2, DType::kUInt8, {});
}

void prepare_dynamic(PrepareContext& ctx) {
  const int64_t count = ctx.shape(0).count(), parts = ceil_div(count, kGrain);
  const bool has_y = ctx.has_output(0), has_scale = ctx.has_output(1), has_zero = ctx.has_output(2);
  ctx.workspace(8 * parts + 8);
  ctx.cost(6 * static_cast<double>(count), 9 * static_cast<double>(count));
  ctx.run([=](const Args& a, Worker& w) {
    const float* x = a.in<float>(0);
    float *top = a.workspace<float>(), *low = top + parts;
    w.parallel_for(parts, 1, [&](int64_t b, int64_t) {
      const int64_t first = b * kGrain, n = std::min(kGrain, count - first);
      reduce().rows[static_cast<int>(ReduceMap::kMax)](x + first, 1, 0, n, nullptr, top + b);
      reduce().rows[static_cast<int>(ReduceMap::kMin)](x + first, 1, 0, n, nullptr, low + b);
    });
    w.barrier();
    float most = 0, least = 0;
    for (int64_t i = 0; i < parts; ++i) {
      most = top[i] > most || std::isnan(top[i]) ? top[i] : most;
      least = low[i] < least || std::isnan(low[i]) ? low[i] : least;
    }
    const float scale = (most == least ? 1.0f : most - least) / 255.0f;
    const float zero = std::nearbyint(std::clamp(0.0f - least / scale, 0.0f, 255.0f));
    if (w.index() == 0) {
      if (has_scale) *a.out<float>(1) = scale;
      if (has_zero) *a.out<uint8_t>(2) = static_cast<uint8_t>(std::isnan(zero) ? 0 : zero);
    }
    if (has_y) w.parallel_for(count, kGrain, [&](int64_t b, int64_t e) { quantize().quantize_u8(x + b, e - b, zero, scale, a.out<uint8_t>(0) + b); });
  });
}

const OpRegistration rows({
    {"QuantizeLinear", "", 10, infer_quantize, prepare_quantize},
    {"DequantizeLinear", "", 10, infer_dequantize, half_as_float<prepare_dequantize>},
    {"DynamicQuantizeLinear", "", 11, infer_dynamic, prepare_dynamic},
});

}  // namespace
}  // namespace tiercel

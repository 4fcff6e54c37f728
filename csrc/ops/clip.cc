// Clip: min(max(x, low), high), either bound optional; attributes before opset 11, scalar inputs since. NaN stays NaN.
#include <limits>

#include "kernels/pointwise/binary.h"
#include "kernels/pointwise/unary.h"
#include "ops/map.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  check_dtype(ctx, 0, is_arithmetic(t), "a numeric tensor");
  if (ctx.node.opset >= 11)
    for (int i = 1; i < 3; ++i) {
      if (!ctx.has_input(i)) continue;
      if (ctx.dtype(i) != t) ctx.fail("bounds should have the type of the input");
      if (ctx.type(i).static_shape() && ctx.shape(i).count() != 1) ctx.fail("bounds should be scalars");
    }
  infer_same(ctx);
  if (is_integer(t) && ctx.node.opset >= 11) {
    const auto low = small_ints(ctx, 1), high = small_ints(ctx, 2);
    if ((ctx.has_input(1) && (!low || low->empty())) || (ctx.has_input(2) && (!high || high->empty()))) return;
    const auto v = small_ints(ctx, 0);
    if (!v) return;
    std::vector<Dim> out;
    for (Dim d : *v) {
      const bool unknown = is_symbol(d) || (low && is_symbol((*low)[0])) || (high && is_symbol((*high)[0]));
      if (!unknown && low) d = std::max(d, (*low)[0]);
      if (!unknown && high) d = std::min(d, (*high)[0]);
      out.push_back(unknown ? ctx.fresh() : d);
    }
    ctx.set_ints(0, std::move(out));
  }
}

// The bounds of f32 arithmetic: constants or read at run time.
struct Bounds {
  float low = -std::numeric_limits<float>::infinity(), high = std::numeric_limits<float>::infinity();
  int low_input = -1, high_input = -1;
  Convert load;
  Activation activation(const Args& args) const {
    Activation a{ActivationKind::kClip, low, high};
    const auto read = [&](int i, float& to) {
      if (i < 0) return;
      if (load) load(args.in(i), &to, 1); else to = *args.in<float>(i);
    };
    read(low_input, a.alpha);
    read(high_input, a.beta);
    return a;
  }
};

void prepare_f32(PrepareContext& ctx) {
  Bounds b;
  const DType t = ctx.dtype(0);
  b.load = Convert(t, DType::kFloat);
  if (ctx.node.opset < 11) {
    b.low = ctx.node.attr_float("min", std::numeric_limits<float>::lowest());
    b.high = ctx.node.attr_float("max", std::numeric_limits<float>::max());
  } else {
    b.low_input = ctx.has_input(1) ? 1 : -1;
    b.high_input = ctx.has_input(2) ? 2 : -1;
  }
  const Convert store(DType::kFloat, t);
  const int bytes = element_bytes(t);
  const bool blocked = ctx.layout(0) == Layout::kBlocked;
  ctx.inplace(0, 0);
  run_elementwise(ctx, storage_count(ctx.shape(0), ctx.layout(0)), 2, [=, shape = ctx.shape(0)](const Args& args, int64_t begin, int64_t end) {
    const Activation a = b.activation(args);
    const char* x = args.in<char>(0) + begin * bytes;
    char* y = args.out<char>(0) + begin * bytes;
    if (!store) {
      unary().activate(a, reinterpret_cast<const float*>(x), reinterpret_cast<float*>(y), end - begin);
    } else {
      alignas(64) float tile[kTile];
      for (int64_t i = begin; i < end; i += kTile, x += kTile * bytes, y += kTile * bytes) {
        const int64_t n = std::min(kTile, end - i);
        b.load(x, tile, n);
        unary().activate(a, tile, tile, n);
        store(tile, y, n);
      }
    }
    if (blocked && !keeps_zero(a)) clear_padding(args.out<float>(0), shape, begin, end);
  });
}

void prepare(PrepareContext& ctx) {
  const DType t = ctx.dtype(0);
  if (compute_dtype(t) == DType::kFloat) return prepare_f32(ctx);
  const int bytes = element_bytes(t);
  const BinaryFn max = binary_fn(Binary::kMax, t), min = binary_fn(Binary::kMin, t);
  const bool attributes = ctx.node.opset < 11;
  const double low = ctx.node.attr_float("min", std::numeric_limits<float>::lowest()), high = ctx.node.attr_float("max", std::numeric_limits<float>::max());
  if (attributes && t != DType::kDouble) ctx.fail("opset ", ctx.node.opset, " clips floats only");
  const bool has_low = attributes || ctx.has_input(1), has_high = attributes || ctx.has_input(2);
  ctx.inplace(0, 0);
  run_elementwise(ctx, ctx.shape(0).count(), 2, [=](const Args& args, int64_t begin, int64_t end) {
    TileBuffer a, b;
    if (has_low) fill_tile(a.data, attributes ? &low : args.in(1), bytes, kTile);
    if (has_high) fill_tile(b.data, attributes ? &high : args.in(2), bytes, kTile);
    for (int64_t i = begin; i < end; i += kTile) {
      const int64_t n = std::min(kTile, end - i);
      const void* x = args.in<char>(0) + i * bytes;
      void* y = args.out<char>(0) + i * bytes;
      if (has_low) max(x, a.data, y, n), x = y;
      if (has_high) min(x, b.data, y, n), x = y;
      if (x != y) std::copy_n(static_cast<const char*>(x), n * bytes, static_cast<char*>(y));
    }
  });
}

static const OpRegistration rows({{"Clip", "", 1, infer, prepare, nullptr, kAnyLayout}});

}  // namespace
}  // namespace tiercel

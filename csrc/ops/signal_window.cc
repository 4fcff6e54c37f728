// HannWindow, HammingWindow, BlackmanWindow: sums of cosines over a window whose length is an input. MelWeightMatrix: triangular filters.
#include <numbers>

#include "kernels/cast/convert.h"
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

DType output_type(const InferContext& ctx) {
  const int64_t t = ctx.node.attr_int("output_datatype", 1);
  ctx.check(t > 0 && t < kNumDTypes, "attribute 'output_datatype' (", t, ") is not a type");
  const auto type = static_cast<DType>(t);
  ctx.check(is_real(type) || (is_integer(type) && bits_of(type) >= 8), "attribute 'output_datatype' should be a number, got ", dtype_name(type));
  return type;
}

void check_scalar(const InferContext& ctx, int i, const char* name) {
  ctx.input(i);
  ctx.check(!ctx.ranked(i) || !ctx.shape(i).known() || ctx.shape(i).count() == 1, name, " should be a scalar");
}

// An integer input of one element: its value, or a symbol.
Dim whole(const InferContext& ctx, int i, const char* name) {
  check_scalar(ctx, i, name);
  ctx.check(ctx.dtype(i) == DType::kInt32 || ctx.dtype(i) == DType::kInt64, name, " should be int32 or int64, got ", dtype_name(ctx.dtype(i)));
  if (const Tensor* t = ctx.constant(i)) {
    const int64_t value = t->ints()[0];
    ctx.check(!is_symbol(value), name, " should not be negative, got ", value);  // it would be taken for a symbol
    return value;
  }
  const auto v = small_ints(ctx, i);
  return v && v->size() == 1 ? (*v)[0] : ctx.fresh();
}

// Doubles by tiles: make(first, n, to) gives elements [first, first + n).
template <class F> void store_tiles(const Convert& convert, void* out, int64_t bytes, int64_t first, int64_t last, F make) {
  constexpr int64_t kTile = 512;
  double tile[kTile];
  for (int64_t i = first; i < last; i += kTile) {
    const int64_t n = std::min(kTile, last - i);
    char* to = static_cast<char*>(out) + i * bytes;
    make(i, n, tile);
    if (convert) convert(tile, to, n);
    else std::memcpy(to, tile, static_cast<size_t>(n * bytes));
  }
}

// ---- Windows

void infer_window(InferContext& ctx) {
  const DType type = output_type(ctx);
  const Dim size = whole(ctx, 0, "the size");
  ctx.check(is_symbol(size) || size >= 0, "the size should not be negative, got ", size);
  if (size >= 0) check_fits(ctx, type, {size});
  ctx.set_output(0, type, {size});
}

double hann(double turns) {
  const double s = std::sin(std::numbers::pi * turns);
  return s * s;
}
double hamming(double turns) { return 25.0 / 46 - std::cos(2 * std::numbers::pi * turns) * (21.0 / 46); }
double blackman(double turns) { return -0.5 * std::cos(2 * std::numbers::pi * turns) + 0.08 * std::cos(4 * std::numbers::pi * turns) + 0.42; }

template <double (*window)(double turns)> void prepare_window(PrepareContext& ctx) {
  const int64_t size = ctx.out_shape(0)[0], bytes = bytes_of(ctx.out_dtype(0), 1);
  const int64_t period = ctx.node.attr_int("periodic", 1) != 0 ? size : size - 1;
  const Convert convert(DType::kDouble, ctx.out_dtype(0));
  ctx.cost(50 * static_cast<double>(size), static_cast<double>(size * bytes));
  ctx.run([=](const Args& a, Worker& w) {
    w.parallel_for(size, 2048, [&](int64_t b, int64_t e) {
      store_tiles(convert, a.out(0), bytes, b, e, [&](int64_t first, int64_t n, double* to) {
        // A symmetric window of one sample is that sample.
        for (int64_t i = 0; i < n; ++i) to[i] = period == 0 ? 1 : window(static_cast<double>(first + i) / static_cast<double>(period));
      });
    });
  });
}

// ---- MelWeightMatrix

void infer_mel(InferContext& ctx) {
  const DType type = output_type(ctx);
  const Dim bands = whole(ctx, 0, "num_mel_bins"), length = whole(ctx, 1, "dft_length"), rate = whole(ctx, 2, "sample_rate");
  ctx.check(is_symbol(bands) || bands >= 0, "num_mel_bins should not be negative, got ", bands);
  ctx.check(is_symbol(length) || length >= 0, "dft_length should not be negative, got ", length);
  ctx.check(is_symbol(rate) || rate > 0, "sample_rate should be positive, got ", rate);
  for (int i : {3, 4}) {
    check_scalar(ctx, i, "an edge");
    check_real(ctx, i);
  }
  const Shape out{is_symbol(length) ? ctx.fresh() : length / 2 + 1, bands};
  if (out.known()) check_fits(ctx, type, out);
  if (bands >= 0) check_fits(ctx, DType::kInt64, {bands, 3});
  ctx.set_output(0, type, out);
}

int64_t whole_at(const Args& a, int i, DType t) { return t == DType::kInt32 ? *a.in<int32_t>(i) : *a.in<int64_t>(i); }
double real_at(const Args& a, int i, DType t) {
  if (t == DType::kDouble) return *a.in<double>(i);
  if (t == DType::kFloat) return *a.in<float>(i);
  float f;
  halves_to_floats(t, a.in(i), &f, 1);
  return f;
}

double mel_of(double hertz) { return 2595 * std::log1p(hertz / 700) / std::numbers::ln10; }
double hertz_of(double mel) { return 700 * std::expm1(mel / 2595 * std::numbers::ln10); }

void prepare_mel(PrepareContext& ctx) {
  const int64_t rows = ctx.out_shape(0)[0], bands = ctx.out_shape(0)[1], bytes = bytes_of(ctx.out_dtype(0), 1);
  const Convert convert(DType::kDouble, ctx.out_dtype(0));
  const DType length_type = ctx.dtype(1), rate_type = ctx.dtype(2), low_type = ctx.dtype(3), high_type = ctx.dtype(4);
  ctx.workspace((bands + 2) * static_cast<int64_t>(sizeof(double)));
  ctx.serial();
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    if (w.index() != 0) return;
    const double length = static_cast<double>(whole_at(a, 1, length_type)), rate = static_cast<double>(whole_at(a, 2, rate_type));
    const double low = real_at(a, 3, low_type), high = real_at(a, 4, high_type);
    if (!(rate > 0)) fail(Code::kInvalidArgument, label, ": sample_rate should be positive, got ", rate);
    if (!(low >= 0 && high >= low && std::isfinite(high)))
      fail(Code::kInvalidArgument, label, ": edges should be finite, not negative and in order, got ", low, " and ", high, " hertz");
    // Band i rises from edge[i] to 1 at edge[i + 1], and falls to edge[i + 2]; all whole bins of the spectrum.
    double* edge = a.workspace<double>();
    const double step = (mel_of(high) - mel_of(low)) / static_cast<double>(bands + 2);
    for (int64_t i = 0; i < bands + 2; ++i)
      edge[i] = std::floor((length + 1) * hertz_of(static_cast<double>(i) * step + mel_of(low)) / rate);
    const auto weight = [&](double row, int64_t band) {
      const double left = edge[band], top = edge[band + 1], right = edge[band + 2];
      if (row == top) return 1.0;
      if (row > left && row < top) return (row - left) / (top - left);
      if (row > top && row < right) return (right - row) / (right - top);
      return 0.0;
    };
    for (int64_t r = 0; r < rows; ++r)
      store_tiles(convert, a.out<char>(0) + r * bands * bytes, bytes, 0, bands, [&](int64_t first, int64_t n, double* to) {
        for (int64_t i = 0; i < n; ++i) to[i] = weight(static_cast<double>(r), first + i);
      });
  });
}

const OpRegistration rows({
    {"HannWindow", "", 17, infer_window, prepare_window<hann>},
    {"HammingWindow", "", 17, infer_window, prepare_window<hamming>},
    {"BlackmanWindow", "", 17, infer_window, prepare_window<blackman>},
    {"MelWeightMatrix", "", 17, infer_mel, prepare_mel},
});

}  // namespace
}  // namespace tiercel

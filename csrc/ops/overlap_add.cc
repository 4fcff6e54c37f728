#include "ops/overlap_add.h"

#include <algorithm>
#include <numeric>

#include "kernels/gemm/gemm.h"
#include "kernels/pointwise/binary.h"
#include "kernels/pointwise/unary.h"
#include "kernels/reorder/reorder.h"
#include "kernels/transpose/transpose.h"
#include "ops/registry.h"

namespace tiercel {
namespace {

constexpr int64_t kFloats = 96 << 10;  // of a task's pixels and products: they stay in L2
constexpr int64_t kFewestRows = 8;     // of outputs (windows, along a single row) of a task: its neighbours' products are computed twice

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

struct Range {
  int64_t begin, end;
  int64_t size() const { return std::max<int64_t>(end - begin, 0); }
};

// products[j][pixel] = sum over channels c of w[c][j] x[c][pixel], j = (output, tap); then y[stride pixel + tap - pad] += products. Columns of y that
// are equal modulo the stride are summed as a vector, [residue][window] with column = stride window + residue, and transposed to a row of y.
class OverlapAdd final : public Kernel {
 public:
  ConvProblem p;
  Activation activation;
  bool blocked = false;  // x
  Buffer weights;        // [output, tap][channel]
  int64_t parts = 1;     // tasks of an image
  int64_t row = 0;       // floats from a row of pixels or products to the next
  int64_t thread_floats = 0;

  int64_t rows() const { return p.outputs * p.taps(); }
  int64_t windows() const { return ceil_div(p.out[2], p.stride[2]); }
  bool one_row() const { return p.out[1] == 1; }
  Range output_rows(int64_t part) const { return one_row() ? Range{0, 1} : Range{p.out[1] * part / parts, p.out[1] * (part + 1) / parts}; }
  Range output_windows(int64_t part) const { return one_row() ? Range{windows() * part / parts, windows() * (part + 1) / parts} : Range{0, windows()}; }
  // Displacement of tap k along axis a: its window and, within it, its residue.
  int64_t shift(int a, int64_t k) const { return k * p.dilation[a] - p.pad[a]; }
  // Input coordinates along axis a that reach windows [begin, end) of that axis.
  Range reach(int a, Range w) const {
    return {std::max<int64_t>(0, w.begin - floor_div(shift(a, p.kernel[a] - 1), p.stride[a])),
            std::min(p.in[a], w.end - floor_div(shift(a, 0), p.stride[a]))};
  }
  Range input_rows(int64_t part) const {
    const Range r = output_rows(part);
    return reach(1, {r.begin / p.stride[1], ceil_div(r.end, p.stride[1])});
  }
  Range input_columns(int64_t part) const { return one_row() && p.in[1] == 1 ? reach(2, output_windows(part)) : Range{0, p.in[2]}; }

  // Parts of which each has its floats in L2, as many for each of two threads.
  void cut() {
    const int64_t extent = one_row() ? windows() : p.out[1], most = std::max<int64_t>(1, extent / kFewestRows);
    const auto floats = [&] {
      int64_t pixels = 0;
      for (int64_t i = 0; i < parts; ++i) pixels = std::max(pixels, input_rows(i).size() * input_columns(i).size());
      row = round_up(pixels, 16) + 16;
      return row * (p.channels + rows());
    };
    parts = std::min<int64_t>(most, p.batch % 2 ? 2 : 1);
    while (floats() > kFloats && parts + 2 <= most) parts += 2;
    thread_floats = round_up(row * (p.channels + rows()) + p.stride[2] * round_up(windows(), 16), 16);
  }

  void run(const Args& args, Worker& worker) const override {
    float* const scratch = args.workspace<float>() + worker.index() * thread_floats;
    worker.parallel_for(p.batch * parts, 1, [&](int64_t i, int64_t end) {
      for (; i < end; ++i) task(args, i / parts, i % parts, scratch);
    });
  }

 private:
  void task(const Args& args, int64_t image, int64_t part, float* pixels) const {
    const Range h = input_rows(part), w = input_columns(part);
    const int64_t n = h.size() * w.size(), first = h.begin * p.in[2] + w.begin;
    float *const products = pixels + row * p.channels, *const sums = products + row * rows();
    if (n > 0) {
      read(args.in<float>(0), image, first, n, pixels);
      const float *const a = static_cast<const float*>(weights.get()), *const b = pixels;
      GemmArgs g;
      g.m = rows(), g.n = n, g.k = p.channels;
      g.a = &a, g.a_row = p.channels;
      g.b = &b, g.b_row = row;
      g.c = products, g.c_row = row;
      gemm().gemm(g);
    }
    const Range y_rows = output_rows(part), y_windows = output_windows(part);
    for (int64_t o = 0; o < p.outputs; ++o)
      for (int64_t y = y_rows.begin; y < y_rows.end; ++y)
        output_row(args, image, o, y, y_windows, h, w, products + o * p.taps() * row, sums);
  }

  // Pixels [first, first + n) of all channels, a row each.
  void read(const float* x, int64_t image, int64_t first, int64_t n, float* to) const {
    const int64_t plane = p.in_plane();
    if (!blocked) {
      for (int64_t c = 0; c < p.channels; ++c) std::copy_n(x + (image * p.channels + c) * plane + first, n, to + c * row);
      return;
    }
    const int64_t blocks = ceil_div(p.channels, kConvBlock);
    for (int64_t b = 0; b < blocks; ++b)
      reorder().to_plain(x + ((image * blocks + b) * plane + first) * kConvBlock, n, to + b * kConvBlock * row, row,
                         static_cast<int>(std::min<int64_t>(kConvBlock, p.channels - b * kConvBlock)));
  }

  // `products`: of the output's first tap.
  void output_row(const Args& args, int64_t image, int64_t output, int64_t y, Range windows, Range h, Range w, const float* products, float* sums) const {
    const BinaryFn add = binary().f32[static_cast<int>(Binary::kAdd)][static_cast<int>(Pair::kVV)];
    const float* const bias = args.in<float>(2);
    const int64_t stride = p.stride[2], length = windows.size(), step = round_up(length, 16);
    std::fill_n(sums, stride * step, bias ? bias[output] : 0.0f);
    for (int64_t kh = 0; kh < p.kernel[1]; ++kh) {
      const int64_t at = y - shift(1, kh), i = floor_div(at, p.stride[1]);
      if (i * p.stride[1] != at || i < h.begin || i >= h.end) continue;
      for (int64_t kw = 0; kw < p.kernel[2]; ++kw) {
        const int64_t back = floor_div(shift(2, kw), stride), residue = shift(2, kw) - back * stride;
        const int64_t begin = std::max(windows.begin, w.begin + back), end = std::min(windows.end, w.end + back);
        if (begin >= end) continue;
        float* const to = sums + residue * step + begin - windows.begin;
        add(to, products + (kh * p.kernel[2] + kw) * row + (i - h.begin) * w.size() + begin - back - w.begin, to, end - begin);
      }
    }
    float* const out = args.out<float>(0) + ((image * p.outputs + output) * p.out[1] + y) * p.out[2];
    const int64_t first = windows.begin * stride, last = std::min(windows.end * stride, p.out[2]), whole = (last - first) / stride;
    transpose_kernels().plane[2](sums, step, out + first, stride, stride, whole);
    for (int64_t r = 0; first + whole * stride + r < last; ++r) out[first + whole * stride + r] = sums[r * step + whole];
    if (activation) unary().activate(activation, out + first, out + first, last - first);
  }
};

}  // namespace

void prepare_overlap_add(PrepareContext& ctx, const ConvProblem& problem, const Activation& activation) {
  auto k = std::make_unique<OverlapAdd>();
  k->p = problem;
  k->activation = activation;
  k->blocked = ctx.layout(0) == Layout::kBlocked;
  const int64_t channels = problem.channels, rows = k->rows();
  k->weights = ctx.pack(1, "overlap add", [=](const Tensor& w) {
    Buffer to = allocate_lasting(static_cast<size_t>(channels * rows) * sizeof(float));
    transpose_kernels().plane[2](w.as<float>(), rows, to.get(), channels, channels, rows);
    return to;
  });
  k->cut();
  ctx.workspace(ctx.threads() * k->thread_floats * static_cast<int64_t>(sizeof(float)));
  ctx.cost(problem.flops(), 4.0 * static_cast<double>(problem.batch * (channels * problem.in_plane() + problem.outputs * problem.out_plane()) + channels * rows));
  ctx.drops(1);
  ctx.kernel(std::move(k));
}

}  // namespace tiercel

#include "ops/overlap_add.h"

#include <algorithm>

#include "kernels/gemm/gemm.h"
#include "kernels/pointwise/binary.h"
#include "kernels/pointwise/unary.h"
#include "kernels/reorder/reorder.h"
#include "kernels/transpose/transpose.h"
#include "ops/registry.h"

namespace tiercel {
namespace {

constexpr int64_t kFloats = 96 << 10;  // of a task's pixels, products and sums: they stay in L2
constexpr int64_t kFewestRows = 8;     // of outputs of a task
constexpr int64_t kFewestWindows = 8;  // along a row: neighbours' products are computed twice
constexpr int64_t kProductRows = 12;   // fewer at a time wait for the pixels to come from L2

int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((b - 1 - a) / b); }

struct Range {
  int64_t begin, end;
  int64_t size() const { return std::max<int64_t>(end - begin, 0); }
};

// products[j][pixel] = sum over channels c of w[c][j] x[c][pixel], j = (output, tap); then y[stride pixel + tap - pad] += products. Columns of y that
// are equal modulo the stride are summed as a vector, [residue][window] with column = stride window + residue, and transposed to a row of y.
class OverlapAdd final : public Kernel {
 public:
  ConvProblem p;         // transposed
  Activation activation;
  bool blocked = false;  // x
  Buffer weights;        // [kernel row][output, kernel column][channel]
  int64_t parts[2] = {1, 1};  // tasks of an image: cuts of its output rows, and of their windows
  int64_t row = 0;       // floats from a row of pixels or products to the next
  int64_t thread_floats = 0;

  int64_t rows() const { return p.outputs * p.kernel[2]; }  // of products, for each kernel row
  // Kernel rows that are multiplied at once: one, so that no product is computed twice, or all.
  int64_t at_once() const { return rows() >= kProductRows ? 1 : p.kernel[1]; }
  int64_t windows() const { return ceil_div(p.out[2], p.stride[2]); }
  Range output_rows(int64_t part) const { return {p.out[1] * (part / parts[1]) / parts[0], p.out[1] * (part / parts[1] + 1) / parts[0]}; }
  Range output_windows(int64_t part) const { return {windows() * (part % parts[1]) / parts[1], windows() * (part % parts[1] + 1) / parts[1]}; }
  int64_t shift(int a, int64_t k) const { return k * p.dilation[a] - p.pad[a]; }  // of tap k along axis a
  // Input rows that kernel rows [first, last) bring to output rows y.
  Range input_rows(Range y, int64_t first, int64_t last) const {
    return {std::max<int64_t>(0, -floor_div(shift(1, last - 1) - y.begin, p.stride[1])), std::min(p.in[1], floor_div(y.end - 1 - shift(1, first), p.stride[1]) + 1)};
  }
  Range input_columns(int64_t part) const {
    if (parts[1] == 1) return {0, p.in[2]};
    const Range u = output_windows(part);
    return {std::max<int64_t>(0, u.begin - floor_div(shift(2, p.kernel[2] - 1), p.stride[2])), std::min(p.in[2], u.end - floor_div(shift(2, 0), p.stride[2]))};
  }

  // Windows that a pixel's products reach beside the first.
  int64_t reach() const { return floor_div(shift(2, p.kernel[2] - 1), p.stride[2]) - floor_div(shift(2, 0), p.stride[2]); }
  // Floats of a task at most; sets `row`.
  int64_t floats() {
    const int64_t y = ceil_div(p.out[1], parts[0]), u = ceil_div(windows(), parts[1]);
    const int64_t h = std::min(p.in[1], (y - 1 + (p.kernel[1] - 1) * p.dilation[1]) / p.stride[1] + 2);
    row = round_up(h * (parts[1] == 1 ? p.in[2] : std::min(p.in[2], u + reach())), 16) + 16;
    return row * (p.channels + at_once() * rows()) + y * round_up(u, 16) * p.outputs * p.stride[2];
  }

  // Parts of which each has its floats in L2, as many for each of two threads: of the rows first, then of what is still too long.
  void cut() {
    const int64_t most[2] = {std::max<int64_t>(1, p.out[1] / kFewestRows), std::max<int64_t>(1, windows() / std::max(kFewestWindows, 4 * reach()))};
    const auto more = [](int64_t n) { return round_up(n + n / 4 + 1, 2); };
    const int64_t even = p.batch % 2 ? 2 : 1;
    parts[0] = std::min(most[0], even);
    while (floats() > kFloats && more(parts[0]) <= most[0]) parts[0] = more(parts[0]);
    if (parts[0] % even) parts[1] = std::min(most[1], even);
    while (floats() > kFloats && more(parts[1]) <= most[1]) parts[1] = more(parts[1]);
    thread_floats = round_up(floats(), 16);
  }

  void run(const Args& args, Worker& worker) const override {
    float* const scratch = args.workspace<float>() + worker.index() * thread_floats;
    const int64_t all = parts[0] * parts[1];
    worker.parallel_for(p.batch * all, 1, [&](int64_t i, int64_t end) {
      for (; i < end; ++i) task(args, i / all, i % all, scratch);
    });
  }

 private:
  // What a task works on.
  struct Task {
    Range y, u, w;   // output rows and windows, input columns
    int64_t step;    // floats from a residue of sums to the next
    float* products;
    float* sums;     // [output][row][residue][window]
  };
  float* sums_of(const Task& t, int64_t output, int64_t y) const { return t.sums + (output * t.y.size() + y - t.y.begin) * p.stride[2] * t.step; }

  void task(const Args& args, int64_t image, int64_t part, float* pixels) const {
    const Range y = output_rows(part), h = input_rows(y, 0, p.kernel[1]), w = input_columns(part), u = output_windows(part);
    const Task t{y, u, w, round_up(u.size(), 16), pixels + row * p.channels, pixels + row * (p.channels + at_once() * rows())};
    const float* const bias = args.in<float>(2);
    for (int64_t o = 0; o < p.outputs; ++o) std::fill_n(sums_of(t, o, y.begin), y.size() * p.stride[2] * t.step, bias ? bias[o] : 0.0f);
    if (h.size() && w.size()) {
      if (w.size() == p.in[2]) read(args.in<float>(0), image, h.begin * p.in[2], h.size() * w.size(), pixels);
      else for (int64_t i = 0; i < h.size(); ++i) read(args.in<float>(0), image, (h.begin + i) * p.in[2] + w.begin, w.size(), pixels + i * w.size());
      for (int64_t k = 0; k < p.kernel[1]; k += at_once()) multiply(t, k, std::min(k + at_once(), p.kernel[1]), pixels, h.begin);
    }
    for (int64_t o = 0; o < p.outputs; ++o)
      for (int64_t i = y.begin; i < y.end; ++i) write(t, sums_of(t, o, i), args.out<float>(0) + ((image * p.outputs + o) * p.out[1] + i) * p.out[2]);
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

  // Kernel rows [first, last); `pixels` begin with input row `top`.
  void multiply(const Task& t, int64_t first, int64_t last, const float* pixels, int64_t top) const {
    const Range h = input_rows(t.y, first, last);
    if (!h.size()) return;
    const float *const a = static_cast<const float*>(weights.get()) + first * rows() * p.channels, *const b = pixels + (h.begin - top) * t.w.size();
    GemmArgs g;
    g.m = (last - first) * rows(), g.n = h.size() * t.w.size(), g.k = p.channels;
    g.a = &a, g.a_row = p.channels;
    g.b = &b, g.b_row = row;
    g.c = t.products, g.c_row = row;
    gemm().gemm(g);
    for (int64_t k = first; k < last; ++k)
      for (int64_t o = 0; o < p.outputs; ++o) {
        const Range reach = input_rows(t.y, k, k + 1);
        for (int64_t i = reach.begin; i < reach.end; ++i)
          add_row(t, t.products + ((k - first) * rows() + o * p.kernel[2]) * row + (i - h.begin) * t.w.size(), sums_of(t, o, i * p.stride[1] + shift(1, k)));
      }
  }

  // `products`: of a row of pixels, the first kernel column's.
  void add_row(const Task& t, const float* products, float* sums) const {
    const BinaryFn add = binary().f32[static_cast<int>(Binary::kAdd)][static_cast<int>(Pair::kVV)];
    for (int64_t k = 0; k < p.kernel[2]; ++k, products += row) {
      const int64_t back = floor_div(shift(2, k), p.stride[2]), residue = shift(2, k) - back * p.stride[2];
      const int64_t begin = std::max(t.u.begin, t.w.begin + back), end = std::min(t.u.end, t.w.end + back);
      if (begin >= end) continue;
      float* const to = sums + residue * t.step + begin - t.u.begin;
      add(to, products + begin - back - t.w.begin, to, end - begin);
    }
  }

  void write(const Task& t, const float* sums, float* y) const {
    const int64_t stride = p.stride[2], first = t.u.begin * stride, last = std::min(t.u.end * stride, p.out[2]), whole = (last - first) / stride;
    transpose_kernels().plane[2](sums, t.step, y + first, stride, stride, whole);
    for (int64_t r = 0; first + whole * stride + r < last; ++r) y[first + whole * stride + r] = sums[r * t.step + whole];
    if (activation) unary().activate(activation, y + first, y + first, last - first);
  }
};

// A convolution of stride 1 is a transposed one with its kernel turned around.
ConvProblem turned(ConvProblem p) {
  p.transposed = true;
  for (int a = 0; a < 3; ++a) p.pad[a] = (p.kernel[a] - 1) * p.dilation[a] - p.pad[a];
  return p;
}

}  // namespace

void prepare_overlap_add(PrepareContext& ctx, const ConvProblem& problem, const Activation& activation) {
  auto k = std::make_unique<OverlapAdd>();
  const bool turn = !problem.transposed;
  const ConvProblem p = turn ? turned(problem) : problem;
  k->p = p;
  k->activation = activation;
  k->blocked = ctx.layout(0) == Layout::kBlocked;
  k->weights = ctx.pack(1, turn ? "overlap add, turned" : "overlap add", [=](const Tensor& tensor) {
    Buffer to = allocate_lasting(static_cast<size_t>(p.channels * p.outputs * p.taps()) * sizeof(float));
    float* at = static_cast<float*>(to.get());
    const float* const w = tensor.as<float>();
    for (int64_t kh = 0; kh < p.kernel[1]; ++kh)
      for (int64_t o = 0; o < p.outputs; ++o)
        for (int64_t kw = 0; kw < p.kernel[2]; ++kw)
          for (int64_t c = 0; c < p.channels; ++c) {
            const int64_t tap = kh * p.kernel[2] + kw;
            *at++ = turn ? w[(o * p.channels + c) * p.taps() + p.taps() - 1 - tap] : w[(c * p.outputs + o) * p.taps() + tap];
          }
    return to;
  });
  k->cut();
  ctx.workspace(ctx.threads() * k->thread_floats * static_cast<int64_t>(sizeof(float)));
  ctx.cost(p.flops(), 4.0 * static_cast<double>(p.batch * (p.channels * p.in_plane() + p.outputs * p.out_plane()) + p.channels * p.outputs * p.taps()));
  ctx.drops(1);
  ctx.kernel(std::move(k));
}

}  // namespace tiercel

#include "ops/winograd_run.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "kernels/winograd/winograd.h"
#include "ops/conv_run.h"

namespace tiercel {
namespace {

constexpr int64_t kBlock = kWinogradBlock;
constexpr int64_t kPanelBlocks = 4;          // output blocks of a panel at most
constexpr int64_t kChunk = 36;               // tiles of a task, about: their sums stay in L2
constexpr int64_t kInputFloats = 1 << 20;    // transformed inputs at hand at a time, about: they stay in L3
constexpr int64_t kChain = 64;               // steps of the products: their rounding errors grow in the output transform
constexpr int64_t kStayFloats = 112 << 10;   // transformed inputs of a task that stay in L2 beside its sums
constexpr int64_t kApartFloats = 160 << 10;  // transformed inputs that stay in L2 beside the weights that stream through
constexpr int64_t kLinePad = 16;             // keeps the frequencies of a tile on different cache sets

int64_t blocks_of(int64_t channels) { return ceil_div(channels, kBlock); }

class WinogradConv final : public Kernel {
 public:
  ConvProblem problem;
  WinogradShape shape;
  Activation activation;
  float low = -INFINITY, high = INFINITY;
  bool clamp = true;
  Buffer packed;
  std::vector<float> bias;  // padded to blocks
  int64_t depth = 0;        // channels that the products read: even, for their fastest form
  bool together = false;    // a thread transforms the tiles of a task and multiplies them at once: they stay in its L2
  bool apart = false;       // every thread transforms all tiles for itself: few, for many outputs, and no thread reads what another wrote
  int64_t batch_tiles = 0;  // tiles transformed at a time: of all the images', or of a task
  int64_t m_floats = 0;     // sums of a task in the workspace, a slice a thread

  int64_t all_tiles() const { return problem.batch * shape.tiles_of_image(); }
  int64_t v_row() const { return blocks_of(problem.channels) * kBlock; }
  int64_t v_step() const { return batch_tiles * v_row() + kLinePad; }
  int64_t v_floats() const { return round_up(shape.frequencies() * v_step(), kBlock); }

  // Panels of about equal width, as many for each of two threads; the weights of a panel lie together, a packed matrix for each frequency.
  int64_t panels() const {
    const int64_t n = ceil_div(blocks_of(problem.outputs), kPanelBlocks);
    return n > 1 ? round_up(n, 2) : n;
  }
  int64_t panel_begin(int64_t i) const { return blocks_of(problem.outputs) * i / panels(); }
  int64_t panel_width(int64_t i) const { return (panel_begin(i + 1) - panel_begin(i)) * kBlock; }
  int64_t packed_matrix(int64_t width) const { return gemm_packed_floats(gemm(), depth, width); }
  int64_t panel_at(int64_t i) const { return shape.frequencies() * packed_matrix(panel_begin(i) * kBlock); }

  // The weights' frequencies go where pack_b would put them: see weight().
  Buffer pack(const PrepareContext& ctx, const Tensor& w) const {
    constexpr int64_t kFloats = 64 << 10;
    const int64_t f = shape.frequencies(), floats = panel_at(panels()), wide = gemm().panel, step = std::min(kBlock, wide), steps = wide / step;
    Buffer memory = allocate_lasting(static_cast<size_t>(floats) * sizeof(float));
    float* const to = static_cast<float*>(memory.get());
    const float* const from = w.as<float>();
    struct Part { int64_t panel, start; };  // columns of a panel that lie together
    std::vector<Part> parts;
    for (int64_t p = 0; p < panels(); ++p)
      for (int64_t start = 0; start < panel_width(p); start += wide) parts.push_back({p, start});
    ctx.split(static_cast<int64_t>(parts.size()) * steps, std::max<int64_t>(1, kFloats / (f * depth * kBlock)), [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const auto [p, start] = parts[static_cast<size_t>(i / steps)];
        const int64_t width = panel_width(p), columns = std::min(wide, width - start), at = i % steps * step;
        if (at >= columns) continue;
        const int64_t first = panel_begin(p) * kBlock + start + at, matrix = packed_matrix(width);
        float* const u = to + panel_at(p) + depth * start + at;
        const int64_t outputs = std::clamp<int64_t>(problem.outputs - first, 0, step);
        if (outputs < step || depth > problem.channels)  // what the transform leaves out
          for (int64_t row = 0; row < f * depth; ++row) std::fill_n(u + row / depth * matrix + row % depth * columns, step, 0.0f);
        if (outputs) winograd().weights(shape.tile, from + first * problem.channels * 9, outputs, problem.channels, u, matrix, columns);
      }
    });
    return memory;
  }

  void run(const Args& args, Worker& worker) const override {
    const float *x = args.in<float>(0), *residual = args.in<float>(3);
    float *y = args.out<float>(0), *v = args.workspace<float>();
    if (together) return chunk_by_chunk(worker, x, v + worker.index() * (v_floats() + m_floats), residual, y);
    if (apart) {
      v += worker.index() * (v_floats() + m_floats);
      transform(x, v, 0, all_tiles());
      return multiply(worker, x, v, v + v_floats(), residual, y, 0, all_tiles());
    }
    for (int64_t first = 0; first < all_tiles(); first += batch_tiles) {
      const int64_t last = std::min(first + batch_tiles, all_tiles());
      if (first) worker.barrier();
      transform_inputs(worker, x, v, first, last);
      worker.barrier();
      multiply(worker, x, v, v + v_floats() + worker.index() * m_floats, residual, y, first, last);
    }
  }

 private:
  // f(image, first, last): the parts of tiles [first, last) that lie in one image, counted within it.
  template <class F> void each_image(int64_t first, int64_t last, F&& f) const {
    const int64_t n = shape.tiles_of_image();
    while (first < last) {
      const int64_t image = first / n, end = std::min(last, (image + 1) * n);
      f(image, first - image * n, end - image * n);
      first = end;
    }
  }
  const float* x_block(const float* x, int64_t image, int64_t block) const {
    return x + (image * blocks_of(problem.channels) + block) * problem.in_plane() * kBlock;
  }

  // All channels of tiles [first, last), on this thread.
  void transform(const float* x, float* v, int64_t first, int64_t last) const {
    each_image(first, last, [&](int64_t image, int64_t a, int64_t b) {
      const int64_t at = image * shape.tiles_of_image() + a - first;
      for (int64_t block = 0; block < blocks_of(problem.channels); ++block)
        winograd().input(shape, x_block(x, image, block), a, b, v + at * v_row() + block * kBlock, v_step(), v_row());
    });
  }

  void transform_inputs(Worker& worker, const float* x, float* v, int64_t first, int64_t last) const {
    constexpr int64_t kTiles = 16;
    const int64_t blocks = blocks_of(problem.channels), parts = ceil_div(last - first, kTiles);
    worker.parallel_for(parts * blocks, std::max<int64_t>(1, std::min<int64_t>(4, parts * blocks / 16)), [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const int64_t block = i % blocks, t0 = first + i / blocks * kTiles, t1 = std::min(t0 + kTiles, last);
        each_image(t0, t1, [&](int64_t image, int64_t a, int64_t b) {
          const int64_t at = image * shape.tiles_of_image() + a - first;
          winograd().input(shape, x_block(x, image, block), a, b, v + at * v_row() + block * kBlock, v_step(), v_row());
        });
      }
    });
  }

  void multiply(Worker& worker, const float* x, const float* v, float* m, const float* residual, float* y, int64_t first, int64_t last) const {
    const int64_t tiles = last - first, chunks = ceil_div(tiles, kChunk);
    // Neighbouring tasks go to one thread: they share tiles, which it transformed, or weights, whichever are more.
    const bool by_tiles = tiles > problem.outputs;
    worker.parallel_for(panels() * chunks, 1, [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const int64_t p = by_tiles ? i % panels() : i / chunks, chunk = by_tiles ? i / panels() : i % chunks;
        const int64_t a = tiles * chunk / chunks, b = tiles * (chunk + 1) / chunks;
        panel_of(p, x, v + a * v_row(), m, residual, y, first + a, first + b);
      }
    });
  }

  void chunk_by_chunk(Worker& worker, const float* x, float* v, const float* residual, float* y) const {
    const int64_t chunks = ceil_div(all_tiles(), batch_tiles);
    worker.parallel_for(chunks, 1, [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const int64_t first = all_tiles() * i / chunks, last = all_tiles() * (i + 1) / chunks;
        transform(x, v, first, last);
        for (int64_t p = 0; p < panels(); ++p) panel_of(p, x, v, v + v_floats(), residual, y, first, last);
      }
    });
  }

  // One panel of outputs of tiles [first, last), whose transforms begin at v.
  void panel_of(int64_t p, const float* x, const float* v, float* m, const float* residual, float* y, int64_t first, int64_t last) const {
    const int64_t width = panel_width(p), matrix = packed_matrix(width), tiles = last - first, m_step = tiles * width + kLinePad;
    const float* const u = static_cast<const float*>(packed.get()) + panel_at(p);
    for (int f = 0; f < shape.frequencies(); ++f) {
      const float* const ap = v + f * v_step();
      const float* const bp = u + f * matrix;
      GemmArgs g;
      g.m = tiles;
      g.n = width;
      g.k = depth;
      g.chain = kChain;
      g.a = &ap;
      g.a_row = v_row();
      g.b = &bp;
      g.c = m + f * m_step;
      g.c_row = width;
      g.next_b = f + 1 < shape.frequencies() || p + 1 < panels() ? bp + matrix : nullptr;  // panels lie one after the other
      if (!together && !apart && f + 1 < shape.frequencies()) fetch(ap + v_step(), tiles * v_row());
      gemm().gemm(g);
    }
    for (int64_t block = panel_begin(p); block < panel_begin(p + 1); ++block)
      each_image(first, last, [&](int64_t image, int64_t t0, int64_t t1) {
        const int64_t at = image * shape.tiles_of_image() + t0 - first;
        finish(x, p, block, image, t0, t1, m + at * width + (block - panel_begin(p)) * kBlock, m_step, residual, y);
      });
  }

  // Brings into L2 what another core may have written.
  static void fetch(const float* p, int64_t floats) {
    for (int64_t i = 0; i < floats; i += 16) __builtin_prefetch(p + i, 0, 2);
  }

  void finish(const float* x, int64_t panel, int64_t block, int64_t image, int64_t first, int64_t last, const float* m, int64_t m_step,
              const float* residual, float* y) const {
    const int64_t at = (image * blocks_of(problem.outputs) + block) * problem.out_plane() * kBlock;
    const WinogradOutput o{m, m_step, panel_width(panel), &bias[static_cast<size_t>(block * kBlock)], residual ? residual + at : nullptr, y + at, low, high,
                           clamp ? nullptr : &activation, static_cast<int>(std::min(kBlock, problem.outputs - block * kBlock))};
    std::array<int64_t, kChunk> odd;
    const int64_t n = winograd().output(shape, o, first, last, odd.data());
    if (n == 0) return;
    const std::vector<float> g = kernels(panel, block);
    for (int64_t i = 0; i < n; ++i) direct(x, g.data(), image, o, odd[static_cast<size_t>(i)]);
  }

  // The kernels from all channels to a block of outputs, [channel][9][16], out of their frequencies.
  std::vector<float> kernels(int64_t panel, int64_t block) const {
    const int64_t first = (block - panel_begin(panel)) * kBlock;
    std::vector<float> g(static_cast<size_t>(problem.channels * 9 * kBlock)), u(static_cast<size_t>(shape.frequencies() * kBlock));
    for (int64_t c = 0; c < problem.channels; ++c) {
      for (int f = 0; f < shape.frequencies(); ++f)
        for (int64_t l = 0; l < kBlock; ++l) u[static_cast<size_t>(f * kBlock + l)] = weight(panel, f, c, first + l);
      winograd_kernels_of(shape.tile, u.data(), kBlock, &g[static_cast<size_t>(c * 9 * kBlock)]);
    }
    return g;
  }

  // Frequency f of the kernel from channel c to output `column` of a panel, where pack_b put it.
  float weight(int64_t panel, int f, int64_t c, int64_t column) const {
    const int64_t width = panel_width(panel), wide = gemm().panel, start = column / wide * wide;
    const float* const matrix = static_cast<const float*>(packed.get()) + panel_at(panel) + f * packed_matrix(width);
    return matrix[depth * start + c * std::min(wide, width - start) + column - start];
  }

  // A tile with an infinity, NaN or huge value, by the definition: it reaches the pixels alone whose windows hold it.
  void direct(const float* x, const float* g, int64_t image, const WinogradOutput& o, int64_t tile) const {
    const int64_t m = shape.tile, i0 = tile / shape.tiles[1] * m, j0 = tile % shape.tiles[1] * m;
    const int64_t rows = std::min(m, shape.out[0] - i0), columns = std::min(m, shape.out[1] - j0);
    std::array<float, 16 * kBlock> sums{};
    for (int64_t c = 0; c < problem.channels; ++c, g += 9 * kBlock) {
      const float* const from = x_block(x, image, c / kBlock) + c % kBlock;
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < columns; ++j)
          for (int64_t k = 0; k < 9; ++k) {
            const int64_t h = i0 + i - shape.pad[0] + k / 3, w = j0 + j - shape.pad[1] + k % 3;
            if (h < 0 || w < 0 || h >= shape.in[0] || w >= shape.in[1]) continue;
            const float value = from[(h * shape.in[1] + w) * kBlock];
            float* const sum = &sums[static_cast<size_t>((i * columns + j) * kBlock)];
            for (int64_t l = 0; l < kBlock; ++l) sum[l] += value * g[k * kBlock + l];
          }
    }
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j)
        for (int64_t l = 0; l < kBlock; ++l) {
          const int64_t at = ((i0 + i) * shape.out[1] + j0 + j) * kBlock + l;
          float s = sums[static_cast<size_t>((i * columns + j) * kBlock + l)] + o.bias[l];
          if (o.residual) s += o.residual[at];
          s = std::isnan(s) ? s : std::min(o.high, std::max(o.low, s));
          o.y[at] = l < o.tail ? (o.activation ? activate(s, *o.activation) : s) : 0.0f;
        }
  }
};

// Cycles of a core with 16 lanes and two multiply-add ports. The larger of arithmetic and weights hides most of the other; weights
// come from memory (5 bytes a cycle where two cores share it), for between two runs of a layer the rest of the model passes by.
double hidden(double arithmetic, double weight_floats) {
  const double memory = weight_floats * 4 / 5;
  return std::max(arithmetic, memory) + 0.2 * std::min(arithmetic, memory);
}
double direct_cycles(const ConvProblem& p) {
  return hidden(static_cast<double>(p.batch * p.out_plane() * 9 * p.channels * blocks_of(p.outputs)) / 2 / 0.85,
                9 * static_cast<double>(p.channels * p.outputs));
}
double winograd_cycles(const ConvProblem& p, int tile) {
  const int f = (tile + 2) * (tile + 2);
  const double tiles = static_cast<double>(p.batch * ceil_div(p.out[1], tile) * ceil_div(p.out[2], tile));
  const double in = static_cast<double>(blocks_of(p.channels)), out = static_cast<double>(blocks_of(p.outputs));
  const double transforms = tiles * (in + out) * (tile == 4 ? 170 : 65);
  const double products = std::max(tiles, 6.0) * f * static_cast<double>(p.channels) * out / 2 / 0.85;
  return hidden(products + transforms, f * static_cast<double>(p.channels * p.outputs));
}

}  // namespace

int winograd_tile(const ConvProblem& p) {
  if (p.transposed || p.groups != 1 || p.in[0] != 1 || p.kernel[0] != 1 || p.pad[0] != 0 || p.out[0] != 1 || p.x_plain) return 0;
  for (int a = 1; a < 3; ++a)
    if (p.kernel[a] != 3 || p.stride[a] != 1 || p.dilation[a] != 1 || p.out[a] < 2) return 0;
  if (p.channels < 8 || p.outputs < 8) return 0;
  const double direct = direct_cycles(p), four = winograd_cycles(p, 4), two = winograd_cycles(p, 2);
  if (std::min(four, two) > 0.9 * direct) return 0;  // else the larger weights are not worth their memory
  return two < 0.9 * four ? 2 : 4;
}

void prepare_winograd_conv(PrepareContext& ctx, const ConvProblem& p, const Activation& activation, int tile) {
  auto k = std::make_unique<WinogradConv>();
  k->problem = p;
  k->shape.tile = tile;
  for (int a = 0; a < 2; ++a) {
    k->shape.in[a] = p.in[a + 1];
    k->shape.out[a] = p.out[a + 1];
    k->shape.pad[a] = p.pad[a + 1];
    k->shape.tiles[a] = ceil_div(p.out[a + 1], tile);
  }
  k->activation = activation;
  k->clamp = activation_clamp(activation, k->low, k->high);
  k->depth = round_up(p.channels, 2);
  k->packed = ctx.pack(1, "winograd" + std::to_string(tile) + ":" + std::to_string(gemm().panel), [&](const Tensor& w) { return k->pack(ctx, w); });
  k->bias.assign(static_cast<size_t>(blocks_of(p.outputs) * kBlock), 0.0f);
  if (const Tensor* b = ctx.constant(2)) std::copy_n(b->as<float>(), p.outputs, k->bias.begin());
  const int f = k->shape.frequencies();
  const int64_t tiles = k->all_tiles(), stays = kStayFloats / (f * k->v_row());
  k->together = stays >= kChunk / 2 && tiles >= 4 * kChunk;
  k->apart = !k->together && ctx.threads() > 1 && k->panels() >= ctx.threads() && tiles * f * k->v_row() <= kApartFloats;
  if (k->together) {
    // As many tasks for each thread.
    const int64_t tasks = round_up(ceil_div(tiles, std::min(stays, kChunk)), 4);
    k->batch_tiles = ceil_div(tiles, tasks);
  } else if (k->apart) {
    k->batch_tiles = tiles;
  } else {
    const int64_t at_a_time = std::max<int64_t>(kInputFloats / (f * k->v_row()), 2 * kChunk);
    k->batch_tiles = ceil_div(tiles, ceil_div(tiles, at_a_time));
  }
  k->m_floats = f * (std::min(kChunk, k->batch_tiles) * std::min(kPanelBlocks, blocks_of(p.outputs)) * kBlock + kLinePad);
  ctx.workspace(4 * (k->together || k->apart ? ctx.threads() * (k->v_floats() + k->m_floats) : k->v_floats() + ctx.threads() * k->m_floats));
  ctx.cost(p.flops() * f / (9.0 * tile * tile), 4.0 * (static_cast<double>(p.batch * (p.channels * p.in_plane() + p.outputs * p.out_plane())) +
                                                       static_cast<double>(f * p.channels * p.outputs)));
  if (ctx.has_input(3) && ctx.layout(3) == ctx.out_layout(0) && ctx.node.inputs[3] != ctx.node.inputs[0]) ctx.inplace(0, 3);
  ctx.drops(1);
  ctx.kernel(std::move(k));
}

}  // namespace tiercel

#include "ops/conv_run.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "kernels/reorder/reorder.h"

namespace tiercel {
namespace {

constexpr int64_t kSmallWeights = 384 << 10;  // bytes that stay in L2 beside a chunk's pixels
constexpr int64_t kL1Weights = 24 << 10;
constexpr int64_t kChunkBytes = 512 << 10;    // of the pixels that a chunk reads
// Of the estimate in choose_chunks, measured on chains of pointwise layers (docs/performance.md).
constexpr double kLowTile = 3.5;     // pixels: lower tiles wait for the latency of their sums
constexpr double kTileStart = 0.3;   // pixels that a tile's beginning and end cost
constexpr double kLate = 0.03;        // of the whole, lost to threads that come late where there is one task
constexpr double kOthersLines = 0.06; // of the whole, where each thread reads what all have written
constexpr int64_t kLargePanel = 192 << 10;    // a panel above this is walked in passes of kPassBytes
constexpr int64_t kPassBytes = 128 << 10;
constexpr double kTaskFlops = 2e6;            // about ten microseconds
constexpr double kFewFlops = 1e6;
constexpr int64_t kTasks = 64;                // at most, of one kind: enough to balance, few enough to keep chunks long
constexpr int64_t kReorderPixels = 1024;

int64_t pixels_of(const ConvShape& s) { return s.out[0] * s.out[1] * s.out[2]; }
int64_t blocks_of(int64_t channels) { return ceil_div(channels, kConvBlock); }

int64_t packed_floats(const ConvPlan& plan) { return plan.packed + conv_pack_parts(plan); }

// Where the packed weights of part `part` begin; only plans of panels are asked.
int64_t part_begin(const ConvPlan& plan, int64_t part) {
  for (const ConvPhase& phase : plan.phases) {
    const auto n = static_cast<int64_t>(phase.panels.size());
    if (part < n) return phase.panels[static_cast<size_t>(part)].w;
    part -= n;
  }
  return plan.packed;
}

// pack_conv, and whether the part is finite, behind all of them: see ConvTask::finite.
void pack_part(const ConvPlan& plan, const float* w, float* packed, int64_t part) {
  pack_conv(plan, w, packed, part);
  if (plan.algorithm != ConvAlgorithm::kDirect) return;
  constexpr uint32_t kExponent = 0x7f800000;
  uint32_t others = 0;
  for (int64_t i = part_begin(plan, part), end = part_begin(plan, part + 1); i < end; ++i)
    others |= (std::bit_cast<uint32_t>(packed[i]) & kExponent) == kExponent;
  packed[plan.packed + part] = others ? 0.0f : 1.0f;
}

class DirectConv final : public Kernel {
 public:
  ConvPlan plan;
  Activation activation;
  float low = -INFINITY, high = INFINITY;
  bool clamp = true;                        // the activation is the clamp
  Buffer packed;                            // null: packed at each run
  std::vector<float> bias;                  // padded to blocks; empty: copied at each run
  bool reorder_x = false, reorder_y = false;
  int64_t x_at = 0, y_at = 0, r_at = 0, w_at = 0, b_at = 0;  // in the workspace, in floats; the residual's may be y's

  // A task is a chunk of the pixels of one image, for all panels or (panel_tasks) for one.
  int64_t chunks = 1;
  bool panel_tasks = false;
  struct Unit { int phase, panel, part; bool finite; };  // part: among those that pack_conv packs; finite: of constant weights
  std::vector<Unit> units;

  void split(int threads) {
    const ConvProblem& p = plan.problem;
    if (plan.algorithm != ConvAlgorithm::kDirect) {
      const int64_t planes = p.batch * blocks_of(p.outputs), rows = p.out[0] * p.out[1];
      // Chunks of rows are the outer loop, as in other convolutions: a thread keeps its part of the image from layer to layer.
      chunks = std::clamp<int64_t>(std::max(ceil_div(kTasks / 4, planes), std::min<int64_t>(4, rows / 4)), 1, std::max<int64_t>(rows, 1));
      return;
    }
    for (size_t i = 0; i < plan.phases.size(); ++i)
      for (size_t j = 0, n = units.size(); j < plan.phases[i].panels.size(); ++j, ++n)
        units.push_back({static_cast<int>(i), static_cast<int>(j), static_cast<int>(n), packed && is_finite(static_cast<const float*>(packed.get()), n)});
    choose_chunks(threads);
  }

  // Of the work by panels, each `times` tasks, the largest part that a thread begins with. `before`: blocks of the panels before each, and of all.
  static double largest_range(const std::vector<int64_t>& before, int64_t times, int threads) {
    const int64_t tasks = (static_cast<int64_t>(before.size()) - 1) * times;
    const auto blocks = [&](int64_t task) {  // of the tasks before this one
      const auto u = static_cast<size_t>(task / times);
      return before[u] * times + (task % times ? (before[u + 1] - before[u]) * (task % times) : 0);
    };
    int64_t most = 0;
    for (int t = 0; t < threads; ++t) most = std::max(most, blocks(tasks * (t + 1) / threads) - blocks(tasks * t / threads));
    return static_cast<double>(most) / static_cast<double>(before.back() * times);
  }

  // The split of least estimated time for the team. It is counted in the time of a pixel for all panels: a low tile takes as long as one of
  // kLowTile pixels, and a panel whose weights are not in L1 is slow to start.
  void choose_chunks(int threads) {
    const ConvProblem& p = plan.problem;
    const auto count = static_cast<int64_t>(units.size()), phases = static_cast<int64_t>(plan.phases.size());
    const double pixels = static_cast<double>(p.out_plane()) / static_cast<double>(phases);
    const int64_t weights = plan.packed * 4, x_bytes = p.channels / p.groups * p.in_plane() * 4;
    const int64_t most_rows = conv().rows[plan.phases[0].panels[0].panel];
    const auto some = static_cast<int64_t>(std::ceil(pixels));  // chunks beyond would be empty
    // The pixels of a chunk wait in L2 for the next panel.
    const int64_t fewest = std::clamp<int64_t>(count > 1 ? ceil_div(x_bytes, kChunkBytes) : 1, 1, some), most = std::clamp(kTasks, fewest, some);
    std::vector<int64_t> before(1);
    for (const Unit& u : units) before.push_back(before.back() + plan.phases[static_cast<size_t>(u.phase)].panels[static_cast<size_t>(u.panel)].panel);
    double least = INFINITY;
    const int64_t finer = p.flops() < kFewFlops ? 2 : 8;  // where the search would take as long as what it gains
    for (const bool by_panel : {false, true})
      for (int64_t c = fewest; c <= most; c += std::max<int64_t>(1, c / finer)) {
        if (by_panel && count == 1) break;  // the same
        const auto chunk = static_cast<int64_t>(std::ceil(pixels / static_cast<double>(c))), tiles = ceil_div(chunk, most_rows);
        const double rows = static_cast<double>(chunk) / static_cast<double>(tiles);
        const double start = by_panel || weights <= kL1Weights ? 1 : weights <= kSmallWeights ? 4 : 8;
        const double time = static_cast<double>(tiles) * (std::max(rows, kLowTile) + kTileStart) + start;
        const int64_t tasks = p.batch * c * (by_panel ? count : 1);
        double share = static_cast<double>(ceil_div(tasks, threads)) / static_cast<double>(tasks);
        if (by_panel && threads > 1) share = std::max(share, largest_range(before, p.batch * c, threads));
        // Of a thread that is late, half a task is waited for; panels apart, each thread reads what all have written.
        const double estimate = share * time * static_cast<double>(c) / pixels + kLate / static_cast<double>(tasks) + (by_panel ? kOthersLines : 0);
        if (estimate >= least) continue;
        least = estimate;
        chunks = c;
        panel_tasks = by_panel;
      }
  }

  void run(const Args& args, Worker& worker) const override {
    const ConvProblem& p = plan.problem;
    float* const ws = args.workspace<float>();
    const float *x = args.in<float>(0), *w = static_cast<const float*>(packed.get()), *b = bias.data();
    const float* residual = args.in<float>(3);
    float* y = args.out<float>(0);
    bool wait = false;
    if (!packed) {
      worker.parallel_for(conv_pack_parts(plan), 1, [&](int64_t i, int64_t end) {
        for (; i < end; ++i) pack_part(plan, args.in<float>(1), ws + w_at, i);
      });
      w = ws + w_at;
      wait = true;
    }
    if (bias.empty()) {
      const int64_t n = blocks_of(p.outputs) * kConvBlock;
      worker.parallel_for(1, 1, [&](int64_t, int64_t) {
        copy_bias(args.in<float>(2), p.outputs, ws + b_at);
        std::fill(ws + b_at + p.outputs, ws + b_at + n, 0.0f);
      });
      b = ws + b_at;
      wait = true;
    }
    if (reorder_x) {
      to_blocked(worker, x, p.channels, p.in_plane(), ws + x_at);
      x = ws + x_at;
      wait = true;
    }
    if (reorder_y) {
      if (residual) {
        to_blocked(worker, residual, p.outputs, p.out_plane(), ws + r_at);
        residual = ws + r_at;
        wait = true;
      }
      y = ws + y_at;
    }
    if (wait) worker.barrier();
    if (plan.algorithm == ConvAlgorithm::kDirect) direct_tasks(worker, x, w, b, residual, y);
    else block_tasks(worker, x, w, b, residual, y);
    if (reorder_y) {
      worker.barrier();
      to_plain(worker, y, args.out<float>(0));
    }
  }

 private:
  bool is_finite(const float* w, size_t part) const { return w[static_cast<size_t>(plan.packed) + part] != 0; }

  void to_blocked(Worker& worker, const float* x, int64_t channels, int64_t plane, float* y) const {
    const int64_t blocks = blocks_of(channels), parts = ceil_div(plane, kReorderPixels);
    const ReorderKernels& k = reorder();
    worker.parallel_for(plan.problem.batch * blocks * parts, 4, [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const int64_t part = i % parts, block = i / parts % blocks, n = i / parts / blocks, at = part * kReorderPixels;
        k.to_blocked(x + (n * channels + block * kConvBlock) * plane + at, plane,
                     static_cast<int>(std::min<int64_t>(kConvBlock, channels - block * kConvBlock)),
                     std::min(kReorderPixels, plane - at), y + ((n * blocks + block) * plane + at) * kConvBlock);
      }
    });
  }
  void to_plain(Worker& worker, const float* x, float* y) const {
    const ConvProblem& p = plan.problem;
    const int64_t plane = p.out_plane(), blocks = blocks_of(p.outputs), parts = ceil_div(plane, kReorderPixels);
    const ReorderKernels& k = reorder();
    worker.parallel_for(p.batch * blocks * parts, 4, [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const int64_t part = i % parts, block = i / parts % blocks, n = i / parts / blocks, at = part * kReorderPixels;
        k.to_plain(x + ((n * blocks + block) * plane + at) * kConvBlock, std::min(kReorderPixels, plane - at),
                   y + (n * p.outputs + block * kConvBlock) * plane + at, plane,
                   static_cast<int>(std::min<int64_t>(kConvBlock, p.outputs - block * kConvBlock)));
      }
    });
  }

  // Depthwise convolutions and those of small groups: a task is a run of rows of a block.
  void block_tasks(Worker& worker, const float* x, const float* w, const float* b, const float* residual, float* y) const {
    const ConvProblem& p = plan.problem;
    const int64_t blocks = blocks_of(p.outputs), rows = p.out[0] * p.out[1], row = p.out[2] * kConvBlock;
    const int64_t tasks = p.batch * blocks * chunks;
    const auto grain = static_cast<int64_t>(kTaskFlops / 4 * static_cast<double>(tasks) / (p.flops() + 1));
    worker.parallel_for(tasks, std::clamp<int64_t>(grain, 1, std::max<int64_t>(tasks / 4, 1)), [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const int64_t n = i / (chunks * blocks), chunk = i / blocks % chunks, block = i % blocks, plane = n * blocks + block;
        const int64_t first = rows * chunk / chunks, last = rows * (chunk + 1) / chunks;
        const int tail = static_cast<int>(std::min<int64_t>(kConvBlock, p.outputs - block * kConvBlock));
        float* const out = y + plane * rows * row;
        const float* const add = residual ? residual + plane * rows * row : nullptr;
        if (plan.algorithm == ConvAlgorithm::kDepthwise) {
          const DepthwiseTask t{x + plane * p.in_plane() * kConvBlock, w + block * p.taps() * kConvBlock, b + block * kConvBlock, add, out,
                                low, high, tail};
          depthwise().run(plan.depthwise, t, first, last);
        } else {
          grouped_block(x + n * blocks_of(p.channels) * kConvBlock * p.in_plane(), w, b, add, out, block, tail, first, last);
        }
        if (!clamp) conv().activate(activation, out + first * row, (last - first) * p.out[2], tail);
      }
    });
  }

  // x: an image; residual and y: the block's.
  void grouped_block(const float* x, const float* w, const float* b, const float* residual, float* y, int64_t block, int tail,
                     int64_t first, int64_t last) const {
    for (int lane = 0; lane < kConvBlock; lane += plan.lanes) {
      const int64_t channel = block * kConvBlock + lane;
      const GroupedPanel& panel = plan.registers[static_cast<size_t>(channel / plan.lanes)];
      const GroupedTask t{x, w + panel.w, plan.steps.data() + panel.step, panel.steps, panel.uneven, b + channel,
                          residual ? residual + lane : nullptr, y + lane, low, high, tail - lane};
      grouped().run(plan.grouped, t, first, last);
    }
  }

  // Sums of a panel that several groups share are NaN where another group has an infinity or NaN, for its weights there are zeros: those pixels
  // again, each group for itself.
  static void keep_groups_apart(const ConvProblem& p, const ConvPhase& phase, const ConvPanel& panel, const ConvTask& t, int64_t first, int64_t last) {
    const ConvShape& s = phase.shape;
    for (int64_t i = first, n; i < last; i += n) {  // the part of a row
      const int64_t at[3] = {i / s.out[2] / s.out[1], i / s.out[2] % s.out[1], i % s.out[2]};
      n = std::min(last - i, s.out[2] - at[2]);
      const int64_t y_at = at[0] * s.y_step[0] + at[1] * s.y_step[1] + at[2] * s.y_step[2];
      for (int o = 0; o < panel.panel; ++o) {
        if (!conv().has_nan(t.y + y_at + o * s.y_block, s.y_step[2], n)) continue;
        for (int64_t k = 0; k < n; ++k) apart_at(p, s, panel, t, {at[0], at[1], at[2] + k}, o, y_at + k * s.y_step[2] + o * s.y_block);
      }
    }
  }

  // The NaN of output block o of the panel at pixel `at` of the grid, `y_at` floats from t.y.
  static void apart_at(const ConvProblem& p, const ConvShape& s, const ConvPanel& panel, const ConvTask& t, const int64_t (&at)[3], int o, int64_t y_at) {
    const int64_t in_group = p.channels / p.groups, out_group = p.outputs / p.groups, exist = o + 1 < panel.panel ? kConvBlock : panel.tail;
    for (int64_t l = 0; l < exist; ++l) {
      if (!std::isnan(t.y[y_at + l])) continue;
      const int64_t group = ((panel.y_block + o) * kConvBlock + l) / out_group;
      float sum = t.bias[o * kConvBlock + l];
      for (int64_t c = group * in_group; c < (group + 1) * in_group; ++c)
        sum = taps_of_channel(s, panel, t, at, c - panel.x_block * kConvBlock, o * kConvBlock + l, sum);
      if (t.residual) sum = t.residual[y_at + l] + sum;
      t.y[y_at + l] = std::isnan(sum) ? sum : std::min(t.high, std::max(t.low, sum));
    }
  }

  // sum + what channel c, counted from the panel's first, adds to `column` of the panel at output pixel `at` of the grid.
  static float taps_of_channel(const ConvShape& s, const ConvPanel& panel, const ConvTask& t, const int64_t (&at)[3], int64_t c, int64_t column, float sum) {
    const int64_t b = c / kConvBlock, n = b + 1 < panel.blocks ? kConvBlock : panel.last, width = panel.panel * kConvBlock;
    const float* const w = t.w + (b * kConvBlock * s.taps + c % kConvBlock) * width + column;
    for (int64_t k = 0; k < s.taps; ++k) {
      int64_t pixel = 0;
      bool inside = true;
      for (int a = 0; a < 3; ++a) {
        const int64_t x = at[a] * s.stride[a] + s.origin[a] + s.tap[3 * k + a];
        inside &= x >= 0 && x < s.in[a];
        pixel = pixel * s.in[a] + x;
      }
      sum += (inside ? t.x[b * s.x_block + pixel * s.x_pixel + c % kConvBlock] : 0.0f) * w[k * n * width];  // padding times an infinity is NaN
    }
    return sum;
  }

  // `next`: the unit this thread comes to when the chunk is the image's last, or null.
  void unit(const Unit& u, const Unit* next, int64_t n, int64_t chunk, const float* x, const float* w, const float* b,
            const float* residual, float* y) const {
    const ConvProblem& p = plan.problem;
    const ConvPhase& phase = plan.phases[static_cast<size_t>(u.phase)];
    const ConvPanel& panel = phase.panels[static_cast<size_t>(u.panel)];
    const ConvShape& s = phase.shape;
    const bool whole = phase.rows && s.out[0] * s.out[1] >= 4 * chunks;  // whole rows where tiles are runs of a row
    const int64_t run = whole ? s.out[2] : 1, runs = pixels_of(s) / run;
    const int64_t first = runs * chunk / chunks * run, last = runs * (chunk + 1) / chunks * run;
    const int64_t x_image = p.x_plain ? p.channels * p.in_plane() : blocks_of(p.channels) * s.x_block;
    const int64_t at = (n * blocks_of(p.outputs) + panel.y_block) * s.y_block + phase.y_origin;
    ConvTask t{x + n * x_image + panel.x_block * s.x_block, w + panel.w, b + panel.y_block * kConvBlock,
               residual ? residual + at : nullptr, y + at, panel.panel, panel.blocks, panel.last, low, high, panel.tail, conv_pass(s, panel)};
    t.finite = packed ? u.finite : is_finite(w, static_cast<size_t>(u.part));
    if (next) {
      const ConvPanel& after = plan.phases[static_cast<size_t>(next->phase)].panels[static_cast<size_t>(next->panel)];
      t.next = w + after.w;
      t.next_size = conv_fetch(plan, after);
    }
    (phase.rows ? conv_plain().run : conv().run)(s, t, first, last);
    if (panel.shared) keep_groups_apart(p, phase, panel, t, first, last);
    if (clamp || p.transposed) return;
    for (int i = 0; i < panel.panel; ++i)
      conv().activate(activation, y + at + i * s.y_block + first * kConvBlock, last - first,
                      i + 1 < panel.panel ? kConvBlock : panel.tail);
  }

  void direct_tasks(Worker& worker, const float* x, const float* w, const float* b, const float* residual, float* y) const {
    const ConvProblem& p = plan.problem;
    const auto count = static_cast<int64_t>(units.size());
    if (panel_tasks) {
      worker.parallel_for(count * p.batch * chunks, 1, [&](int64_t i, int64_t end) {
        for (; i < end; ++i) {
          const int64_t u = i / chunks / p.batch, after = (i + 1) / chunks / p.batch;
          unit(units[static_cast<size_t>(u)], after > u && after < count ? &units[static_cast<size_t>(after)] : nullptr,
               i / chunks % p.batch, i % chunks, x, w, b, residual, y);
        }
      });
    } else {
      worker.parallel_for(p.batch * chunks, 1, [&](int64_t i, int64_t end) {
        for (; i < end; ++i)
          for (int64_t u = 0; u < count; ++u)
            unit(units[static_cast<size_t>(u)], u + 1 < count ? &units[static_cast<size_t>(u + 1)] : nullptr, i / chunks, i % chunks, x, w,
                 b, residual, y);
      });
    }
    if (clamp || !p.transposed) return;
    worker.barrier();  // phases interleave: the activation goes over rows of all of them
    const int64_t blocks = blocks_of(p.outputs), plane = p.out_plane(), parts = ceil_div(plane, kReorderPixels);
    worker.parallel_for(p.batch * blocks * parts, 4, [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const int64_t at = i % parts * kReorderPixels, block = i / parts % blocks;
        conv().activate(activation, y + (i / parts * plane + at) * kConvBlock, std::min(kReorderPixels, plane - at),
                        static_cast<int>(std::min<int64_t>(kConvBlock, p.outputs - block * kConvBlock)));
      }
    });
  }
};

}  // namespace

bool conv_is_direct(const ConvProblem& p) {
  constexpr int64_t kMost = 1 << 30;
  int64_t phases = 1;
  for (int a = 0; a < 3; ++a) {
    if (p.in[a] >= kMost || p.out[a] >= kMost || p.pad[a] >= kMost || (p.kernel[a] - 1) * p.dilation[a] >= kMost) return false;
    if (p.transposed) phases *= std::min<int64_t>(p.stride[a], 1 << 10);
  }
  return phases <= 256 && p.channels > 0 && p.outputs > 0 && p.channels < kMost && p.outputs < kMost && p.taps() < (1 << 24);
}

void copy_bias(const float* from, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i] + 0.0f;
}

Buffer pack_constant(const PrepareContext& ctx, const ConvPlan& plan, const float* w) {
  constexpr int64_t kFloats = 64 << 10;
  Buffer to = allocate_lasting(static_cast<size_t>(packed_floats(plan)) * sizeof(float));
  const int64_t parts = conv_pack_parts(plan), part = std::max<int64_t>(1, plan.packed / std::max<int64_t>(parts, 1));
  ctx.split(parts, std::max<int64_t>(1, kFloats / part), [&](int64_t i, int64_t end) {
    for (; i < end; ++i) pack_part(plan, w, static_cast<float*>(to.get()), i);
  });
  return to;
}

int conv_pass(const ConvShape& shape, const ConvPanel& panel) {
  const int64_t block_bytes = int64_t{shape.taps} * kConvBlock * panel.panel * kConvBlock * 4;
  return block_bytes * panel.blocks > kLargePanel ? static_cast<int>(std::max<int64_t>(1, kPassBytes / std::max<int64_t>(block_bytes, 1))) : 0;
}

int64_t conv_fetch(const ConvPlan& plan, const ConvPanel& panel) { return std::min<int64_t>(plan.packed - panel.w, kPassBytes / 4); }

bool activation_clamp(const Activation& a, float& low, float& high) {
  low = -INFINITY;
  high = INFINITY;
  switch (a.kind) {
    case ActivationKind::kNone: return true;
    case ActivationKind::kRelu: low = 0; return true;
    case ActivationKind::kClip:
      if (std::isnan(a.alpha) || std::isnan(a.beta)) return false;
      low = a.alpha;
      high = a.beta;
      return true;
    default: return false;
  }
}

void prepare_direct_conv(PrepareContext& ctx, ConvProblem p, const Activation& activation, const std::string& key) {
  const bool x_blocked = ctx.layout(0) == Layout::kBlocked, y_blocked = ctx.out_layout(0) == Layout::kBlocked;
  p.x_plain = !x_blocked && conv_reads_plain(p.channels, p.groups);
  auto k = std::make_unique<DirectConv>();
  k->plan = plan_conv(p, conv());
  k->activation = activation;
  k->clamp = activation_clamp(activation, k->low, k->high);
  k->reorder_x = !x_blocked && !p.x_plain;
  k->reorder_y = !y_blocked;
  const int64_t y_channels = blocks_of(p.outputs) * kConvBlock;
  int64_t floats = 0;
  auto reserve = [&](int64_t n) { return std::exchange(floats, floats + round_up(n, 16)); };
  if (ctx.constant(1)) {
    std::string name = "conv:" + key + (p.x_plain ? ":plain:g" : ":blocked:g") + std::to_string(p.groups);
    if (p.transposed) name += ":t";
    if (k->plan.algorithm == ConvAlgorithm::kGrouped) name += ":permuted";
    k->packed = ctx.pack(1, name, [&](const Tensor& w) { return pack_constant(ctx, k->plan, w.as<float>()); });
  } else {
    k->w_at = reserve(packed_floats(k->plan));
  }
  if (!ctx.has_input(2) || ctx.constant(2)) {
    k->bias.assign(static_cast<size_t>(y_channels), 0.0f);
    if (const Tensor* b = ctx.constant(2)) copy_bias(b->as<float>(), p.outputs, k->bias.data());
  } else {
    k->b_at = reserve(y_channels);
  }
  if (k->reorder_x) k->x_at = reserve(p.batch * blocks_of(p.channels) * kConvBlock * p.in_plane());
  const bool shared = k->plan.algorithm == ConvAlgorithm::kDirect &&
                      std::any_of(k->plan.phases.begin(), k->plan.phases.end(), [](const ConvPhase& phase) { return !phase.panels.empty() && phase.panels[0].shared; });
  if (k->reorder_y) {
    k->y_at = reserve(p.batch * y_channels * p.out_plane());
    k->r_at = shared && ctx.has_input(3) ? reserve(p.batch * y_channels * p.out_plane()) : k->y_at;
  }
  ctx.workspace(floats * 4);
  ctx.cost(p.flops(), 4.0 * (static_cast<double>(p.batch) * static_cast<double>(p.channels * p.in_plane() + p.outputs * p.out_plane()) +
                             static_cast<double>(k->plan.packed)));
  // Each result reads the residual at its own place alone, once, before it is written (where groups share blocks, perhaps again).
  if (!shared && ctx.has_input(3) && ctx.layout(3) == ctx.out_layout(0) && ctx.node.inputs[3] != ctx.node.inputs[0]) ctx.inplace(0, 3);
  k->split(ctx.threads());
  ctx.kernel(std::move(k));
}

}  // namespace tiercel

#include "kernels/conv/plan.h"

#include <algorithm>
#include <cstring>

#include "kernels/conv/plan_grouped.h"
#include "kernels/reorder/reorder.h"

namespace tiercel {
namespace {

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t mod(int64_t a, int64_t b) { return (a % b + b) % b; }

// Input channels [begin, end) that output channels [first, last] read.
struct Range {
  int64_t begin, end;
  bool operator==(const Range& o) const { return begin == o.begin && end == o.end; }
};
Range reads(const ConvProblem& p, int64_t first, int64_t last) {
  const int64_t in_group = p.channels / p.groups, out_group = p.outputs / p.groups;
  return {first / out_group * in_group, (last / out_group + 1) * in_group};
}

bool whole_blocks(const ConvProblem& p) { return p.channels / p.groups % kConvBlock == 0 && p.outputs / p.groups % kConvBlock == 0; }

// Output blocks that read the same input blocks share panels of about equal width.
void make_panels(const ConvProblem& p, const ConvKernels& kernels, ConvPhase& phase, int64_t& packed) {
  const int64_t blocks = ceil_div(p.outputs, kConvBlock), width = p.x_plain ? 1 : kConvBlock;
  auto range_of = [&](int64_t block) {
    const Range r = reads(p, block * kConvBlock, std::min((block + 1) * kConvBlock, p.outputs) - 1);
    return Range{r.begin / width, ceil_div(r.end, width)};
  };
  for (int64_t first = 0; first < blocks;) {
    const Range range = range_of(first);
    int64_t end = first + 1;
    while (end < blocks && range_of(end) == range) ++end;
    const int64_t panels = ceil_div(end - first, kernels.max_panel);
    for (int64_t i = 0, at = first; i < panels; ++i) {
      const int64_t n = (end - first) * (i + 1) / panels - (end - first) * i / panels;  // wide ones spread: threads share neighbours
      const Range c = reads(p, at * kConvBlock, std::min((at + n) * kConvBlock, p.outputs) - 1);
      ConvPanel panel;
      panel.w = packed;
      panel.y_block = static_cast<int>(at);
      panel.panel = static_cast<int>(n);
      panel.x_block = static_cast<int>(range.begin);
      panel.blocks = static_cast<int>(range.end - range.begin);
      panel.last = p.x_plain ? 1 : static_cast<int>(ceil_div(c.end - (range.end - 1) * width, 4) * 4);
      panel.tail = static_cast<int>(std::min<int64_t>(kConvBlock, p.outputs - (at + n - 1) * kConvBlock));
      panel.shared = p.groups > 1 && !whole_blocks(p);
      const int64_t channels = p.x_plain ? panel.blocks : (panel.blocks - 1) * kConvBlock + panel.last;
      packed += channels * phase.shape.taps * n * kConvBlock;
      phase.panels.push_back(panel);
      at += n;
    }
    first = end;
  }
}

void finish_phase(const ConvProblem& p, ConvPhase& phase) {
  ConvShape& s = phase.shape;
  s.plain = p.x_plain;
  s.x_pixel = p.x_plain ? 1 : kConvBlock;
  s.x_block = p.in_plane() * s.x_pixel;
  s.y_block = p.out_plane() * kConvBlock;
  s.taps = static_cast<int>(phase.tap_index.size());
  s.fetch = s.kernel[0] > 0 ? static_cast<int>(s.kernel[1] * s.kernel[2]) : s.taps;
  for (int k = 0; k < s.taps; ++k) {
    const int32_t* d = &phase.tap[3 * k];
    phase.tap_offset.push_back(((d[0] * s.in[1] + d[1]) * s.in[2] + d[2]) * s.x_pixel);
  }
}

ConvPhase direct_phase(const ConvProblem& p) {
  ConvPhase phase;
  ConvShape& s = phase.shape;
  const bool pointwise = std::all_of(p.kernel, p.kernel + 3, [](int64_t k) { return k == 1; }) &&
                         std::equal(p.in, p.in + 3, p.out) && std::all_of(p.pad, p.pad + 3, [](int64_t d) { return d == 0; }) &&
                         std::all_of(p.stride, p.stride + 3, [](int64_t d) { return d == 1; });
  for (int a = 0; a < 3; ++a) {
    s.in[a] = p.in[a];
    s.out[a] = p.out[a];
    s.stride[a] = p.stride[a];
    s.origin[a] = -p.pad[a];
  }
  std::copy_n(p.kernel, 3, s.kernel);
  std::copy_n(p.dilation, 3, s.dilation);
  if (pointwise) {  // one long row
    s.in[2] = s.out[2] = p.in_plane();
    s.in[0] = s.in[1] = s.out[0] = s.out[1] = 1;
  }
  s.y_step[2] = kConvBlock;
  s.y_step[1] = s.out[2] * kConvBlock;
  s.y_step[0] = s.out[1] * s.out[2] * kConvBlock;
  phase.y_origin = 0;
  int index = 0;
  for (int64_t d = 0; d < p.kernel[0]; ++d)
    for (int64_t h = 0; h < p.kernel[1]; ++h)
      for (int64_t w = 0; w < p.kernel[2]; ++w) {
        for (const int64_t at : {d * p.dilation[0], h * p.dilation[1], w * p.dilation[2]})
          phase.tap.push_back(static_cast<int32_t>(at));
        phase.tap_index.push_back(index++);
      }
  finish_phase(p, phase);
  return phase;
}

// Output pixels o = offset + stride y meet tap k where o + pad - k dilation is a multiple of the stride, at input pixel
// y + (offset + pad - k dilation) / stride.
ConvPhase transposed_phase(const ConvProblem& p, const int64_t (&offset)[3]) {
  ConvPhase phase;
  ConvShape& s = phase.shape;
  struct Tap { int32_t index, at; };
  std::vector<Tap> taps[3];
  int64_t step = kConvBlock;
  phase.y_origin = 0;
  for (int a = 2; a >= 0; --a) {
    s.in[a] = p.in[a];
    s.out[a] = p.out[a] > offset[a] ? ceil_div(p.out[a] - offset[a], p.stride[a]) : 0;
    s.stride[a] = 1;
    s.origin[a] = 0;
    s.y_step[a] = step * p.stride[a];
    phase.y_origin += step * offset[a];
    step *= p.out[a];
    for (int64_t k = 0; k < p.kernel[a]; ++k) {
      const int64_t at = offset[a] + p.pad[a] - k * p.dilation[a];
      if (mod(at, p.stride[a]) == 0) taps[a].push_back({static_cast<int32_t>(k), static_cast<int32_t>(at / p.stride[a])});
    }
  }
  for (const Tap& d : taps[0])
    for (const Tap& h : taps[1])
      for (const Tap& w : taps[2]) {
        phase.tap.insert(phase.tap.end(), {d.at, h.at, w.at});
        phase.tap_index.push_back(static_cast<int32_t>((d.index * p.kernel[1] + h.index) * p.kernel[2] + w.index));
      }
  finish_phase(p, phase);
  return phase;
}

// Blocks of 16 outputs by 16 channels are transposed in registers; their rows of 16 outputs then go to their places.
void pack_whole_panel(const ConvProblem& p, const ConvPhase& phase, const ConvPanel& panel, const float* w, float* to) {
  const int64_t taps = static_cast<int64_t>(phase.tap_index.size()), all_taps = p.taps(), width = panel.panel * kConvBlock;
  constexpr int64_t kSquare = int64_t{kConvBlock} * kConvBlock;
  std::vector<float> scratch(static_cast<size_t>(kSquare * (all_taps + 1)));
  float *const rows = scratch.data(), *const square = rows + kSquare * all_taps;
  const ReorderKernels& k = reorder();
  for (int64_t b = 0; b < panel.blocks; ++b, to += kConvBlock * taps * width) {
    const int64_t n = b + 1 < panel.blocks ? kConvBlock : panel.last, c0 = (panel.x_block + b) * kConvBlock;
    const int64_t exist = std::clamp<int64_t>(p.channels - c0, 0, n);
    for (int64_t t = 0; t < taps; ++t) std::memset(to + (t * n + exist) * width, 0, static_cast<size_t>((n - exist) * width) * sizeof(float));
    for (int o = 0; o < panel.panel; ++o) {
      const int64_t oc = (panel.y_block + o) * kConvBlock;
      const int outputs = static_cast<int>(std::clamp<int64_t>(p.outputs - oc, 0, kConvBlock));
      if (p.transposed)  // rows: [output, tap][16 channels]
        k.to_blocked(w + (c0 * p.outputs + oc) * all_taps, p.outputs * all_taps, static_cast<int>(exist), outputs * all_taps, rows);
      else  // rows: [channel, tap][16 outputs]
        k.to_blocked(w + (oc * p.channels + c0) * all_taps, p.channels * all_taps, outputs, exist * all_taps, rows);
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t tap = phase.tap_index[static_cast<size_t>(t)];
        const float* from = rows + tap * kConvBlock;
        int64_t step = all_taps * kConvBlock;
        if (p.transposed) {
          k.to_blocked(from, step, outputs, exist, square);
          from = square;
          step = kConvBlock;
        }
        for (int64_t c = 0; c < exist; ++c)
          std::memcpy(to + (t * n + c) * width + o * kConvBlock, from + c * step, kConvBlock * sizeof(float));
      }
    }
  }
}

// Panels are [block][tap][channel][16 panel], plain ones [tap][channel][16 panel].
void pack_panel(const ConvProblem& p, const ConvPhase& phase, const ConvPanel& panel, const float* w, float* to) {
  constexpr int64_t kManyTaps = 1 << 10;  // more would not leave room in the caches
  if (p.groups == 1 && !p.x_plain && p.taps() <= kManyTaps) return pack_whole_panel(p, phase, panel, w, to);
  const int64_t taps = static_cast<int64_t>(phase.tap_index.size()), all_taps = p.taps();
  const int64_t in_group = p.channels / p.groups, out_group = p.outputs / p.groups;
  const int64_t width = panel.panel * kConvBlock, block = p.x_plain ? 1 : kConvBlock;
  const int64_t channels = p.x_plain ? panel.blocks : (panel.blocks - 1) * kConvBlock + panel.last;
  std::memset(to, 0, static_cast<size_t>(channels * taps * width) * sizeof(float));
  for (int64_t b = 0; b < panel.blocks; ++b) {
    const int64_t n = b + 1 < panel.blocks ? block : panel.last;
    const int64_t c0 = (panel.x_block + b) * block;
    float* const block_to = to + b * block * taps * width;
    for (int64_t o = 0; o < width; ++o) {
      const int64_t oc = panel.y_block * kConvBlock + o;
      if (oc >= p.outputs) break;
      const int64_t g = oc / out_group;
      const int64_t first = std::max<int64_t>(0, g * in_group - c0), last = std::min(n, (g + 1) * in_group - c0);
      for (int64_t c = first; c < last; ++c) {
        const int64_t in_c = c0 + c - g * in_group;
        const float* const from = w + (p.transposed ? (c0 + c) * out_group + oc % out_group : oc * in_group + in_c) * all_taps;
        for (int64_t k = 0; k < taps; ++k) {
          const int64_t at = p.x_plain ? (k * panel.blocks + b) * width : (k * n + c) * width;
          (p.x_plain ? to : block_to)[at + o] = from[phase.tap_index[k]];
        }
      }
    }
  }
}

}  // namespace

double ConvProblem::flops() const {
  const double pixels = static_cast<double>(transposed ? in_plane() : out_plane());
  return 2.0 * static_cast<double>(batch) * pixels * static_cast<double>(transposed ? channels : outputs) *
         static_cast<double>((transposed ? outputs : channels) / groups) * static_cast<double>(taps());
}

ConvPlan plan_conv(const ConvProblem& p, const ConvKernels& kernels) {
  ConvPlan plan;
  plan.problem = p;
  if (!p.transposed && !p.x_plain && p.groups == p.channels && p.groups == p.outputs && p.groups > 1) {
    plan.algorithm = ConvAlgorithm::kDepthwise;
    for (int a = 0; a < 3; ++a) {
      plan.depthwise.in[a] = p.in[a];
      plan.depthwise.out[a] = p.out[a];
      plan.depthwise.kernel[a] = p.kernel[a];
      plan.depthwise.stride[a] = p.stride[a];
      plan.depthwise.dilation[a] = p.dilation[a];
      plan.depthwise.origin[a] = -p.pad[a];
    }
    plan.packed = ceil_div(p.channels, kConvBlock) * kConvBlock * p.taps();
    return plan;
  }
  if (p.transposed) {
    for (int64_t d = 0; d < p.stride[0]; ++d)
      for (int64_t h = 0; h < p.stride[1]; ++h)
        for (int64_t w = 0; w < p.stride[2]; ++w) plan.phases.push_back(transposed_phase(p, {d, h, w}));
  } else {
    plan.phases.push_back(direct_phase(p));
  }
  for (ConvPhase& phase : plan.phases) {
    make_panels(p, kernels, phase, plan.packed);
    phase.shape.tap = phase.tap.data();
    phase.shape.tap_offset = phase.tap_offset.data();
    phase.rows = plain_serves(phase.shape, p.channels);
  }
  plan_grouped(plan, kernels.lanes);
  return plan;
}

int64_t conv_pack_parts(const ConvPlan& plan) {
  if (plan.algorithm == ConvAlgorithm::kDepthwise) return ceil_div(plan.problem.channels, kConvBlock);
  if (plan.algorithm == ConvAlgorithm::kGrouped) return static_cast<int64_t>(plan.registers.size());
  int64_t n = 0;
  for (const ConvPhase& phase : plan.phases) n += static_cast<int64_t>(phase.panels.size());
  return n;
}

void pack_conv(const ConvPlan& plan, const float* w, float* packed, int64_t part) {
  const ConvProblem& p = plan.problem;
  if (plan.algorithm == ConvAlgorithm::kGrouped) return pack_grouped(plan, w, packed, part);
  if (plan.algorithm == ConvAlgorithm::kDepthwise) {
    const int64_t taps = p.taps();
    float* const to = packed + part * taps * kConvBlock;
    for (int64_t c = 0; c < kConvBlock; ++c) {
      const int64_t channel = part * kConvBlock + c;
      for (int64_t k = 0; k < taps; ++k) to[k * kConvBlock + c] = channel < p.channels ? w[channel * taps + k] : 0.0f;
    }
    return;
  }
  for (const ConvPhase& phase : plan.phases) {
    if (part < static_cast<int64_t>(phase.panels.size())) {
      const ConvPanel& panel = phase.panels[static_cast<size_t>(part)];
      return pack_panel(p, phase, panel, w, packed + panel.w);
    }
    part -= static_cast<int64_t>(phase.panels.size());
  }
}

}  // namespace tiercel

#include "kernels/conv/plan_grouped.h"

#include <algorithm>

namespace tiercel {
namespace {

constexpr int64_t kMostChannels = 64;  // of a group that steps are counted for: beyond, panels are hardly ever wider than a group

// Calls step(register of inputs, channels): channels[l] is what output lane l reads, or -1.
template <class Step> void each_step(const ConvProblem& p, int lanes, int64_t first_output, Step step) {
  const int64_t in_group = p.channels / p.groups, out_group = p.outputs / p.groups;
  const int64_t last_output = std::min(first_output + lanes, p.outputs) - 1;
  if (last_output < first_output) return;  // channels of a block that do not exist
  const int64_t begin = first_output / out_group * in_group / lanes, end = (last_output / out_group + 1) * in_group;
  for (int64_t q = begin; q * lanes < end; ++q) {
    int64_t from[kConvBlock], n[kConvBlock], steps = 0;
    for (int l = 0; l < lanes; ++l) {
      const int64_t oc = first_output + l, group = oc / out_group * in_group;
      from[l] = std::max(group, q * lanes);
      n[l] = oc < p.outputs ? std::max<int64_t>(0, std::min(group + in_group, (q + 1) * lanes) - from[l]) : 0;
      steps = std::max(steps, n[l]);
    }
    for (int64_t i = 0; i < steps; ++i) {
      int64_t channel[kConvBlock];
      for (int l = 0; l < lanes; ++l) channel[l] = i < n[l] ? from[l] + i : -1;
      step(q, channel);
    }
  }
}

}  // namespace

bool plan_grouped(ConvPlan& plan, int lanes) {
  const ConvProblem& p = plan.problem;
  if (p.transposed || p.x_plain || p.groups == 1 || p.channels / p.groups > kMostChannels) return false;
  int64_t packed = 0;
  for (int64_t first = 0; first < (p.outputs + kConvBlock - 1) / kConvBlock * kConvBlock; first += lanes) {
    GroupedPanel panel{packed, plan.steps.size(), 0, false};
    each_step(p, lanes, first, [&](int64_t q, const int64_t* channel) {
      GroupedStep step{};
      step.x = (q * lanes / kConvBlock * p.in_plane() * kConvBlock) + q * lanes % kConvBlock;
      for (int l = 0; l < lanes; ++l) {
        const bool exists = first + l < p.outputs, reads = channel[l] >= 0;
        step.lane[l] = reads ? static_cast<int32_t>(channel[l] - q * lanes) : exists ? -1 : 0;
        panel.uneven |= exists && !reads;
      }
      plan.steps.push_back(step);
    });
    panel.steps = static_cast<int>(plan.steps.size() - panel.step);
    packed += panel.steps * p.taps() * lanes;
    plan.registers.push_back(panel);
  }
  // A permuted input serves up to three columns of a row of three taps, and one elsewhere.
  const bool reused = p.kernel[2] == 3 && p.dilation[2] == 1 && p.stride[2] <= 2;
  const double permutes = reused ? (lanes > 4 ? 1.25 : 1.6) : lanes == kConvBlock ? 1.6 : 2.1;
  double direct = 0;
  for (const ConvPanel& panel : plan.phases[0].panels) {
    const int64_t channels = (panel.blocks - 1) * kConvBlock + panel.last;
    // A panel of one block reads an input for each product: 16 lanes wide, half of the multipliers wait.
    direct += (panel.panel == 1 && lanes == kConvBlock ? 2.0 : 1.0) * static_cast<double>(channels * panel.panel * kConvBlock * p.taps());
  }
  if (permutes * static_cast<double>(packed) > direct) {
    plan.steps.clear();
    plan.registers.clear();
    return false;
  }
  plan.algorithm = ConvAlgorithm::kGrouped;
  plan.phases.clear();
  plan.packed = packed;
  plan.lanes = lanes;
  for (int a = 0; a < 3; ++a) {
    plan.grouped.in[a] = p.in[a];
    plan.grouped.out[a] = p.out[a];
    plan.grouped.kernel[a] = p.kernel[a];
    plan.grouped.stride[a] = p.stride[a];
    plan.grouped.dilation[a] = p.dilation[a];
    plan.grouped.origin[a] = -p.pad[a];
  }
  return true;
}

void pack_grouped(const ConvPlan& plan, const float* w, float* packed, int64_t part) {
  const ConvProblem& p = plan.problem;
  const GroupedPanel& panel = plan.registers[static_cast<size_t>(part)];
  const int64_t in_group = p.channels / p.groups, out_group = p.outputs / p.groups, lanes = plan.lanes, taps = p.taps();
  int64_t i = 0;
  each_step(p, plan.lanes, part * lanes, [&](int64_t, const int64_t* channel) {
    for (int64_t k = 0; k < taps; ++k)
      for (int64_t l = 0; l < lanes; ++l) {
        const int64_t oc = part * lanes + l, row = k / p.kernel[2], column = k % p.kernel[2];
        packed[panel.w + ((row * panel.steps + i) * p.kernel[2] + column) * lanes + l] =
            channel[l] < 0 ? 0.0f : w[(oc * in_group + channel[l] - oc / out_group * in_group) * taps + k];
      }
    ++i;
  });
}

}  // namespace tiercel

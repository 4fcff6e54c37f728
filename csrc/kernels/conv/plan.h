// From the numbers of a convolution to what the kernels run on: an algorithm, phases, panels and packed weights.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/conv/conv.h"
#include "kernels/conv/depthwise.h"
#include "kernels/conv/grouped.h"
#include "kernels/conv/plain.h"

namespace tiercel {

// Spatial axes are depth, height, width; missing ones have extent 1, kernel 1, stride 1, pad 0.
struct ConvProblem {
  int64_t batch = 1, channels = 0, outputs = 0, groups = 1;
  int64_t in[3] = {1, 1, 1}, out[3] = {1, 1, 1}, kernel[3] = {1, 1, 1}, stride[3] = {1, 1, 1}, dilation[3] = {1, 1, 1};
  int64_t pad[3] = {0, 0, 0};  // at the begin of each axis
  bool transposed = false;     // weights [channels, outputs / groups, kernel...]; else [outputs, channels / groups, kernel...]
  bool x_plain = false;        // x is NCHW and is read as it lies; else NCHW16c

  int64_t taps() const { return kernel[0] * kernel[1] * kernel[2]; }
  int64_t in_plane() const { return in[0] * in[1] * in[2]; }
  int64_t out_plane() const { return out[0] * out[1] * out[2]; }
  double flops() const;        // of all multiplications and additions that the definition asks for
};

enum class ConvAlgorithm { kDirect, kDepthwise, kGrouped };

struct ConvPanel {
  int64_t w;       // where its packed weights begin, in floats
  int y_block;     // its first output block, and how many
  int panel;
  int x_block;     // its first input block, how many it reads, and how many channels of the last one
  int blocks, last;
  int tail;        // channels of its last output block that exist
  bool shared;     // groups share a block, with zeros for each other's weights: one's infinities make NaN of another
};

// An ordinary convolution is one phase; a transposed one is stride[0] * stride[1] * stride[2] convolutions of stride 1, each of
// which computes the output pixels that are equal modulo the stride.
struct ConvPhase {
  ConvShape shape;
  std::vector<int32_t> tap, tap_index;  // displacements; which kernel tap each is
  std::vector<int64_t> tap_offset;
  int64_t y_origin;                     // of output pixel 0, in floats
  std::vector<ConvPanel> panels;
  bool rows = false;                    // runs on the kernels of plain.h
};

// A register of output channels of a grouped convolution.
struct GroupedPanel {
  int64_t w;        // where its packed weights begin, in floats
  size_t step;      // its first step, and how many
  int steps;
  bool uneven;      // an output lane of a step reads none, as groups have unequal parts of a register
};

struct ConvPlan {
  ConvPlan() = default;
  ConvPlan(ConvPlan&&) = default;  // shapes point into their phases: no copies
  ConvPlan& operator=(ConvPlan&&) = default;

  ConvAlgorithm algorithm = ConvAlgorithm::kDirect;
  ConvProblem problem;
  std::vector<ConvPhase> phases;        // kDirect
  DepthwiseShape depthwise;             // kDepthwise
  GroupedShape grouped;                 // kGrouped
  std::vector<GroupedPanel> registers;  // kGrouped: of `lanes` output channels each, of all blocks
  std::vector<GroupedStep> steps;
  int lanes = 0;
  int64_t packed = 0;                   // floats of packed weights
};

// A few channels read as planes are cheaper than a reorder first.
inline bool conv_reads_plain(int64_t channels, int64_t groups) { return groups == 1 && channels <= 8; }

// `panel`: the widest panel of the kernels in use.
ConvPlan plan_conv(const ConvProblem& problem, const ConvKernels& kernels);

// Packs weights for the plan; `part` of `conv_pack_parts(plan)`, so that a team can share the work. All of `packed` is written.
int64_t conv_pack_parts(const ConvPlan& plan);
void pack_conv(const ConvPlan& plan, const float* w, float* packed, int64_t part);

}  // namespace tiercel

// The sliding window of Conv, ConvTranspose and the pools: kernel_shape, strides, dilations, pads, auto_pad, ceil_mode.
#pragma once
#include <array>
#include <cstdint>

#include "ops/context.h"

namespace tiercel {

enum class AutoPad : uint8_t { kNotSet, kValid, kSameUpper, kSameLower };

struct Window {
  int rank = 0;  // spatial axes
  std::array<int64_t, kMaxRank> kernel{}, stride{}, dilation{}, begin{}, end{};  // begin, end: the padding
  AutoPad auto_pad = AutoPad::kNotSet;
  bool ceil = false;

  int64_t reach(int a) const { return (kernel[a] - 1) * dilation[a] + 1; }  // input pixels that a window spans
  int64_t taps() const;
  // Output extent of axis a for `in` input pixels, with auto_pad resolved into begin and end. Negative when the window does not fit.
  int64_t slide(int a, int64_t in);
  // The same for an extent that may be a symbol; what cannot be known gets a symbol that equal arithmetic shares.
  Dim slide(int a, Dim in, SymbolTable& symbols);
};

// The attributes of a node with `rank` spatial axes. `kernel`: the extents of the weights, for Conv (kernel_shape must agree);
// empty: kernel_shape is required. Errors are the node's (Code::kInvalidGraph).
Window window_of(const Node& node, int rank, std::span<const int64_t> kernel = {});

}  // namespace tiercel

// Transposed convolutions with few outputs.
#pragma once
#include "graph/graph.h"

namespace tiercel {

// A transposed convolution whose kernel is as large as its stride is a pointwise one to outputs * stride^2 channels and DepthToSpace.
// Done where that fills blocks of channels that the transposed one would leave almost empty: the last layer of a detector or decoder.
void subpixel(Graph& graph);

}  // namespace tiercel

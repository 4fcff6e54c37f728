// Normalisations written as several nodes become one.
#pragma once
#include "graph/graph.h"

namespace tiercel {

// In any arrangement of Sqrt, Reciprocal, Pow and Div, any order of operands, over the last axes or one inner axis:
//   (x - mean x) / sqrt(mean (x - mean x)^2 + e) [* scale] [+ bias]   LayerNormalization; over the spatial axes GroupNormalization
//   x / sqrt(mean x^2 + e) [* scale]                                  RMSNormalization
//   x / max(|x|, e), x / (|x| + e), x / sqrt(|x|^2 + e)               L2Normalization
//   Reshape to [N, G, ...], a norm of each group, Reshape back [* scale] [+ bias]      GroupNormalization
void fuse_norm(Graph& graph);

// What stands around the norms once matrix products and convolutions have taken theirs: Add before -> SkipLayerNormalization and
// SkipRMSNormalization, which give the sum too; an activation after -> GroupNormalization, BatchNormalization of ai.tiercel.
void fuse_norm_neighbours(Graph& graph);

}  // namespace tiercel

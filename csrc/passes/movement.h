// Rewrites of data movement: what need not be moved, or not twice.
#pragma once
#include "graph/graph.h"

namespace tiercel {

// Chains of Reshape, Flatten, Squeeze and Unsqueeze become one Reshape, computed target shapes become constants (0 copies an
// extent, -1 the one that is left), and Slice, Pad, Tile, Expand, Split and Concat that change nothing go. An Expand goes too
// where its reader broadcasts anyway.
void simplify_shapes(Graph& graph);

// Parts chosen from a transposed tensor are chosen first, and transposed then, where that leaves heads and rows to swap.
void select_first(Graph& graph);

// Slices that part a tensor completely along an axis become one Split.
void join_slices(Graph& graph);

// Expanded indices of ScatterElements are read as they were before.
void scatter_rows(Graph& graph);

// Transposes of transposes become one or none; a Transpose that undoes those above it cancels through the pointwise
// operators, Concat and Softmax between them.
void cancel_transposes(Graph& graph);

}  // namespace tiercel

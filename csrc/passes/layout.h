// Image operators in NCHW16c: which values are blocked, and the Reorder nodes at the borders.
#pragma once
#include "graph/graph.h"

namespace tiercel {

// Convolutions give blocked results, and what can follow them in that layout does: see blocked_form() for the one table of rules.
// All else reads plain values: a Reorder stands where the two meet, one for each value and direction.
void layout(Graph& graph);
// Reorders and the Transposes beside them that move channels last, or back, in one step.
void channels_last(Graph& graph);

// Lets convolutions choose Winograd's algorithm. Its rounding errors are larger than those of direct sums, by about two to four times;
// without this pass every convolution is a direct one.
void allow_winograd(Graph& graph);

}  // namespace tiercel

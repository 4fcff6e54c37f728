// The rewrites every level runs: what need not be computed, or not twice.
#pragma once
#include "graph/graph.h"

namespace tiercel {

// Outer constants that a body captures become constants of the body; captures that a body does not use go.
void sink_constants(Graph& graph);
// The opposite, of floats: an outer constant, of which import gave bodies copies, is captured by them. So it can be trained, or replaced.
void capture_constants(Graph& graph);
// Nodes whose inputs are constants, or whose small integer results are known, become constants. Computed by the engine's own
// kernels. Results much larger than what they are made of stay nodes.
// A large constant that is transposed for a matrix product alone stays, too: the product's packing transposes it on its way.
void fold_constants(Graph& graph);
// The same, and what fold_constants left to passes that did not take it.
void fold_rest(Graph& graph);
// An If with a constant condition becomes the branch it takes.
void inline_if(Graph& graph);
// If(an axis of X has extent 1, Squeeze(X), X), which exporters write for a squeeze of unknown extents, becomes ai.tiercel.SqueezeOnes: a Program, which
// knows its extents, has nothing to decide.
void squeeze_if(Graph& graph);
// Nodes that give back their input: Identity, Dropout at inference, Cast to the same type, Concat of one, ...
void eliminate(Graph& graph);
// Common subexpressions, and equal small constants, once.
void merge_common(Graph& graph);
// Nodes that update inputs in place (kUpdates) go up to the last of what they need and of the readers of what they update: gradients are then
// not kept for the end of the step.
void place_updates(Graph& graph);

}  // namespace tiercel

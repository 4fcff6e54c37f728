// Chains of elementwise operators become one.
#pragma once
#include "graph/graph.h"

namespace tiercel {

// Two or more elementwise f32 nodes whose results have one shape and are read by each other alone become one
// ai.tiercel.Pointwise. Runs after the rewrites that know more, and after layouts are settled.
void fuse_pointwise(Graph& graph);

}  // namespace tiercel

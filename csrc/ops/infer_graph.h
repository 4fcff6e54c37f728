// Type and shape inference over a whole graph.
#pragma once
#include <vector>

#include "ops/context.h"

namespace tiercel {

// Infers every value of `graph` from its inputs and constants; the result is indexed by value id. `inputs` (may be empty:
// the types the graph declares) stand for graph.inputs(). A declared type completes what inference leaves open, so names of
// symbols survive; without `declared` (proofs must not rest on names in a file) only where its element type is unknown.
// `update` writes the result to Value::type. `symbols`: where new symbols go, the graph's own table when null. Throws Error for a node that cannot work.
std::vector<ValueInfo> infer_graph(Graph& graph, std::span<const ValueInfo* const> inputs = {}, bool update = true,
                                   bool declared = true, SymbolTable* symbols = nullptr);

// One node, from the infos of its inputs (null where left out).
void infer_node(const Node& node, std::span<const ValueInfo* const> in, std::span<ValueInfo> out, SymbolTable& symbols);

}  // namespace tiercel

// ai.onnx.preview.training.Gradient: the standard's own operator for derivatives.
#pragma once
#include "graph/graph.h"

namespace tiercel {

inline constexpr const char* kTrainingDomain = "ai.onnx.preview.training";

// Writes every Gradient node, in bodies too, as the nodes that compute the derivative. Import has put the values that `xs`, `zs` and `y` name
// after the node's own inputs. Nodes whose y is another one's output are derivatives of derivatives.
void expand_gradients(Graph& graph);

}  // namespace tiercel

// Activations written as several nodes become one.
#pragma once
#include "graph/graph.h"

namespace tiercel {

// GELU (erf and tanh), SiLU and QuickGELU, HardSwish, HardSigmoid, Mish, Softplus, Sigmoid, Relu, LeakyRelu in any arrangement of their
// sums, products and constants become Gelu, Swish, HardSwish, ... of the ONNX opset that has them. Floats of any width.
void fuse_activations(Graph& graph);

}  // namespace tiercel

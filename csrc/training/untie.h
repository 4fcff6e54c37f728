// Weights that share an initializer by accident.
#pragma once
#include "graph/graph.h"

namespace tiercel {

// Exporters store equal initializers once, so in a model that is new all biases of zeros and all scales of ones are one. Such a weight (float,
// all elements equal) becomes one again for each layer that has it: for uses that come after different matrices of weights. What is shared on
// purpose (a layer that is applied twice) has its matrix in common and stays one. Identity nodes of initializers go, and a copy gets the name that such a
// node gave it.
void untie(Graph& graph);

}  // namespace tiercel

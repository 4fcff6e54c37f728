// Which values vary with which, through bodies too.
#pragma once
#include <vector>

#include "graph/graph.h"

namespace tiercel {

// Has the type gradients: floats, and sequences and optionals of them.
bool differentiable(const Type& t);

// The outputs that vary with the marked inputs where a derivative says so: a null gradient rule ends the way.
std::vector<bool> reached(const Node& node, const std::vector<bool>& inputs);
// The same, of a graph. `values` (may be null): of all its values, by id.
std::vector<bool> reached(const Graph& graph, const std::vector<bool>& inputs, std::vector<bool>* values = nullptr);
// Of a node with bodies: the body's inputs, at any step, that vary with the marked inputs of the node.
std::vector<bool> reached_in_body(const Node& node, const Graph& body, const std::vector<bool>& inputs);

// For each of the body's own inputs the node's input that it is, or -1 (a step's number, a condition); captures then follow.
std::vector<int> body_operands(const Node& node, const Graph& body);

}  // namespace tiercel

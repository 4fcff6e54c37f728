// From the messages of a model to Graph: names become Values, functions are inlined, captures become inputs of bodies.
#pragma once
#include "onnx/proto.h"

namespace tiercel::onnx {

// The graph of `m`, which must have one. `as_inputs`: initializers that stay the inputs that they are as well. Errors: kInvalidGraph, naming node and
// tensor.
std::shared_ptr<Graph> import_graph(const ModelProto& m, std::shared_ptr<SymbolTable> symbols, const std::vector<std::string>& as_inputs = {});

// Indices of nodes such that each stands after those it depends on; the given order where that is right already. Bodies
// depend on what they use from outside. A cycle is an Error(kInvalidGraph).
std::vector<size_t> topological_order(const std::vector<NodeProto>& nodes);

}  // namespace tiercel::onnx

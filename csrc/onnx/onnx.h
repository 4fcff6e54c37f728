// ONNX files to and from Graph. The reader parses the protobuf wire format itself, over a memory map or the caller's bytes.
#pragma once
#include <string>

#include "graph/graph.h"

namespace tiercel::onnx {

// Reads a model file. Weights stay in the map. Errors: kNoSuchFile, kInvalidProtobuf (with offset and field), kInvalidGraph.
Model load(const std::string& path);
// The same from memory that `owner` keeps alive. External data is looked for in `folder`; "": there must be none.
Model parse(const void* data, size_t size, Buffer owner, const std::string& folder = "");
// A TensorProto alone (test data, .pb files).
Tensor parse_tensor(const void* data, size_t size, Buffer owner);

// The model as .onnx bytes, weights inline. Captured values become outer names again; a node whose opset is not the model's
// (from a function) becomes a call of a function that imports it.
std::string serialize(const Model& model);
// The same as a file. When the weights together take more than `external_above` bytes, those of a page and more go to
// PATH.data beside it, page-aligned, so that they can be mapped in place. Existing files are replaced at the end.
void save(const Model& model, const std::string& path, int64_t external_above = int64_t{1} << 30);

}  // namespace tiercel::onnx

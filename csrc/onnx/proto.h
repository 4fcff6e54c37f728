// The messages of onnx.proto as plain structs. Strings are views into the file; tensors are decoded (or point into it).
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "graph/graph.h"
#include "onnx/external.h"
#include "onnx/wire.h"

namespace tiercel::onnx {

struct GraphProto;

// AttributeProto.AttributeType
enum AttributeType : int {
  kAttrUndefined = 0, kAttrFloat = 1, kAttrInt = 2, kAttrString = 3, kAttrTensor = 4, kAttrGraph = 5, kAttrFloats = 6,
  kAttrInts = 7, kAttrStrings = 8, kAttrTensors = 9, kAttrGraphs = 10, kAttrSparse = 11, kAttrSparses = 12, kAttrType = 13,
  kAttrTypes = 14,
};

struct AttributeProto {
  std::string_view name, ref;  // ref: the parameter of the enclosing function that it stands for
  using GraphPtr = std::shared_ptr<const GraphProto>;
  std::variant<std::monostate, int64_t, float, std::string_view, Tensor, GraphPtr, std::vector<int64_t>, std::vector<float>,
               std::vector<std::string_view>, std::vector<Tensor>, std::vector<GraphPtr>, Type, std::vector<Type>> value;
};

struct NodeProto {
  std::string_view op_type, domain, name, overload;
  std::vector<std::string_view> inputs, outputs;
  std::vector<AttributeProto> attributes;
  int64_t size = 0;  // bytes in the file
  std::string label() const;  // how errors name it
};

struct ValueInfoProto {
  std::string_view name;
  Type type;
  bool has_type = false;
};

struct GraphProto {
  std::string_view name, doc;
  std::vector<NodeProto> nodes;
  std::vector<std::pair<std::string_view, Tensor>> initializers;
  std::vector<ValueInfoProto> inputs, outputs, value_info;
};

using OpsetImports = std::map<std::string_view, int>;

struct FunctionProto {
  std::string_view name, domain, overload;
  std::vector<std::string_view> inputs, outputs, attributes;
  std::vector<AttributeProto> defaults;
  std::vector<NodeProto> nodes;
  OpsetImports opsets;
};

struct ModelProto {
  int64_t ir_version = 0, model_version = 0;
  bool has_ir_version = false;
  std::string_view producer_name, producer_version, domain, doc;
  std::optional<GraphProto> graph;
  OpsetImports opsets;
  std::vector<std::pair<std::string_view, std::string_view>> metadata;
  std::vector<FunctionProto> functions;
};

// What reading needs beside the bytes.
struct Source {
  Buffer owner;  // of the bytes
  ExternalFiles& external;
  SymbolTable& symbols;
};

// "ai.onnx" is another spelling of "".
inline std::string_view domain_of(std::string_view d) { return d == "ai.onnx" ? std::string_view() : d; }

void read_model(Reader& r, ModelProto& m, Source& source);
Type read_type(Reader& r, Source& source);
// A TensorProto: its name, and its data in place where alignment allows it.
std::pair<std::string_view, Tensor> read_tensor(Reader& r, Source& source);
// A SparseTensorProto as a dense tensor; the name is that of its values.
std::pair<std::string_view, Tensor> read_sparse_tensor(Reader& r, Source& source);

}  // namespace tiercel::onnx

// What a model file holds, read without preparing it to run: so it also works for one that this engine cannot run.
#include <map>

#include "bindings.h"
#include "onnx/onnx.h"
#include "ops/registry.h"
#include "runtime/session.h"

namespace tiercel::python {
namespace {

struct Totals {
  std::map<std::tuple<std::string, std::string, int>, int64_t> operators;  // (domain, name, opset) -> nodes
  std::map<std::string, int64_t> bytes;                                    // element type -> bytes of constants
  int64_t parameters = 0, nodes = 0;
};

void add(const Graph& g, Totals& t) {
  for (int i = 0; i < g.num_values(); ++i) {
    const Value* v = g.value(i);
    if (!v || !v->is_constant()) continue;
    t.parameters += v->constant.count();
    t.bytes[std::string(dtype_name(v->constant.dtype()))] += v->constant.bytes();
  }
  for (const auto& n : g.nodes()) {
    ++t.nodes;
    ++t.operators[{n->domain, n->op_type, n->opset}];
    for (const auto& [name, body] : n->subgraphs()) add(*body, t);
  }
}

// The extents of a type: int, str for a named symbol, None for an unnamed one; None when the rank is unknown.
py::object extents(const Type& type, const SymbolTable& symbols) {
  if (!type.ranked) return py::none();
  py::list dims;
  for (const Dim d : type.shape) {
    if (d >= 0) dims.append(d);
    else if (const std::string& name = symbols.name(d); !name.empty()) dims.append(name);
    else dims.append(py::none());
  }
  return dims;
}

std::string type_name(const Type& type) {
  const std::string tensor = cat("tensor(", dtype_name(type.dtype), ")");
  switch (type.kind) {
    case Kind::kTensor: return tensor;
    case Kind::kSequence: return cat("seq(", tensor, ")");
    case Kind::kOptional: return cat("optional(", tensor, ")");
    case Kind::kOptionalSequence: return cat("optional(seq(", tensor, "))");
    case Kind::kMap: return "map";
  }
  return "?";
}

py::list signature(const std::vector<Value*>& values, const Graph& g) {
  py::list rows;
  for (const Value* v : values)
    if (!v->is_constant()) rows.append(py::make_tuple(v->name, type_name(v->type), extents(v->type, g.symbols())));
  return rows;
}

py::dict model_info(const py::object& path_or_bytes) {
  Model m;
  if (py::isinstance<py::bytes>(path_or_bytes)) {
    const std::string_view data = path_or_bytes.cast<std::string_view>();
    const py::gil_scoped_release nogil;
    m = onnx::parse(data.data(), data.size(), Buffer(const_cast<char*>(data.data()), [](void*) {}));
  } else {
    const std::string path = path_or_bytes.cast<std::string>();
    const py::gil_scoped_release nogil;
    m = onnx::load(path);
  }
  const Graph& g = *m.graph;
  Totals totals;
  add(g, totals);
  py::list operators;
  for (const auto& [key, nodes] : totals.operators) {
    const auto& [domain, name, opset] = key;
    operators.append(py::make_tuple(domain, name, opset, nodes, find_op(name, domain, opset) != nullptr));
  }
  py::dict opsets, bytes, metadata, d;
  for (const auto& [domain, version] : g.opsets) opsets[py::str(domain)] = version;
  for (const auto& [dtype, n] : totals.bytes) bytes[py::str(dtype)] = n;
  for (const auto& [key, value] : m.metadata) metadata[py::str(key)] = value;
  d["graph"] = g.name;
  d["doc"] = m.doc;
  d["producer"] = m.producer_version.empty() ? m.producer_name : m.producer_name + " " + m.producer_version;
  d["ir_version"] = m.ir_version;
  d["model_version"] = m.model_version;
  d["opsets"] = opsets;
  d["metadata"] = metadata;
  d["inputs"] = signature(g.inputs(), g);
  d["outputs"] = signature(g.outputs(), g);
  d["nodes"] = totals.nodes;
  d["operators"] = operators;
  d["parameters"] = totals.parameters;
  d["bytes"] = bytes;
  d["unsupported"] = unsupported(m);
  return d;
}

}  // namespace

void register_model(py::module_& m) {
  m.def("model_info", &model_info, py::arg("path_or_bytes"),
        "What a model file holds: graph, doc, producer, ir_version, model_version, opsets {domain: version}, metadata, inputs and "
        "outputs [(name, type, extents)], nodes (bodies and inlined functions included), operators [(domain, name, opset, nodes, "
        "supported)], parameters (elements of constants), bytes {element type: bytes}, unsupported [line].");
}

}  // namespace tiercel::python

// One node computed at once, for the operators' tests.
#include "bindings.h"
#include "ops/evaluate.h"

namespace tiercel::python {
namespace {

// `type` is AttributeProto.type.
Attribute attribute(const std::string& name, int type, const py::object& v) {
  switch (type) {
    case 1: return v.cast<float>();
    case 2: return v.cast<int64_t>();
    case 3: return v.cast<std::string>();
    case 4: return to_tensor(v, name);
    case 6: return v.cast<std::vector<float>>();
    case 7: return v.cast<std::vector<int64_t>>();
    case 8: return v.cast<std::vector<std::string>>();
    default: fail(Code::kNotImplemented, "evaluate_node: attribute ", name, " has type ", type);
  }
}

py::list evaluate_node(const std::string& op, const std::string& domain, int opset, const py::list& inputs,
                       const std::vector<bool>& outputs, const py::list& attributes) {
  Graph g;
  std::vector<Value*> in, out;
  std::vector<RuntimeValue> values;
  for (size_t i = 0; i < inputs.size(); ++i) {
    values.push_back(to_value(inputs[i], {}, cat("input ", i)));
    const RuntimeValue& v = values.back();
    Type type;
    if (v.is_tensor()) type = Type::tensor(v.tensor().dtype(), v.tensor().shape());
    else if (v.is_sequence()) { type.kind = Kind::kSequence; type.dtype = v.sequence()->dtype; }
    in.push_back(v.empty() ? nullptr : g.add_input(cat("x", i), type));
  }
  for (size_t i = 0; i < outputs.size(); ++i) out.push_back(outputs[i] ? g.add_value(cat("y", i)) : nullptr);
  Node* node = g.add_node(op, domain, opset, in, out);
  for (const py::handle row : attributes) {
    const py::tuple t = row.cast<py::tuple>();
    const std::string name = t[0].cast<std::string>();
    node->set(name, attribute(name, t[1].cast<int>(), t[2]));
  }
  std::vector<RuntimeValue> results;
  {
    const py::gil_scoped_release nogil;
    results = evaluate(*node, values);
  }
  py::list list;
  for (const RuntimeValue& v : results) list.append(from_value(v));
  return list;
}

}  // namespace

void register_evaluate(py::module_& m) {
  m.def("evaluate_node", &evaluate_node, py::arg("op_type"), py::arg("domain"), py::arg("opset"), py::arg("inputs"),
        py::arg("outputs"), py::arg("attributes") = py::list(),
        "Computes one node on one thread. inputs: arrays, lists of arrays (sequences) or None; outputs: which are asked "
        "for; attributes: (name, AttributeProto.type, value). Returns arrays, None where not asked for.");
}

}  // namespace tiercel::python

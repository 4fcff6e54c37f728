// What a session tells beside its calls, and the values that the call path does not handle itself.
#include "bindings.h"
#include "capi/handles.h"

namespace tiercel::python {
namespace {

Session& session_of(const py::capsule& handle) {
  return *static_cast<tiercel_session*>(PyCapsule_GetPointer(handle.ptr(), "tiercel.session"))->session;
}

py::capsule to_value_capsule(const py::object& object, int kind, int dtype, const std::string& name) {
  Type type = Type::tensor(static_cast<DType>(dtype));
  type.kind = static_cast<Kind>(kind);
  auto value = std::make_unique<tiercel_value>(tiercel_value{to_value(object, type, cat("input \"", name, "\""))});
  py::capsule capsule(value.get(), "tiercel.value",
                      [](PyObject* c) { delete static_cast<tiercel_value*>(PyCapsule_GetPointer(c, "tiercel.value")); });
  value.release();
  return capsule;
}

py::dict metadata(const py::capsule& handle) {
  const Model& m = session_of(handle).model();
  py::dict custom, opsets, d;
  for (const auto& [key, value] : m.metadata) custom[py::str(key)] = value;
  for (const auto& [domain, version] : m.graph->opsets) opsets[py::str(domain)] = version;
  d["custom_metadata_map"] = custom;
  d["description"] = m.doc;
  d["domain"] = m.domain;
  d["graph_description"] = m.graph->doc;
  d["graph_name"] = m.graph->name;
  d["producer_name"] = m.producer_name;
  d["version"] = m.model_version;
  d["ir_version"] = m.ir_version;
  d["opsets"] = opsets;
  return d;
}

py::dict memory(const py::capsule& handle) {
  const Session::Memory m = session_of(handle).memory();
  py::dict d;
  d["weights"] = m.weights;
  d["packed"] = m.packed;
  d["arena"] = m.arena;
  d["live_bound"] = m.live_bound;
  d["program_bytes"] = m.program_bytes;
  d["programs"] = m.programs;
  d["instructions"] = m.instructions;
  d["barriers"] = m.barriers;
  d["symbols"] = m.symbols;
  return d;
}

}  // namespace

py::list profile_events(const std::vector<ProfileEvent>& profile) {
  py::list events;
  auto shapes = [](const std::vector<Shape>& list) {
    py::list l;
    for (const Shape& s : list) l.append(py::cast(std::vector<int64_t>(s.begin(), s.end())));
    return l;
  };
  for (const ProfileEvent& e : profile) {
    py::dict d;
    d["node"] = e.node;
    d["op"] = e.op;
    d["domain"] = e.domain;
    d["kernel"] = e.kernel;
    d["begin_us"] = e.begin_us;
    d["duration_us"] = e.duration_us;
    d["flops"] = e.flops;
    d["bytes"] = e.bytes;
    d["thread"] = e.thread;
    d["run"] = e.run;
    d["inputs"] = shapes(e.inputs);
    d["outputs"] = shapes(e.outputs);
    events.append(d);
  }
  return events;
}

void register_session(py::module_& m) {
  m.attr("_C_API") = py::capsule(tiercel_get_api(), "tiercel._core._C_API");
  m.def("to_value", &to_value_capsule, py::arg("object"), py::arg("kind"), py::arg("dtype"), py::arg("name"),
        "An input as a value of the C ABI (a capsule). Raises InvalidArgument, which names the input.");
  m.def("from_value", [](const py::capsule& c) {
    return from_value(static_cast<tiercel_value*>(PyCapsule_GetPointer(c.ptr(), "tiercel.value"))->value);
  }, "A value of the C ABI as an array, a list of arrays or None.");
  m.def("session_metadata", &metadata, "What the model's file says of itself.");
  m.def("session_memory", &memory, "Bytes of weights, packed weights and intermediates; counts of programs and instructions.");
  m.def("take_profile", [](const py::capsule& handle) { return profile_events(session_of(handle).take_profile()); }, "The instructions recorded so far, a dict each (times in microseconds).");
}

}  // namespace tiercel::python

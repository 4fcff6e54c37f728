// Training: a session of steps, gradients of a model, losses alone, what is differentiable.
#include <map>

#include "bindings.h"
#include "onnx/onnx.h"
#include "ops/grad.h"
#include "capi/handles.h"
#include "training/adapters.h"
#include "training/live.h"
#include "training/trainer.h"
#include "training/training_mode.h"
#include "training/untie.h"

namespace tiercel::python {
namespace {

Model parse(const py::bytes& data, const std::string& folder) {
  const std::string_view view = data;
  const Buffer owner(new py::bytes(data), [](void* bytes) {  // the graph's constants stay in it
    const py::gil_scoped_acquire gil;
    delete static_cast<py::bytes*>(bytes);
  });
  return onnx::parse(view.data(), view.size(), Buffer(owner, const_cast<char*>(view.data())), folder);
}

// As it is trained and saved: a weight for each layer, all in inference mode.
Model parse_trainee(const py::bytes& data, const std::string& folder) {
  Model m = parse(data, folder);
  untie(*m.graph);
  to_inference_mode(*m.graph);
  return m;
}

py::bytes bytes_of(const Model& m) {
  std::string s;
  {
    const py::gil_scoped_release nogil;
    s = onnx::serialize(m);
  }
  return py::bytes(s);
}

LossSpec loss_spec(const py::dict& d) {
  LossSpec s;
  for (const auto& [key, value] : d) {
    const std::string name = key.cast<std::string>();
    if (name == "name") s.name = value.cast<std::string>();
    else if (name == "reduction") s.reduction = value.cast<std::string>();
    else if (name == "labels") s.labels = value.cast<bool>();
    else if (name == "weight") s.weight = to_tensor(value, "weight of the loss");
    else s.options[name] = value.cast<double>();
  }
  return s;
}

OptimizerSpec optimizer_spec(const py::dict& d) {
  OptimizerSpec s;
  for (const auto& [key, value] : d) {
    const std::string name = key.cast<std::string>();
    if (name == "name") s.name = value.cast<std::string>();
    else s.options[name] = value.cast<double>();
  }
  return s;
}

std::shared_ptr<TrainingSession> make(const py::bytes& model, const std::string& folder, const py::dict& loss, const py::dict& optimizer,
                                      const std::string& output, const std::vector<std::string>& trainable, double clip_norm, double clip_value,
                                      int64_t seed, int threads, bool profile, bool accumulate, const py::dict& groups,
                                      const std::vector<std::string>& adapters, int64_t rank, double alpha, int segments,
                                      const std::vector<std::string>& keep, bool cheap, bool atomic) {
  TrainingOptions o;
  o.recompute = {cheap, segments, keep};
  o.loss = loss_spec(loss);
  o.optimizer = optimizer_spec(optimizer);
  o.output = output;
  o.trainable = trainable;
  o.clip_norm = clip_norm;
  o.clip_value = clip_value;
  o.seed = seed;
  o.accumulate = accumulate;
  o.atomic = atomic;
  for (const auto& [name, own] : groups) {  // (factor of the learning rate, weight decay or None)
    const py::tuple t = own.cast<py::tuple>();
    o.groups[name.cast<std::string>()] = {t[0].cast<double>(), t[1].is_none() ? std::nullopt : std::optional(t[1].cast<double>())};
  }
  SessionOptions session;
  session.threads = threads;
  session.profile = profile;
  Model m = parse_trainee(model, folder);
  const py::gil_scoped_release nogil;
  std::optional<Adapters> merged;
  if (!adapters.empty()) {
    merged = Adapters{m, {}, alpha / static_cast<double>(rank)};
    for (const auto& [name, form] : adaptable_weights(m))
      if (std::find(adapters.begin(), adapters.end(), name) != adapters.end()) merged->forms[name] = form;
    m = add_adapters(m, adapters, rank, alpha);
  }
  return std::make_shared<TrainingSession>(std::move(m), o, session, std::move(merged));
}

std::vector<RuntimeValue> batch_of(const TrainingSession& s, const py::sequence& arrays) {
  const std::vector<IoInfo>& info = s.inputs();
  std::vector<RuntimeValue> batch;
  for (size_t i = 0; i < arrays.size(); ++i) {
    const bool known = i < static_cast<size_t>(s.num_inputs()) + 1;
    batch.push_back(to_value(arrays[i], known ? info[i].type : Type(), known ? cat("input \"", info[i].name, "\"") : cat("array ", i)));
  }
  return batch;
}

double step(TrainingSession& s, const py::sequence& arrays, double lr) {
  const std::vector<RuntimeValue> batch = batch_of(s, arrays);
  const py::gil_scoped_release nogil;
  return s.step(batch, lr);
}

double accumulate(TrainingSession& s, const py::sequence& arrays, double share) {
  const std::vector<RuntimeValue> batch = batch_of(s, arrays);
  const py::gil_scoped_release nogil;
  return s.accumulate(batch, share);
}

py::dict weights(const py::bytes& model, const std::string& folder, const std::vector<std::string>& names) {
  py::dict d;
  for (const auto& [name, tensor] : weights_of(parse_trainee(model, folder), names)) d[py::str(name)] = to_numpy(tensor).attr("copy")();
  return d;
}

Model changed(const py::bytes& model, const std::string& folder, const py::dict& weights) {
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, array] : weights) tensors[name.cast<std::string>()] = to_tensor(array, name.cast<std::string>());
  return with_weights(parse_trainee(model, folder), tensors);
}

const char* form_name(AdapterForm form) { return form == AdapterForm::kRight ? "right" : form == AdapterForm::kTransposed ? "transposed" : "conv"; }

py::list adaptable(const py::bytes& model, const std::string& folder) {
  py::list list;
  for (const auto& [name, form] : adaptable_weights(parse_trainee(model, folder)))
    list.append(py::make_tuple(name, form_name(form)));
  return list;
}

py::tuple evaluate(TrainingSession& s, const py::sequence& arrays) {
  const std::vector<RuntimeValue> batch = batch_of(s, arrays);
  std::vector<RuntimeValue> outputs;
  double loss = 0;
  {
    const py::gil_scoped_release nogil;
    loss = s.evaluate(batch, &outputs);
  }
  py::list list;
  for (const RuntimeValue& v : outputs) list.append(from_value(v));
  return py::make_tuple(loss, list);
}

py::list state(const TrainingSession& s) {
  py::list list;
  for (const auto& [name, tensor] : s.state()) list.append(py::make_tuple(name, to_numpy(tensor)));
  return list;
}

void set_state(TrainingSession& s, const py::dict& arrays) {
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, array] : arrays) tensors[name.cast<std::string>()] = to_tensor(array, name.cast<std::string>());
  const py::gil_scoped_release nogil;  // as for model(), below
  s.set_state(tensors);
}

// A session with the weights of now, whenever it runs, for tiercel._call.Session._adopt.
py::capsule live_session(const std::shared_ptr<TrainingSession>& training, int threads) {
  SessionOptions options;
  options.threads = threads;
  std::unique_ptr<tiercel_session> session;
  {
    const py::gil_scoped_release nogil;
    session = std::make_unique<tiercel_session>(std::make_unique<Session>(std::make_shared<LiveTraining>(training), options));
  }
  return py::capsule(session.release(), "tiercel.session.new", [](PyObject* c) {
    if (PyCapsule_IsValid(c, "tiercel.session.new")) delete static_cast<tiercel_session*>(PyCapsule_GetPointer(c, "tiercel.session.new"));
  });
}

void follow(const py::capsule& handle, const std::shared_ptr<TrainingSession>& training) {
  const Session& s = *static_cast<tiercel_session*>(PyCapsule_GetPointer(handle.ptr(), "tiercel.session"))->session;
  dynamic_cast<LiveTraining&>(*s.live()).follow(training);
}

AdapterForm form_named(const std::string& name) {
  for (const AdapterForm form : {AdapterForm::kRight, AdapterForm::kTransposed, AdapterForm::kConv}) if (name == form_name(form)) return form;
  fail(Code::kInvalidArgument, "there is no form of adapters \"", name, "\"");
}

Attribute attribute_of(const std::string& key, const py::handle& v) {
  if (py::isinstance<py::str>(v)) return v.cast<std::string>();
  if (py::isinstance<py::bool_>(v) || py::isinstance<py::int_>(v)) return v.cast<int64_t>();
  if (py::isinstance<py::float_>(v)) return v.cast<float>();
  if (py::isinstance<py::sequence>(v)) {
    const py::sequence list = v.cast<py::sequence>();
    if (list.size() && py::isinstance<py::str>(list[0])) return v.cast<std::vector<std::string>>();
    return v.cast<std::vector<int64_t>>();
  }
  fail(Code::kInvalidArgument, "attribute ", key, " should be a number, a string or a list of integers or strings");
}

// A model out of (name, dtype, shape) of inputs, where an extent may be a name, {name: array} and (op, inputs, outputs, attributes).
py::bytes build_model(const py::list& inputs, const py::dict& weights, const py::list& nodes, const std::vector<std::string>& outputs, int opset) {
  Model m;
  m.graph = std::make_shared<Graph>();
  m.ir_version = 10;
  m.producer_name = "tiercel";
  Graph& g = *m.graph;
  g.name = "sequential";
  g.opsets[""] = opset;
  std::map<std::string, Value*> values;
  const auto named = [&](const std::string& name) {
    if (name.empty()) return static_cast<Value*>(nullptr);
    if (!values.count(name)) fail(Code::kInvalidGraph, "nothing is named \"", name, "\"");
    return values[name];
  };
  for (const py::handle row : inputs) {
    const py::tuple t = row.cast<py::tuple>();
    Shape shape;
    for (const py::handle d : t[2]) shape.push_back(py::isinstance<py::str>(d) ? g.symbols().named(d.cast<std::string>()) : d.cast<int64_t>());
    const std::string name = t[0].cast<std::string>();
    values[name] = g.add_input(name, Type::tensor(dtype_of_numpy(t[1]), shape));
  }
  for (const auto& [key, array] : weights) {
    const std::string name = key.cast<std::string>();
    values[name] = g.add_constant(name, to_tensor(array, name));
  }
  for (const py::handle row : nodes) {
    const py::tuple t = row.cast<py::tuple>();
    std::vector<Value*> in, out;
    for (const py::handle n : t[1]) in.push_back(named(n.cast<std::string>()));
    for (const py::handle n : t[2]) {
      const std::string name = n.cast<std::string>();
      out.push_back(name.empty() ? nullptr : values[name] = g.add_value(name));
    }
    Node* node = g.add_node(t[0].cast<std::string>(), "", opset, in, out);
    node->name = t[2].cast<std::vector<std::string>>().back();
    for (const auto& [key, v] : t[3].cast<py::dict>()) node->set(key.cast<std::string>(), attribute_of(key.cast<std::string>(), v));
  }
  for (const std::string& name : outputs) g.add_output(named(name));
  { const GraphWriter typed(g); }
  return bytes_of(m);
}

py::list differentiable() {
  py::list list;
  for (const GradRow* row : all_grads()) list.append(py::make_tuple(std::string(row->domain), std::string(row->name), row->grad != nullptr));
  return list;
}

}  // namespace

void register_training(py::module_& m) {
  py::class_<TrainingSession, std::shared_ptr<TrainingSession>>(m, "TrainingSession", "A model, its loss and its optimiser: one call a step.")
      .def(py::init(&make), py::arg("model"), py::arg("folder"), py::arg("loss"), py::arg("optimizer"), py::arg("output") = "",
           py::arg("trainable") = std::vector<std::string>(), py::arg("clip_norm") = 0.0, py::arg("clip_value") = 0.0, py::arg("seed") = 0,
           py::arg("threads") = 0, py::arg("profile") = false, py::arg("accumulate") = false, py::arg("groups") = py::dict(),
           py::arg("adapters") = std::vector<std::string>(), py::arg("rank") = 0, py::arg("alpha") = 0.0, py::arg("segments") = 0,
           py::arg("keep") = std::vector<std::string>(), py::arg("recompute_cheap") = true, py::arg("atomic") = false)
      .def("step", &step, py::arg("arrays"), py::arg("lr"), "One step on the model's inputs and the target; gives the loss.")
      .def("accumulate", &accumulate, py::arg("arrays"), py::arg("share"), "Adds a batch's gradients, times share, to the sums; gives the loss.")
      .def("apply", [](TrainingSession& s, double lr, double scale) {
             const py::gil_scoped_release nogil;
             s.apply(lr, scale);
           }, py::arg("lr"), py::arg("scale"), "One step with the sums of gradients times scale.")
      .def("evaluate", &evaluate, py::arg("arrays"), "The loss in inference mode, and the model's outputs.")
      .def("state", &state, "(name, array) of the weights, statistics and moments; the arrays are live.")
      .def("model", [](const TrainingSession& s, bool checked) {
             Model m;
             {
               const py::gil_scoped_release nogil;  // a step that ends may need it to let go of arrays, and holds what model() waits for
               m = checked ? s.written() : s.model();
             }
             return bytes_of(m);
           }, py::arg("checked") = false, "The model with the weights of now, as .onnx bytes; `checked`: each of them fits its type.")
      .def("save", [](const TrainingSession& s, const std::string& path) {
             const py::gil_scoped_release nogil;
             onnx::save(s.written(), path);
           }, py::arg("path"))
      .def("take_profile", [](TrainingSession& s) { return profile_events(s.take_profile()); }, "The instructions recorded since the last call.")
      .def("frame", [](const TrainingSession& s) { return bytes_of(s.frame()); }, "The model, as .onnx bytes, without what is trained.")
      .def("set_state", &set_state, py::arg("arrays"), "Writes over states, {name: array}, between two steps.")
      .def("touch", &TrainingSession::touch, "Tells sessions that arrays of state() may have been written to.")
      .def("live_session", &live_session, py::arg("threads"), "A session that has the weights of now in each run.")
      .def("set_steps", &TrainingSession::set_steps, py::arg("steps"), py::arg("batches"))
      .def_property_readonly("steps", &TrainingSession::steps)
      .def_property_readonly("batches", &TrainingSession::batches)
      .def_property_readonly("notes", &TrainingSession::notes, "What is not trained though one may expect it.")
      .def_property_readonly("torn", &TrainingSession::torn)
      .def_property_readonly("num_weights", &TrainingSession::num_weights)
      .def("memory", [](const TrainingSession& s) {
             const Session::Memory m = s.memory();
             int64_t states = 0;
             for (const auto& [name, t] : s.state()) states += t.bytes();
             py::dict d;
             d["arena"] = m.arena;
             d["live_bound"] = m.live_bound;
             d["states"] = states;
             d["constants"] = m.weights;
             d["packed"] = m.packed;
             d["instructions"] = m.instructions;
             d["barriers"] = m.barriers;
             return d;
           }, "Bytes of a step: of its intermediates and the most that are alive at once, of weights with moments, of constants as read and as packed.")
      .def_property_readonly("arena_bytes", [](const TrainingSession& s) { return s.memory().arena; });
  m.def("trainable_weights", [](const py::bytes& model, const std::string& folder) { return trainable_weights(parse_trainee(model, folder)); },
        py::arg("model"), py::arg("folder") = "", "Names of the weights that can be trained.");
  m.def("scalar_weights", [](const py::bytes& model, const std::string& folder) { return scalar_weights(parse_trainee(model, folder)); },
        py::arg("model"), py::arg("folder") = "", "Names of the float initializers of rank 0, which are trained where they are named.");
  m.def("head_weights", [](const py::bytes& model, const std::string& folder, const std::string& output) {
    return head_weights(parse_trainee(model, folder), output);
  }, py::arg("model"), py::arg("folder"), py::arg("output"), "The weights of the last layer before an output.");
  m.def("adaptable_weights", &adaptable, py::arg("model"), py::arg("folder"), "(name, form) of the weights that LoRA can stand beside.");
  m.def("weights", &weights, py::arg("model"), py::arg("folder"), py::arg("names"), "{name: array} of initializers.");
  m.def("with_weights", [](const py::bytes& model, const std::string& folder, const py::dict& weights) {
    return bytes_of(changed(model, folder, weights));
  }, py::arg("model"), py::arg("folder"), py::arg("weights"), "The model, as .onnx bytes, with other weights.");
  m.def("follow", &follow, py::arg("session"), py::arg("training"), "A live session has its weights from another training of the same model.");
  m.def("merge_adapter", [](const py::object& weight, const std::string& form, const py::object& a, const py::object& b, double scale) {
    const Tensor w = to_tensor(weight, "weight"), low = to_tensor(a, "a"), high = to_tensor(b, "b");
    return from_value(merge_adapter(w, form_named(form), low, high, scale));
  }, py::arg("weight"), py::arg("form"), py::arg("a"), py::arg("b"), py::arg("scale"), "A weight with its adapter in it.");
  m.def("gradient_model", [](const py::bytes& model, const std::string& folder, const std::vector<std::string>& outputs,
                             const std::vector<std::string>& wrt) { return bytes_of(gradient_model(parse(model, folder), outputs, wrt)); },
        py::arg("model"), py::arg("folder"), py::arg("outputs"), py::arg("wrt"), "The model with an output \"gradient of NAME\" for each of wrt.");
  m.def("loss_value", [](const py::dict& loss, const py::object& prediction, const py::object& target) {
    return from_value(loss_value(loss_spec(loss), to_tensor(prediction, "prediction"), to_tensor(target, "target")));
  }, py::arg("loss"), py::arg("prediction"), py::arg("target"), "A loss of two arrays.");
  m.def("loss_gradient", [](const py::dict& loss, const py::object& prediction, const py::object& target) {
    return from_value(loss_gradient(loss_spec(loss), to_tensor(prediction, "prediction"), to_tensor(target, "target")));
  }, py::arg("loss"), py::arg("prediction"), py::arg("target"), "The gradient of a loss of two arrays with respect to the first.");
  m.def("build_model", &build_model, py::arg("inputs"), py::arg("weights"), py::arg("nodes"), py::arg("outputs"), py::arg("opset") = 21,
        "The .onnx bytes of a model: inputs (name, dtype, shape), weights {name: array}, nodes (operator, inputs, outputs, attributes).");
  m.def("losses", [] {
    std::vector<std::string> names;
    for (const LossRow& row : loss_table()) names.emplace_back(row.name);
    return names;
  }, "The names of the losses.");
  m.def("differentiable", &differentiable, "(domain, operator, has a derivative that is not zero everywhere) of every gradient rule.");
}

}  // namespace tiercel::python

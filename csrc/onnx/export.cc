#include "onnx/export.h"

#include <algorithm>
#include <unordered_set>

#include "onnx/proto.h"

namespace tiercel::onnx {
namespace {

using Opsets = std::map<std::string, int>;

// Wraps nodes whose opset is not the model's: a function has opset imports of its own.
constexpr const char* kWrapperDomain = "ai.tiercel.opset";

// The names of a graph's values, and of the graphs around it: no name may hide another.
struct Scope {
  const Scope* outer;
  const Opsets& opsets;  // that its nodes are written in
  std::unordered_map<const Value*, std::string> names{};
  std::unordered_set<std::string> taken{};
  std::unordered_map<const void*, const Value*> constants{};  // by memory

  bool is_taken(const std::string& name) const {
    for (const Scope* s = this; s; s = s->outer) if (s->taken.count(name)) return true;
    return false;
  }
  std::string unique(const std::string& wanted) {
    std::string name = wanted;
    for (int i = 1; name.empty() || is_taken(name); ++i) name = cat(wanted.empty() ? "value" : wanted, "_", i);
    taken.insert(name);
    return name;
  }
  const std::string& of(const Value* v) const {
    static const std::string none;
    return v ? names.at(v) : none;
  }
};

void add_opsets(const Graph& g, const Opsets& given, Opsets& opsets) {
  for (const auto& n : g.nodes()) {
    if (!given.count(n->domain)) {
      int& version = opsets[n->domain];
      version = std::max(version, n->opset);
    }
    for (const auto& [key, body] : n->subgraphs()) add_opsets(*body, given, opsets);
  }
}

void write_opsets(const Opsets& opsets, uint32_t field, Message& m) {
  for (const auto& [domain, version] : opsets) {
    Message o;
    o.bytes(1, domain).integer(2, version);
    m.message(field, o);
  }
}

class Exporter {
 public:
  Exporter(const Model& model, DataFile* data) : model_(model), data_(data) {}

  Message write() {
    const Graph& g = *model_.graph;
    Opsets opsets = g.opsets;
    add_opsets(g, g.opsets, opsets);
    opsets.try_emplace("", 17);  // Identity and Constant nodes may be added
    Scope scope{nullptr, opsets};
    const Message graph = write_graph(g, scope);

    Message m;
    // IR 4 allows initializers that are not inputs, IR 8 functions.
    m.integer(1, std::max({model_.ir_version, 4, functions_.empty() ? 0 : 8}));
    m.text(2, model_.producer_name).text(3, model_.producer_version).text(4, model_.domain);
    if (model_.model_version) m.integer(5, model_.model_version);
    m.text(6, model_.doc).message(7, graph);
    if (!functions_.empty()) opsets.try_emplace(kWrapperDomain, 1);
    write_opsets(opsets, 8, m);
    for (const auto& [key, value] : model_.metadata) {
      Message e;
      e.bytes(1, key).bytes(2, value);
      m.message(14, e);
    }
    for (const Message& f : functions_) m.message(25, f);
    return m;
  }

 private:
  // `scope` holds the names of captured values already.
  Message write_graph(const Graph& g, Scope& scope) {
    const bool body = scope.outer;
    const size_t own_inputs = g.inputs().size() - static_cast<size_t>(body ? g.captured : 0);
    name_values(g, scope);

    Message m;
    std::unordered_set<const Value*> direct;  // constants that are outputs: a Constant node gives them
    for (const Value* v : g.outputs()) if (v->is_constant()) direct.insert(v);
    for (int i = 0; i < g.num_values(); ++i) {
      const Value* v = g.value(i);
      if (!v || !direct.count(v) || shared_.count(v)) continue;
      Message a, n;
      a.bytes(1, "value").message(5, tensor_message(v->constant, "", nullptr)).integer(20, kAttrTensor);
      m.message(1, n.bytes(2, scope.of(v)).bytes(4, "Constant").message(5, a));
    }
    for (const auto& n : g.nodes()) m.message(1, write_node(*n, scope));
    // A body may not give an outer value, nor an input of its own; nothing may be given twice.
    std::vector<std::string> outputs;
    std::unordered_set<std::string> seen;
    for (const Value* v : g.outputs()) {
      std::string name = scope.of(v);
      const bool foreign = body && !v->producer && !(direct.count(v) && !shared_.count(v));
      if (!seen.insert(name).second || foreign) {
        Message n;
        n.bytes(1, name);
        name = scope.unique(name + "_out");
        m.message(1, n.bytes(2, name).bytes(4, "Identity"));
      }
      outputs.push_back(std::move(name));
    }
    m.bytes(2, g.name.empty() ? "graph" : g.name).text(10, g.doc);
    for (int i = 0; i < g.num_values(); ++i) {
      const Value* v = g.value(i);
      if (v && v->is_constant() && (!v->uses.empty() || needed_.count(v)) && !direct.count(v) && !shared_.count(v))
        m.message(5, tensor_message(v->constant, scope.of(v), data_));
    }
    for (size_t i = 0; i < own_inputs; ++i) m.message(11, value_message(scope.of(g.inputs()[i]), g.inputs()[i]->type, g.symbols()));
    for (size_t i = 0; i < outputs.size(); ++i) m.message(12, value_message(outputs[i], g.outputs()[i]->type, g.symbols()));
    for (int i = 0; i < g.num_values(); ++i) {
      const Value* v = g.value(i);
      if (v && v->producer && !v->graph_output_uses && v->type.dtype != DType::kUndefined)
        m.message(13, value_message(scope.of(v), v->type, g.symbols()));
    }
    return m;
  }

  void name_values(const Graph& g, Scope& scope) {
    // First those that have a name, so that names made up avoid them.
    for (const bool named : {true, false})
      for (int i = 0; i < g.num_values(); ++i) {
        const Value* v = g.value(i);
        if (!v || v->name.empty() == named || scope.names.count(v)) continue;
        if (v->is_constant()) {
          if (share_outer_constant(v, scope)) continue;
          scope.constants.try_emplace(memory_of(v->constant), v);
        }
        scope.names[v] = scope.unique(v->name);
      }
  }

  // Bodies got copies of outer constants: gives such a copy the outer name again.
  bool share_outer_constant(const Value* v, Scope& scope) {
    for (const Scope* s = scope.outer; s; s = s->outer) {
      const auto it = s->constants.find(memory_of(v->constant));
      if (it == s->constants.end()) continue;
      const Tensor &a = it->second->constant, &b = v->constant;
      if (a.dtype() != b.dtype() || !(a.shape() == b.shape()) || a.layout() != b.layout()) continue;
      scope.names[v] = s->of(it->second);
      shared_.insert(v);
      needed_.insert(it->second);
      return true;
    }
    return false;
  }

  Message write_node(const Node& n, Scope& scope) {
    const auto it = scope.opsets.find(n.domain);
    if (it != scope.opsets.end() && it->second != n.opset) return write_wrapped(n, scope);
    Message m;
    for (int i = 0; i < n.num_own_inputs(); ++i) m.bytes(1, scope.of(n.inputs[static_cast<size_t>(i)]));
    for (const Value* v : n.outputs) m.bytes(2, scope.of(v));
    m.text(3, n.name).bytes(4, n.op_type);
    for (const auto& [key, value] : n.attributes) write_attribute(n, key, value, scope, m);
    return m.text(7, n.domain);
  }

  // A call of a function of one node, which imports the node's opset.
  Message write_wrapped(const Node& n, Scope& scope) {
    Opsets opsets = scope.opsets;
    opsets[n.domain] = n.opset;
    Scope inner{nullptr, opsets};
    for (const auto* values : {&n.inputs, &n.outputs})
      for (const Value* v : *values)
        if (v) inner.taken.insert(inner.names[v] = scope.of(v));
    Message call, f;
    const std::string name = cat(n.op_type, "_", n.opset, "_", functions_made_++);
    std::unordered_set<std::string> inputs;
    for (const Value* v : n.inputs)
      if (v && inputs.insert(scope.of(v)).second) {
        call.bytes(1, scope.of(v));
        f.bytes(4, scope.of(v));
      }
    for (const Value* v : n.outputs)
      if (v) {
        call.bytes(2, scope.of(v));
        f.bytes(5, scope.of(v));
      }
    f.bytes(1, name).message(7, write_node(n, inner));
    opsets.try_emplace(kWrapperDomain, 1);
    write_opsets(opsets, 9, f);
    functions_.push_back(f.bytes(10, kWrapperDomain));
    return call.text(3, n.name).bytes(4, name).bytes(7, kWrapperDomain);
  }

  Message write_body(const Node& n, const Graph& body, Scope& scope) {
    Scope inner{&scope, scope.opsets};
    const size_t first = body.inputs().size() - static_cast<size_t>(body.captured);
    const size_t outer = static_cast<size_t>(n.captures_begin(&body));
    for (size_t i = 0; i < static_cast<size_t>(body.captured); ++i)
      inner.names[body.inputs()[first + i]] = scope.of(n.inputs[outer + i]);
    return write_graph(body, inner);
  }

  void write_attribute(const Node& n, const std::string& key, const Attribute& value, Scope& scope, Message& node) {
    Message a;
    a.bytes(1, key);
    const auto is = [&](AttributeType t) { a.integer(20, t); };
    const auto body = [&](const std::shared_ptr<Graph>& g) { return write_body(n, *g, scope); };
    const SymbolTable& symbols = n.graph->symbols();
    if (std::holds_alternative<std::monostate>(value)) return;
    if (const auto* i = std::get_if<int64_t>(&value)) { a.integer(3, *i); is(kAttrInt); }
    if (const auto* f = std::get_if<float>(&value)) { a.real(2, *f); is(kAttrFloat); }
    if (const auto* s = std::get_if<std::string>(&value)) { a.bytes(4, *s); is(kAttrString); }
    if (const auto* t = std::get_if<Tensor>(&value)) { a.message(5, tensor_message(*t, "", nullptr)); is(kAttrTensor); }
    if (const auto* g = std::get_if<std::shared_ptr<Graph>>(&value)) { a.message(6, body(*g)); is(kAttrGraph); }
    if (const auto* v = std::get_if<std::vector<int64_t>>(&value)) { for (auto x : *v) a.integer(8, x); is(kAttrInts); }
    if (const auto* v = std::get_if<std::vector<float>>(&value)) { for (auto x : *v) a.real(7, x); is(kAttrFloats); }
    if (const auto* v = std::get_if<std::vector<std::string>>(&value)) { for (auto& x : *v) a.bytes(9, x); is(kAttrStrings); }
    if (const auto* v = std::get_if<std::vector<Tensor>>(&value)) { for (auto& x : *v) a.message(10, tensor_message(x, "", nullptr)); is(kAttrTensors); }
    if (const auto* v = std::get_if<std::vector<std::shared_ptr<Graph>>>(&value)) { for (auto& x : *v) a.message(11, body(x)); is(kAttrGraphs); }
    if (const auto* t = std::get_if<Type>(&value)) { a.message(14, type_message(*t, symbols)); is(kAttrType); }
    if (const auto* v = std::get_if<std::vector<Type>>(&value)) { for (auto& x : *v) a.message(15, type_message(x, symbols)); is(kAttrTypes); }
    node.message(5, a);
  }

  const Model& model_;
  DataFile* data_;
  std::vector<Message> functions_;
  int functions_made_ = 0;
  std::unordered_set<const Value*> shared_;  // constants of bodies that an outer initializer gives
  std::unordered_set<const Value*> needed_;  // those outer ones
};

}  // namespace

Message model_message(const Model& model, DataFile* data) { return Exporter(model, data).write(); }

int64_t constant_bytes(const Graph& g) {
  int64_t total = 0;
  for (int i = 0; i < g.num_values(); ++i)
    if (const Value* v = g.value(i); v && v->is_constant() && v->constant.dtype() != DType::kString) total += v->constant.bytes();
  for (const auto& n : g.nodes()) for (const auto& [key, body] : n->subgraphs()) total += constant_bytes(*body);
  return total;
}

}  // namespace tiercel::onnx

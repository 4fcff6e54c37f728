#include "onnx/import.h"

#include "autodiff/gradient_operator.h"

#include <unordered_map>
#include <unordered_set>

namespace tiercel::onnx {
namespace {

constexpr int kMaxNesting = 100;            // bodies in bodies and functions in functions
constexpr int64_t kMaxInlined = 1 << 18;    // nodes, or kilobytes, that functions may grow to: a doubling chain of calls must end

template <class... F> struct Overloaded : F... { using F::operator()...; };
template <class... F> Overloaded(F...) -> Overloaded<F...>;

struct Scope;

// A Graph being built, and what it takes from the graphs around it.
struct Level {
  Graph* graph;
  Level* parent;                                  // of the graph around this body; null for the main graph
  std::unordered_set<std::string> names{};        // of its values
  std::unordered_map<std::string, int> suffixes{};  // last number tried for a name
  std::unordered_map<Value*, Value*> taken{};     // a value of the parent -> its copy or capture here
  std::vector<Value*> captures{};                 // values of the parent, in the order of their first use

  // `name`, or the first of name_1, name_2, ... that is free.
  std::string unique(std::string name) {
    if (!name.empty() && names.insert(name).second) return name;
    for (int& i = suffixes[name];;) {
      std::string candidate = name + "_" + std::to_string(++i);
      if (names.insert(candidate).second) return candidate;
    }
  }

  // A value of a graph further out, as a value of this one.
  Value* take(Value* v, const Level* from) {
    if (!v || from == this) return v;
    v = parent->take(v, from);
    Value*& here = taken[v];
    if (here) return here;
    if (v->is_constant()) return here = graph->add_constant(unique(v->name), v->constant);
    captures.push_back(v);
    ++graph->captured;
    return here = graph->add_input(unique(v->name), v->type);
  }
};

// A call of a function that is being inlined.
struct Call {
  const FunctionProto* function;
  const Call* outer;
  std::string prefix;  // of the names that its nodes and values get
  struct Given { const AttributeProto* attribute; Scope* scope; };
  std::unordered_map<std::string_view, Given> attributes{};
};

// Names that nodes see: of a graph, or of a function's body (whose nodes go to the caller's graph).
struct Scope {
  Level* level;
  Scope* outer;      // null for the main graph and for function bodies
  const Call* call;  // the function this is part of; null outside
  std::unordered_map<std::string_view, Value*> values{};  // null: an optional parameter that was left out
  std::unordered_map<std::string_view, const Type*> types{};
};

class Importer {
 public:
  Importer(const ModelProto& m, std::shared_ptr<SymbolTable> symbols) : model_(m), symbols_(std::move(symbols)) {
    for (const FunctionProto& f : m.functions)
      if (!functions_.try_emplace(key(f.domain, f.name, f.overload), &f).second)
        fail(Code::kInvalidGraph, "function \"", f.name, "\" of domain \"", f.domain, "\" is defined twice");
  }

  std::shared_ptr<Graph> main(std::unordered_set<std::string_view> as_inputs) {
    const GraphProto& g = *model_.graph;
    auto graph = std::make_shared<Graph>(symbols_);
    for (const auto& [domain, version] : model_.opsets) graph->opsets[std::string(domain)] = version;
    Level level{graph.get(), nullptr};
    Scope scope{&level, nullptr, nullptr};
    std::unordered_set<std::string_view> constants;
    for (const auto& [name, tensor] : g.initializers)
      if (!as_inputs.count(name)) constants.insert(name);
    as_inputs_ = std::move(as_inputs);
    fill(g, scope, &constants);
    return graph;
  }

 private:
  static std::string key(std::string_view domain, std::string_view name, std::string_view overload) {
    std::string s(domain);
    return s.append(1, '\0').append(name).append(1, '\0').append(overload);
  }

  struct Nested {
    explicit Nested(Importer& i) : depth(i.depth_) {
      if (++depth > kMaxNesting) fail(Code::kInvalidGraph, "bodies and functions are nested more than ", kMaxNesting, " deep");
    }
    ~Nested() { --depth; }
    int& depth;
  };

  // Builds the graph of `scope`. `constants`: inputs that initializers make constants (main graph), or null.
  void fill(const GraphProto& g, Scope& scope, const std::unordered_set<std::string_view>* constants) {
    const Nested nested(*this);
    Graph& graph = *scope.level->graph;
    graph.name = g.name;
    graph.doc = g.doc;
    for (const ValueInfoProto& v : g.value_info) if (v.has_type) scope.types[v.name] = &v.type;
    for (const ValueInfoProto& v : g.outputs) if (v.has_type) scope.types[v.name] = &v.type;
    // Names given in the file stay; names made for inlined and captured values avoid them.
    std::unordered_set<std::string>& names = scope.level->names;
    for (const NodeProto& n : g.nodes) for (std::string_view o : n.outputs) names.emplace(o);

    for (const ValueInfoProto& v : g.inputs) {
      if (constants && constants->count(v.name)) continue;
      if (constants && (!v.has_type || (v.type.is_tensor() && v.type.dtype == DType::kUndefined)))
        fail(Code::kInvalidGraph, "graph input \"", v.name, "\" has no element type");
      define(scope, v.name, graph.add_input(std::string(v.name), v.type), "graph input");
      names.emplace(v.name);
    }
    for (const auto& [name, tensor] : g.initializers) {
      if (name.empty()) fail(Code::kInvalidGraph, "an initializer without a name");
      if (constants ? as_inputs_.count(name) : scope.values.count(name)) continue;  // (of a body:) the default of an input, which is always given
      define(scope, name, graph.add_constant(std::string(name), tensor), "initializer");
      names.emplace(name);
    }
    add_nodes(g.nodes, scope);
    for (const ValueInfoProto& o : g.outputs) {
      Value* v = find(scope, o.name);
      if (!v) fail(Code::kInvalidGraph, "graph output \"", o.name, "\" is not computed by any node");
      graph.add_output(v);
    }
  }

  void define(Scope& scope, std::string_view name, Value* v, const std::string& what) {
    if (!scope.values.try_emplace(name, v).second)
      fail(Code::kInvalidGraph, what, ": the name \"", name, "\" is already taken (each value must be defined once)");
  }

  // The value of a name where `scope` sees it, as a value of its graph; null when there is none. `known`: whether the
  // name exists, which an optional parameter that was left out does.
  Value* find(Scope& scope, std::string_view name, bool* known = nullptr) {
    for (Scope* s = &scope; s; s = s->outer)
      if (auto it = s->values.find(name); it != s->values.end()) {
        if (known) *known = true;
        return scope.level->take(it->second, s->level);
      }
    return nullptr;
  }

  void add_nodes(const std::vector<NodeProto>& nodes, Scope& scope) {
    for (size_t i : topological_order(nodes)) add(nodes[i], scope);
  }

  void add(const NodeProto& n, Scope& scope) {
    if (scope.call && (inlined_ += 1 + (n.op_type == "Constant" ? 0 : n.size / 1024)) > kMaxInlined)
      fail(Code::kInvalidGraph, "the model's functions grow to more than ", kMaxInlined, " nodes when inlined");
    if (auto it = functions_.find(key(n.domain, n.op_type, n.overload)); it != functions_.end())
      return inline_function(n, *it->second, scope);
    if (n.op_type == "Constant" && n.domain.empty()) return add_constant(n, scope);

    Level& level = *scope.level;
    std::vector<Value*> inputs = input_values(n, scope);
    while (!inputs.empty() && !inputs.back()) inputs.pop_back();
    const int own = static_cast<int>(inputs.size());
    std::vector<std::pair<std::string, Attribute>> attributes;
    std::unordered_set<std::string_view> keys;
    bool bodies = false;
    for (const AttributeProto& a : n.attributes) {
      if (!keys.insert(a.name).second) fail(Code::kInvalidGraph, n.label(), ": attribute '", a.name, "' is given twice");
      const Call::Given given = resolve(a, scope);
      if (!given.attribute) continue;
      attributes.emplace_back(std::string(a.name), convert(*given.attribute, *given.scope, level, inputs, bodies));
    }
    if (n.op_type == "Gradient" && n.domain == kTrainingDomain) name_values(n, attributes, scope, inputs);
    std::vector<Value*> outputs;
    for (std::string_view o : n.outputs) outputs.push_back(o.empty() ? nullptr : new_output(n, o, scope));
    Node* node = level.graph->add_node(std::string(n.op_type), std::string(n.domain), opset(n, scope.call), std::move(inputs),
                                       std::move(outputs));
    if (!n.name.empty()) node->name = scope.call ? cat(scope.call->prefix, "/", n.name) : std::string(n.name);
    node->attributes = std::move(attributes);
    if (bodies) node->own_inputs = own;
  }

  std::vector<Value*> input_values(const NodeProto& n, Scope& scope) {
    std::vector<Value*> inputs;
    inputs.reserve(n.inputs.size());
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      bool known = n.inputs[i].empty();
      inputs.push_back(known ? nullptr : find(scope, n.inputs[i], &known));
      if (!known)
        fail(Code::kInvalidGraph, n.label(), ": input ", i, ", \"", n.inputs[i],
             "\", is neither a graph input nor an initializer nor computed by any node");
    }
    return inputs;
  }

  // Gradient's attributes name values where the node stands: those become inputs after its own, xs, then zs, then y.
  void name_values(const NodeProto& n, const std::vector<std::pair<std::string, Attribute>>& attributes, Scope& scope, std::vector<Value*>& inputs) {
    std::vector<std::string> names;
    for (const char* key : {"xs", "zs", "y"})
      for (const auto& [name, value] : attributes) {
        if (name != key) continue;
        if (const auto* list = std::get_if<std::vector<std::string>>(&value)) names.insert(names.end(), list->begin(), list->end());
        else if (const auto* one = std::get_if<std::string>(&value)) names.push_back(*one);
      }
    for (const std::string& name : names) {
      Value* v = find(scope, name);
      if (!v) fail(Code::kInvalidGraph, n.label(), ": \"", name, "\", which its attributes name, is no value that is computed before it");
      inputs.push_back(v);
    }
  }

  // The value that output `name` of a node gives.
  Value* new_output(const NodeProto& n, std::string_view name, Scope& scope) {
    // The output of an inlined function is the caller's value.
    if (auto it = scope.values.find(name); it != scope.values.end() && results_.count(it->second)) {
      results_.erase(it->second);
      return it->second;
    }
    std::string unique = scope.call ? scope.level->unique(cat(scope.call->prefix, "/", name)) : std::string(name);
    Type type;
    if (auto it = scope.types.find(name); it != scope.types.end()) type = *it->second;
    Value* v = scope.level->graph->add_value(std::move(unique), type);
    define(scope, name, v, n.label());
    return v;
  }

  int opset(const NodeProto& n, const Call* call) const {
    if (call)
      if (auto it = call->function->opsets.find(n.domain); it != call->function->opsets.end()) return it->second;
    if (auto it = model_.opsets.find(n.domain); it != model_.opsets.end()) return it->second;
    if (n.domain.empty() && model_.ir_version >= 3)
      fail(Code::kInvalidGraph, n.label(), ": the model imports no opset of the domain ai.onnx");
    return 1;
  }

  // The attribute that `a` stands for: itself, or through its function's parameters what the caller gave. Null: not given.
  Call::Given resolve(const AttributeProto& a, Scope& scope) {
    if (a.ref.empty()) return {&a, &scope};
    if (!scope.call)
      fail(Code::kInvalidGraph, "attribute '", a.name, "' refers to the function parameter '", a.ref, "' outside a function");
    const auto it = scope.call->attributes.find(a.ref);
    return it == scope.call->attributes.end() ? Call::Given{nullptr, nullptr} : it->second;
  }

  // Bodies see the names of `scope`; what they capture is appended to `inputs`, values of `level`.
  Attribute convert(const AttributeProto& a, Scope& scope, Level& level, std::vector<Value*>& inputs, bool& bodies) {
    const auto body = [&](const GraphProto& g) {
      bodies = true;
      auto graph = std::make_shared<Graph>(symbols_);
      Level inner{graph.get(), &level};
      Scope names{&inner, &scope, scope.call};
      fill(g, names, nullptr);
      inputs.insert(inputs.end(), inner.captures.begin(), inner.captures.end());
      return graph;
    };
    const Overloaded visitor{
        [](std::monostate) { return Attribute(); },
        [](std::string_view s) { return Attribute(std::string(s)); },
        [](const std::vector<std::string_view>& s) { return Attribute(std::vector<std::string>(s.begin(), s.end())); },
        [&](const AttributeProto::GraphPtr& g) { return Attribute(body(*g)); },
        [&](const std::vector<AttributeProto::GraphPtr>& gs) {
          std::vector<std::shared_ptr<Graph>> made;
          for (const auto& g : gs) made.push_back(body(*g));
          return Attribute(std::move(made));
        },
        [](const auto& v) { return Attribute(v); }};
    return std::visit(visitor, a.value);
  }

  void add_constant(const NodeProto& n, Scope& scope) {
    if (n.outputs.size() != 1 || n.outputs[0].empty()) fail(Code::kInvalidGraph, n.label(), ": it must have one output");
    Tensor t;
    for (const AttributeProto& a : n.attributes) {
      const AttributeProto* given = resolve(a, scope).attribute;
      if (!given || (!a.name.starts_with("value") && a.name != "sparse_value")) continue;
      if (const auto* tensor = std::get_if<Tensor>(&given->value)) {
        t = *tensor;
      } else if (const auto* f = std::get_if<float>(&given->value)) {
        t = Tensor::of<float>({}, {*f});
      } else if (const auto* i = std::get_if<int64_t>(&given->value)) {
        t = Tensor::of<int64_t>({}, {*i});
      } else if (const auto* fs = std::get_if<std::vector<float>>(&given->value)) {
        t = Tensor(DType::kFloat, Shape({static_cast<Dim>(fs->size())}));
        std::copy(fs->begin(), fs->end(), t.as<float>());
      } else if (const auto* is = std::get_if<std::vector<int64_t>>(&given->value)) {
        t = Tensor(DType::kInt64, Shape({static_cast<Dim>(is->size())}));
        std::copy(is->begin(), is->end(), t.as<int64_t>());
      } else if (const auto* s = std::get_if<std::string_view>(&given->value)) {
        t = Tensor(DType::kString, Shape());
        *t.as<std::string>() = *s;
      } else if (const auto* ss = std::get_if<std::vector<std::string_view>>(&given->value)) {
        t = Tensor(DType::kString, Shape({static_cast<Dim>(ss->size())}));
        std::copy(ss->begin(), ss->end(), t.as<std::string>());
      }
    }
    if (!t.defined()) fail(Code::kInvalidGraph, n.label(), ": it has no value");
    scope.level->graph->make_constant(new_output(n, n.outputs[0], scope), std::move(t));
  }

  void inline_function(const NodeProto& n, const FunctionProto& f, Scope& caller) {
    for (const Call* c = caller.call; c; c = c->outer)
      if (c->function == &f) fail(Code::kInvalidGraph, n.label(), ": the function \"", f.name, "\" calls itself");
    const Nested nested(*this);
    if (n.inputs.size() > f.inputs.size() || n.outputs.size() > f.outputs.size())
      fail(Code::kInvalidGraph, n.label(), ": ", n.inputs.size(), " inputs and ", n.outputs.size(),
           " outputs, but the function takes ", f.inputs.size(), " and gives ", f.outputs.size());

    std::string prefix(n.name.empty() ? f.name : n.name);
    if (caller.call) prefix = cat(caller.call->prefix, "/", prefix);
    if (prefix.size() > 256) prefix = "call";
    if (const int again = prefixes_[prefix]++) prefix += "_" + std::to_string(again);
    Call call{&f, caller.call, std::move(prefix)};
    Scope scope{caller.level, nullptr, &call};
    for (const AttributeProto& a : f.defaults) call.attributes[a.name] = {&a, &scope};
    for (const AttributeProto& a : n.attributes)
      if (const Call::Given given = resolve(a, caller); given.attribute) call.attributes[a.name] = given;

    const std::vector<Value*> inputs = input_values(n, caller);
    for (size_t i = 0; i < f.inputs.size(); ++i)
      define(scope, f.inputs[i], i < inputs.size() ? inputs[i] : nullptr, n.label());

    // Each result is a value of the caller that a node of the function will produce; one that is a parameter or a result
    // already is copied by an Identity.
    std::vector<std::pair<std::string_view, Value*>> copies;
    for (size_t i = 0; i < n.outputs.size(); ++i) {
      if (n.outputs[i].empty()) continue;
      Value* v = new_output(n, n.outputs[i], caller);
      if (scope.values.try_emplace(f.outputs[i], v).second) results_.insert(v);
      else copies.push_back({f.outputs[i], v});
    }
    add_nodes(f.nodes, scope);
    for (const auto& [name, v] : copies) {
      Value* from = find(scope, name);
      if (!from) fail(Code::kInvalidGraph, n.label(), ": the function's output \"", name, "\" is a parameter that was left out");
      const auto it = f.opsets.find("");
      caller.level->graph->add_node("Identity", "", it == f.opsets.end() ? 1 : it->second, {from}, {v});
    }
    for (std::string_view o : f.outputs)
      if (auto it = scope.values.find(o); it != scope.values.end() && results_.count(it->second))
        fail(Code::kInvalidGraph, n.label(), ": the function does not compute its output \"", o, "\"");
  }

  std::unordered_set<std::string_view> as_inputs_;  // initializers of the main graph
  const ModelProto& model_;
  std::shared_ptr<SymbolTable> symbols_;
  std::unordered_map<std::string, const FunctionProto*> functions_;
  std::unordered_set<const Value*> results_;  // of functions, not yet produced
  int depth_ = 0;
  std::unordered_map<std::string, int> prefixes_;  // how often each was used
  int64_t inlined_ = 0;
};

}  // namespace

std::shared_ptr<Graph> import_graph(const ModelProto& m, std::shared_ptr<SymbolTable> symbols, const std::vector<std::string>& as_inputs) {
  return Importer(m, std::move(symbols)).main({as_inputs.begin(), as_inputs.end()});
}

}  // namespace tiercel::onnx

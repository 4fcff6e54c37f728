#include "graph/graph.h"

#include <algorithm>
#include <unordered_set>

namespace tiercel {

// ---- Symbols

SymbolTable::SymbolTable(const SymbolTable& outer) : outer_(&outer) {
  std::lock_guard lock(outer.mutex_);
  first_ = outer.first_ + outer.names_.size();
}

Dim SymbolTable::add(std::string name) {
  names_.push_back(name.empty() ? nullptr : std::make_unique<const std::string>(std::move(name)));
  return kSymbolBase + static_cast<Dim>(first_ + names_.size() - 1);
}

const std::string& SymbolTable::name_of(Dim d) const {
  static const std::string none;
  const auto at = static_cast<size_t>(d - kSymbolBase);
  if (at < first_) return outer_->name_of(d);
  return at - first_ < names_.size() && names_[at - first_] ? *names_[at - first_] : none;
}

Dim SymbolTable::find_name(const std::string& name) const {
  const auto it = by_name_.find(name);
  return it != by_name_.end() ? it->second : outer_ ? outer_->find_name(name) : 0;
}

Dim SymbolTable::find_sum(const Sum& sum) const {
  const auto it = sums_.find(sum);
  return it != sums_.end() ? it->second : outer_ ? outer_->find_sum(sum) : 0;
}

const SymbolTable::Sum* SymbolTable::find_terms(Dim d) const {
  const auto it = terms_.find(d);
  return it != terms_.end() ? &it->second : outer_ ? outer_->find_terms(d) : nullptr;
}

Dim SymbolTable::named(const std::string& name) {
  std::lock_guard lock(mutex_);
  if (const Dim d = find_name(name)) return d;
  return by_name_[name] = add(name);
}

Dim SymbolTable::fresh() {
  std::lock_guard lock(mutex_);
  return add({});
}

Dim SymbolTable::plus(Dim a, Dim b) {
  constexpr int64_t kMost = int64_t{1} << 40;  // far from overflow
  constexpr size_t kTerms = 4;
  std::lock_guard lock(mutex_);
  Sum sum{{}, 0};
  for (const Dim d : {a, b}) {
    if (!is_symbol(d) && (d > kMost || d < -kMost)) return add({});
    if (const Sum* known = find_terms(d)) {
      sum.first.insert(sum.first.end(), known->first.begin(), known->first.end());
      sum.second += known->second;
    } else if (is_symbol(d)) {
      sum.first.push_back(d);
    } else {
      sum.second += d;
    }
  }
  if (sum.first.empty()) return sum.second;
  if (sum.first.size() > kTerms || sum.second > kMost || sum.second < -kMost) return add({});
  std::sort(sum.first.begin(), sum.first.end());
  if (sum.first.size() == 1 && sum.second == 0) return sum.first[0];
  if (const Dim d = find_sum(sum)) return d;
  std::string text;
  bool named = true;
  for (const Dim d : sum.first) {
    const std::string& one = name_of(d);
    named = named && !one.empty();
    text += cat(text.empty() ? "" : " + ", one);
  }
  if (sum.second) text += cat(sum.second < 0 ? " - " : " + ", std::abs(sum.second));
  const Dim d = add(named ? text : std::string());
  sums_[sum] = d;
  terms_[d] = std::move(sum);
  return d;
}

const std::string& SymbolTable::name(Dim d) const {
  std::lock_guard lock(mutex_);
  return name_of(d);
}

void SymbolTable::note_extent(Dim d) {
  if (!is_symbol(d)) return;
  std::lock_guard lock(mutex_);
  const auto at = static_cast<size_t>(d - kSymbolBase);
  if (at < first_ || at - first_ >= names_.size()) return;  // known to the table below, where it came from an axis
  extents_.resize(names_.size());
  extents_[at - first_] = true;
}

bool SymbolTable::is_extent(Dim d) const {
  if (!is_symbol(d)) return false;
  std::lock_guard lock(mutex_);
  const auto at = static_cast<size_t>(d - kSymbolBase);
  if (at < first_) return outer_->is_extent(d);
  return at - first_ < extents_.size() && extents_[at - first_];
}

int SymbolTable::size() const {
  std::lock_guard lock(mutex_);
  return static_cast<int>(first_ + names_.size());
}

std::string SymbolTable::str(Dim d) const {
  if (!is_symbol(d)) return std::to_string(d);
  const std::string& n = name(d);
  return n.empty() ? "?" : n;
}

// ---- Building

Graph::Graph(std::shared_ptr<SymbolTable> symbols)
    : symbols_(symbols ? std::move(symbols) : std::make_shared<SymbolTable>()) {}

Value* Graph::add_value(std::string name, Type type) {
  auto v = std::make_unique<Value>();
  v->name = std::move(name);
  v->type = std::move(type);
  v->id = static_cast<int>(values_.size());
  values_.push_back(std::move(v));
  return values_.back().get();
}

Value* Graph::add_input(std::string name, Type type) {
  Value* v = add_value(std::move(name), std::move(type));
  v->is_graph_input = true;
  inputs_.push_back(v);
  return v;
}

Value* Graph::add_constant(std::string name, Tensor tensor) {
  Value* v = add_value(std::move(name), Type::tensor(tensor.dtype(), tensor.shape(), tensor.layout()));
  v->constant = std::move(tensor);
  return v;
}

Value* Graph::new_constant(Tensor tensor, std::string_view what) {
  Value* v = add_constant("", std::move(tensor));
  v->name = cat("tiercel_", what, "_", v->id);
  return v;
}

void Graph::remove_input(int index) {
  Value* v = inputs_[index];
  if (!v->uses.empty() || v->graph_output_uses) fail(Code::kInvalidGraph, "graph input \"", v->name, "\" is in use");
  inputs_.erase(inputs_.begin() + index);
  values_[v->id].reset();
}

void Graph::add_output(Value* v) {
  outputs_.push_back(v);
  ++v->graph_output_uses;
}

void Graph::clear_outputs() {
  for (Value* v : outputs_) --v->graph_output_uses;
  outputs_.clear();
}

void Graph::set_output(int index, Value* v) {
  --outputs_[index]->graph_output_uses;
  outputs_[index] = v;
  ++v->graph_output_uses;
}

Node* Graph::add_node(std::string op_type, std::string domain, int opset, std::vector<Value*> inputs,
                      std::vector<Value*> outputs, Node* before) {
  auto owned = std::make_unique<Node>();
  Node* n = owned.get();
  n->op_type = std::move(op_type);
  n->domain = std::move(domain);
  n->opset = opset;
  n->graph = this;
  n->inputs = std::move(inputs);
  n->outputs = std::move(outputs);
  for (size_t i = 0; i < n->inputs.size(); ++i) add_use(n->inputs[i], n, static_cast<int>(i));
  for (size_t i = 0; i < n->outputs.size(); ++i)
    if (Value* v = n->outputs[i]) {
      if (v->producer || v->is_graph_input || v->is_constant())
        fail(Code::kInvalidGraph, n->label(), ": output \"", v->name, "\" is already defined elsewhere in the graph");
      v->producer = n;
      v->output_index = static_cast<int>(i);
    }
  n->self = nodes_.insert(before ? before->self : nodes_.end(), std::move(owned));
  return n;
}

Value* Graph::emit(std::string op_type, std::string domain, int opset, std::vector<Value*> inputs, Type type,
                   Node* before) {
  Value* v = add_value("", std::move(type));
  v->name = "tiercel_" + op_type + "_" + std::to_string(v->id);
  add_node(std::move(op_type), std::move(domain), opset, std::move(inputs), {v}, before);
  return v;
}

// ---- Changing

void Graph::add_use(Value* v, Node* n, int index) {
  if (v) v->uses.push_back({n, index});
}

void Graph::drop_use(Value* v, Node* n, int index) {
  if (!v) return;
  auto it = std::find_if(v->uses.begin(), v->uses.end(), [&](const Use& u) { return u.node == n && u.index == index; });
  if (it != v->uses.end()) v->uses.erase(it);
}

void Graph::set_input(Node* node, int index, Value* v) {
  drop_use(node->inputs[index], node, index);
  node->inputs[index] = v;
  add_use(v, node, index);
}

void Graph::add_node_input(Node* node, Value* v) {
  if (node->own_inputs >= 0) fail(Code::kInvalidGraph, node->label(), ": cannot append an input after captures");
  node->inputs.push_back(v);
  add_use(v, node, static_cast<int>(node->inputs.size()) - 1);
}

void Graph::resize_inputs(Node* node, int n) {
  for (int i = n; i < static_cast<int>(node->inputs.size()); ++i) drop_use(node->inputs[i], node, i);
  node->inputs.resize(n, nullptr);
}

void Graph::insert_input(Node* node, int index, Value* v) {
  for (int i = index; i < static_cast<int>(node->inputs.size()); ++i)
    if (Value* moved = node->inputs[static_cast<size_t>(i)])
      for (Use& u : moved->uses)
        if (u.node == node && u.index == i) {
          u.index = -i - 2;  // its place from now on, marked as done
          break;
        }
  node->inputs.insert(node->inputs.begin() + index, v);
  for (Value* moved : node->inputs)
    if (moved)
      for (Use& u : moved->uses)
        if (u.node == node && u.index < 0) u.index = -u.index - 1;
  add_use(v, node, index);
}

void Graph::insert_output(Node* node, int index, Value* v) {
  node->outputs.insert(node->outputs.begin() + index, v);
  if (v) v->producer = node;
  for (size_t i = static_cast<size_t>(index); i < node->outputs.size(); ++i)
    if (Value* o = node->outputs[i]) o->output_index = static_cast<int>(i);
}

void Graph::order_inputs(std::vector<Value*> inputs) {
  if (!std::is_permutation(inputs.begin(), inputs.end(), inputs_.begin(), inputs_.end()))
    fail(Code::kInvalidGraph, "graph \"", name, "\": these are not its inputs in another order");
  inputs_ = std::move(inputs);
}

void Graph::replace_uses(Value* from, Value* to) {
  if (from == to) return;
  std::vector<Use> uses;
  uses.swap(from->uses);
  for (const Use& u : uses) {
    u.node->inputs[u.index] = to;
    add_use(to, u.node, u.index);
  }
  if (!from->graph_output_uses) return;
  if (to->producer && !to->graph_output_uses) std::swap(from->name, to->name);  // an output keeps its name
  for (Value*& o : outputs_)
    if (o == from) {
      o = to;
      --from->graph_output_uses;
      ++to->graph_output_uses;
    }
}

void Graph::make_constant(Value* v, Tensor tensor) {
  if (v->producer) {
    v->producer->outputs[v->output_index] = nullptr;
    v->producer = nullptr;
  }
  v->type = Type::tensor(tensor.dtype(), tensor.shape(), tensor.layout());
  v->constant = std::move(tensor);
  v->computed = true;
}

void Graph::erase(Node* node) {
  for (Value* v : node->outputs)
    if (v && (!v->uses.empty() || v->graph_output_uses))
      fail(Code::kInvalidGraph, node->label(), ": erased while its output \"", v->name, "\" is in use");
  for (size_t i = 0; i < node->inputs.size(); ++i) drop_use(node->inputs[i], node, static_cast<int>(i));
  for (Value* v : node->outputs) if (v) values_[v->id].reset();
  nodes_.erase(node->self);
}

void Graph::renumber() {
  std::erase(values_, nullptr);
  for (size_t i = 0; i < values_.size(); ++i) values_[i]->id = static_cast<int>(i);
}

void Graph::erase_dead() {
  for (auto it = nodes_.end(); it != nodes_.begin();) {
    Node* n = std::prev(it)->get();
    const bool used = std::any_of(n->outputs.begin(), n->outputs.end(), [](const Value* v) {
      return v && (!v->uses.empty() || v->graph_output_uses);
    });
    if (used) {
      --it;
      for (auto& [key, body] : n->subgraphs()) body->erase_dead();
    } else {
      erase(n);  // `it` stays valid: it points past the erased node
    }
  }
  for (auto& v : values_)
    if (v && v->uses.empty() && !v->graph_output_uses && !v->producer && !v->is_graph_input) v.reset();
}

// ---- Copying and checking

Node* Graph::add_copy(const Node& n, std::vector<Value*> inputs, std::vector<Value*> outputs, Node* before) {
  Node* c = add_node(n.op_type, n.domain, n.opset, std::move(inputs), std::move(outputs), before);
  c->name = n.name;
  c->own_inputs = n.own_inputs;
  c->attributes = n.attributes;
  for (auto& [key, a] : c->attributes) {
    if (auto* body = std::get_if<std::shared_ptr<Graph>>(&a)) *body = (*body)->clone();
    if (auto* bodies = std::get_if<std::vector<std::shared_ptr<Graph>>>(&a))
      for (auto& b : *bodies) b = b->clone();
  }
  return c;
}

std::vector<Value*> Graph::append(const Graph& from, std::span<Value* const> inputs) {
  std::unordered_map<const Value*, Value*> to;
  std::unordered_set<std::string> names;
  for (const auto& v : values_) if (v) names.insert(v->name);
  for (size_t i = 0; i < from.inputs_.size(); ++i) to[from.inputs_[i]] = inputs[i];
  const auto map = [&](const std::vector<Value*>& vs) {
    std::vector<Value*> r;
    for (const Value* v : vs) {
      if (v && !to.count(v)) {
        Value* c = add_value(names.insert(v->name).second ? v->name : "", v->type);
        c->constant = v->constant;
        c->computed = v->computed;
        to[v] = c;
      }
      r.push_back(v ? to.at(v) : nullptr);
    }
    return r;
  };
  for (const auto& n : from.nodes_) add_copy(*n, map(n->inputs), map(n->outputs));
  return map(from.outputs_);
}

void Graph::set_symbols(const std::shared_ptr<SymbolTable>& symbols) {
  symbols_ = symbols;
  for (const auto& n : nodes_)
    for (auto& [key, body] : n->subgraphs()) body->set_symbols(symbols);
}

Tensor Graph::derived(const std::string& key, std::initializer_list<const Value*> from, const std::function<Tensor()>& make) const {
  if (!memo) return make();
  std::vector<Tensor> sources;
  for (const Value* v : from) sources.push_back(v ? v->constant : Tensor());
  return memo->get(key, sources, [&] { return std::vector<Tensor>{make()}; })[0];
}

std::shared_ptr<Graph> Graph::clone() const {
  auto g = std::make_shared<Graph>(symbols_);
  g->name = name;
  g->doc = doc;
  g->captured = captured;
  g->opsets = opsets;
  std::unordered_map<const Value*, Value*> to;
  auto copy_value = [&](const Value* v) {
    Value* c = g->add_value(v->name, v->type);
    c->constant = v->constant;
    c->is_graph_input = v->is_graph_input;
    c->computed = v->computed;
    to[v] = c;
  };
  for (const auto& v : values_) if (v) copy_value(v.get());
  auto map = [&](const std::vector<Value*>& vs) {
    std::vector<Value*> r;
    for (const Value* v : vs) r.push_back(v ? to.at(v) : nullptr);
    return r;
  };
  g->inputs_ = map(inputs_);
  for (const auto& n : nodes_) g->add_copy(*n, map(n->inputs), map(n->outputs));
  for (Value* v : outputs_) g->add_output(to.at(v));
  return g;
}

void Graph::check() const {
  auto bad = [&](const auto&... what) { fail(Code::kInvalidGraph, "graph \"", name, "\": ", what...); };
  std::unordered_set<const Value*> seen;
  std::unordered_set<std::string> names;
  for (const auto& v : values_) {
    if (!v) continue;
    if (!v->name.empty() && !names.insert(v->name).second) bad("two values are named \"", v->name, "\"");
    if (v->is_constant() || v->is_graph_input) seen.insert(v.get());
    for (const Use& u : v->uses)
      if (u.index >= static_cast<int>(u.node->inputs.size()) || u.node->inputs[u.index] != v.get())
        bad("value \"", v->name, "\" has a use that its node does not know");
  }
  for (const auto& n : nodes_) {
    for (size_t i = 0; i < n->inputs.size(); ++i) {
      const Value* v = n->inputs[i];
      if (!v) continue;
      if (!seen.count(v)) bad(n->label(), ": input \"", v->name, "\" is not computed before it is used");
      const bool known = std::any_of(v->uses.begin(), v->uses.end(), [&](const Use& u) {
        return u.node == n.get() && u.index == static_cast<int>(i);
      });
      if (!known) bad(n->label(), ": input \"", v->name, "\" does not list this use");
    }
    int captures = 0;
    for (auto& [key, body] : n->subgraphs()) { body->check(); captures += body->captured; }
    if (n->own_inputs >= 0 && n->own_inputs + captures != static_cast<int>(n->inputs.size()))
      bad(n->label(), ": ", n->inputs.size(), " inputs, but ", n->own_inputs, " own and ", captures, " captured");
    for (const Value* v : n->outputs) {
      if (!v) continue;
      if (v->producer != n.get()) bad(n->label(), ": output \"", v->name, "\" has another producer");
      if (!seen.insert(v).second) bad(n->label(), ": output \"", v->name, "\" is computed twice");
    }
  }
  for (const Value* v : outputs_) if (!seen.count(v)) bad("output \"", v->name, "\" is never computed");
}

}  // namespace tiercel

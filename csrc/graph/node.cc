#include "graph/graph.h"

namespace tiercel {
namespace {

template <class T> constexpr const char* type_of = "?";
template <> constexpr const char* type_of<int64_t> = "an int";
template <> constexpr const char* type_of<float> = "a float";
template <> constexpr const char* type_of<std::string> = "a string";
template <> constexpr const char* type_of<Tensor> = "a tensor";
template <> constexpr const char* type_of<std::shared_ptr<Graph>> = "a graph";
template <> constexpr const char* type_of<std::vector<int64_t>> = "a list of ints";
template <> constexpr const char* type_of<std::vector<float>> = "a list of floats";
template <> constexpr const char* type_of<std::vector<std::string>> = "a list of strings";

template <class T> const T* get(const Node& node, std::string_view key) {
  const Attribute* a = node.attribute(key);
  if (!a || std::holds_alternative<std::monostate>(*a)) return nullptr;
  if (const T* t = std::get_if<T>(a)) return t;
  // An empty list carries no element type on the wire: any list type may stand for it.
  fail(Code::kInvalidGraph, node.label(), ": attribute '", key, "' should be ", type_of<T>);
}

}  // namespace

std::string Node::label() const {
  std::string s = domain.empty() ? op_type : domain + "." + op_type;
  s += " node";
  if (!name.empty()) return s + " \"" + name + "\"";
  for (const Value* v : outputs) if (v) return s + " (output \"" + v->name + "\")";
  return s;
}

const Attribute* Node::attribute(std::string_view key) const {
  for (const auto& [k, v] : attributes) if (k == key) return &v;
  return nullptr;
}

int64_t Node::attr_int(std::string_view key, int64_t otherwise) const {
  const auto* v = get<int64_t>(*this, key);
  return v ? *v : otherwise;
}
float Node::attr_float(std::string_view key, float otherwise) const {
  const auto* v = get<float>(*this, key);
  return v ? *v : otherwise;
}
std::string Node::attr_string(std::string_view key, std::string_view otherwise) const {
  const auto* v = get<std::string>(*this, key);
  return v ? *v : std::string(otherwise);
}
std::vector<int64_t> Node::attr_ints(std::string_view key, std::vector<int64_t> otherwise) const {
  const auto* v = get<std::vector<int64_t>>(*this, key);
  return v ? *v : otherwise;
}
const std::vector<int64_t>* Node::find_ints(std::string_view key) const { return get<std::vector<int64_t>>(*this, key); }
std::vector<float> Node::attr_floats(std::string_view key, std::vector<float> otherwise) const {
  const auto* v = get<std::vector<float>>(*this, key);
  return v ? *v : otherwise;
}
std::vector<std::string> Node::attr_strings(std::string_view key) const {
  const auto* v = get<std::vector<std::string>>(*this, key);
  return v ? *v : std::vector<std::string>{};
}
const Tensor* Node::attr_tensor(std::string_view key) const { return get<Tensor>(*this, key); }
Graph* Node::attr_graph(std::string_view key) const {
  const auto* v = get<std::shared_ptr<Graph>>(*this, key);
  return v ? v->get() : nullptr;
}

void Node::set(std::string_view key, Attribute value) {
  for (auto& [k, v] : attributes)
    if (k == key) { v = std::move(value); return; }
  attributes.emplace_back(std::string(key), std::move(value));
}

void Node::unset(std::string_view key) {
  std::erase_if(attributes, [&](const auto& a) { return a.first == key; });
}

std::vector<std::pair<std::string, Graph*>> Node::subgraphs() const {
  std::vector<std::pair<std::string, Graph*>> found;
  for (const auto& [k, v] : attributes) {
    if (const auto* g = std::get_if<std::shared_ptr<Graph>>(&v)) found.emplace_back(k, g->get());
    if (const auto* gs = std::get_if<std::vector<std::shared_ptr<Graph>>>(&v))
      for (const auto& g : *gs) found.emplace_back(k, g.get());
  }
  return found;
}

int Node::captures_begin(const Graph* body) const {
  int at = num_own_inputs();
  for (const auto& [key, g] : subgraphs()) {
    if (g == body) return at;
    at += g->captured;
  }
  return at;
}

}  // namespace tiercel

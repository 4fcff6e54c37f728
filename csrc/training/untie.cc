#include "training/untie.h"

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "training/masters.h"

namespace tiercel {
namespace {

using Place = std::pair<const Node*, int>;         // an input of a node
using Matrices = std::set<const Value*>;

bool is_float(const Value* v) { return v && v->is_constant() && is_float_type(v->constant.dtype()); }

template <class T> bool all_equal(const Tensor& t) { return std::all_of(t.as<T>(), t.as<T>() + t.count(), [&](T x) { return x == t.as<T>()[0]; }); }
// Halves are compared by their bits.

bool is_uniform(const Value* v) {
  if (!is_float(v) || v->constant.shape().rank() == 0 || v->constant.count() < 2) return false;
  switch (v->constant.dtype()) {
    case DType::kFloat: return all_equal<float>(v->constant);
    case DType::kDouble: return all_equal<double>(v->constant);
    default: {
      const uint16_t* const bits = static_cast<const uint16_t*>(v->constant.data());
      return std::all_of(bits, bits + v->constant.count(), [&](uint16_t x) { return x == bits[0]; });
    }
  }
}

// An operand that is a matrix of weights, as it is or transposed.
const Value* matrix_of(const Value* v) {
  if (v && v->producer && v->producer->is("Transpose")) v = v->producer->input(0);
  return is_float(v) && v->constant.shape().rank() >= 2 ? v : nullptr;
}

// On each way that leads to a node, the matrix of weights that is next to it; but for `v`.
Matrices matrices_before(const Node* node, const Value* v) {
  Matrices found;
  std::set<const Node*> seen{node};
  std::vector<const Node*> stack{node};
  while (!stack.empty()) {
    const Node* const n = stack.back();
    stack.pop_back();
    bool ends = false;
    for (const Value* in : n->inputs)
      if (const Value* m = matrix_of(in); m && m != v) found.insert(m), ends = true;
    if (ends) continue;
    for (const Value* in : n->inputs)
      if (in && in->producer && seen.insert(in->producer).second) stack.push_back(in->producer);
  }
  return found;
}

// Every Identity of an initializer goes; the names that it gave, by place.
std::map<Place, std::string> resolve_identities(Graph& g) {
  std::map<Place, std::string> names;
  std::vector<Node*> nodes;
  for (const auto& n : g.nodes())
    if (n->is("Identity") && is_float(n->input(0)) && n->output() && !n->output()->graph_output_uses) nodes.push_back(n.get());
  for (Node* n : nodes) {
    Value* const y = n->output();
    for (const Use& use : y->uses) names[{use.node, use.index}] = y->name;
    g.replace_uses(y, n->inputs[0]);
    g.erase(n);
  }
  return names;
}

}  // namespace

void untie(Graph& g) {
  const std::map<Place, std::string> given = resolve_identities(g);
  std::set<std::string> names;
  std::vector<Value*> shared;
  for (int id = 0; id < g.num_values(); ++id) {
    Value* const v = g.value(id);
    if (!v) continue;
    names.insert(v->name);
    if (v->uses.size() > 1 && !v->name.empty() && !v->graph_output_uses && is_uniform(v)) shared.push_back(v);
  }
  for (Value* v : shared) {
    std::map<std::tuple<std::string, int, Matrices>, size_t> index;
    std::vector<std::vector<Use>> layers;  // in the order of their first uses
    for (const Use& use : v->uses) {
      const auto [at, isnew] = index.try_emplace({use.node->op_type, use.index, matrices_before(use.node, v)}, layers.size());
      if (isnew) layers.emplace_back();
      layers[at->second].push_back(use);
    }
    const auto name_of = [&](const std::vector<Use>& uses) {
      for (const Use& use : uses)
        if (const auto it = given.find({use.node, use.index}); it != given.end()) return it->second;
      return std::string();
    };
    // The name stays with those that were never renamed.
    size_t first = 0;
    while (first < layers.size() && !name_of(layers[first]).empty()) ++first;
    if (first == layers.size()) first = 0;
    for (size_t i = 0; i < layers.size(); ++i) {
      if (i == first) continue;
      std::string name = name_of(layers[i]);
      for (size_t k = i + 1; name.empty() || names.count(name); ++k) name = cat(v->name, " ", k);
      names.insert(name);
      Value* const copy = g.add_constant(name, v->constant);
      for (const Use& use : layers[i]) g.set_input(use.node, use.index, copy);
    }
  }
}

}  // namespace tiercel

#include "training/batch_statistics.h"

#include <algorithm>
#include <functional>
#include <set>

namespace tiercel {
namespace {

constexpr int kStatistics[] = {3, 4};  // the mean, the variance: inputs; as outputs they are 1 and 2

bool unused(const Node& n, int i) { return !n.output(i) || (n.output(i)->uses.empty() && !n.output(i)->graph_output_uses); }

bool has_norm(const Graph& g) {
  return std::any_of(g.nodes().begin(), g.nodes().end(), [](const auto& n) {
    const auto bodies = n->subgraphs();
    return n->is("BatchNormalization") || std::any_of(bodies.begin(), bodies.end(), [](const auto& b) { return has_norm(*b.second); });
  });
}

size_t index(int i) { return static_cast<size_t>(i); }

Value* capture_at(const Graph& body, int k) { return body.inputs()[body.inputs().size() - index(body.captured) + index(k)]; }

void find_statistics(const Graph& g, const std::function<const Value*(const Value*)>& outer, std::vector<std::string>& names) {
  for (const auto& n : g.nodes()) {
    if (n->is("BatchNormalization"))
      for (const int i : kStatistics) {
        const Value* const v = n->input(i) ? outer(n->input(i)) : nullptr;
        if (v && v->is_constant() && !v->name.empty() && std::find(names.begin(), names.end(), v->name) == names.end()) names.push_back(v->name);
      }
    for (const auto& [key, body] : n->subgraphs()) {
      std::map<const Value*, const Value*> from;
      for (int k = 0; k < body->captured; ++k) from[capture_at(*body, k)] = n->inputs[index(n->captures_begin(body) + k)];
      find_statistics(*body, [&](const Value* v) -> const Value* {
        const auto it = from.find(v);
        return it == from.end() || !it->second ? nullptr : outer(it->second);
      }, names);
    }
  }
}

class Norms {
 public:
  explicit Norms(std::vector<std::string>& notes) : notes_(notes) {}

  // `known` (null: all): values from outside that may be moved.
  Statistics train(Graph& graph, const std::set<const Value*>* known) {
    Statistics after;
    std::vector<Node*> nodes;
    for (const auto& n : graph.nodes()) nodes.push_back(n.get());
    for (Node* n : nodes) {
      if (n->is("BatchNormalization")) norm(graph, *n, known, after);
      if (n->is("If")) branches(graph, *n, known, after);
      else if (n->is("Loop") || (n->is("Scan") && n->opset >= 9)) steps(graph, *n, known, after);
      else
        for (const auto& [key, body] : n->subgraphs()) stays(*body, cat("in the body of ", n->label()));
    }
    return after;
  }

 private:
  void norm(Graph& graph, Node& n, const std::set<const Value*>* known, Statistics& after) {
    if (n.opset < 9 && !n.attr_int("spatial", 1)) return;  // stays as it is: no statistics of the kind
    if (n.inputs.size() < 5 || !n.inputs[3] || !n.inputs[4]) return;
    if (known && !(known->count(n.inputs[3]) && known->count(n.inputs[4])))
      return note(n, "in a body, as its running statistics are no initializers of the graph around it");
    for (int i = 1; i < static_cast<int>(n.outputs.size()); ++i)
      if (!unused(n, i)) fail(Code::kNotImplemented, n.label(), ": its result ", i, ", \"", n.outputs[index(i)]->name, "\", is used elsewhere; in training it is the running statistics alone");
    n.opset = std::max(n.opset, 15);
    for (const char* old : {"spatial", "is_test", "consumed_inputs"}) n.unset(old);
    n.set("training_mode", int64_t{1});
    n.set("unbiased", int64_t{1});
    for (size_t i = 3; i < n.outputs.size(); ++i)
      if (n.outputs[i]) n.outputs[i]->producer = nullptr;
    n.outputs.resize(3);
    for (const int i : kStatistics) {
      Value*& out = n.outputs[index(i - 2)];
      if (!out) out = graph.add_value("");
      out->producer = &n;
      out->output_index = i - 2;
      Value* const before = n.inputs[index(i)];
      graph.set_input(&n, i, now(after, before));  // of a layer that is applied twice, the second time goes on from the first
      after[before] = out;
    }
  }

  static Value* now(const Statistics& after, Value* before) {
    const auto it = after.find(before);
    return it == after.end() ? before : it->second;
  }

  void note(const Node& n, const std::string& why) {
    notes_.push_back(cat(n.label(), ", ", why, ", stays as in inference: it takes the running statistics, which are not learnt"));
  }

  void stays(const Graph& body, const std::string& where) {
    for (const auto& n : body.nodes()) {
      if (n->is("BatchNormalization")) note(*n, where);
      for (const auto& [key, inner] : n->subgraphs()) stays(*inner, where);
    }
  }

  // One value from outside that a body moves.
  struct Moved {
    Value* outer;
    int capture;
    Value* inner;
    Value* after;
  };

  // Trains a body. Each outer value is captured once.
  std::vector<Moved> inside(Node& n, Graph& body, const std::set<const Value*>* known) {
    std::map<const Value*, Value*> first;
    std::set<const Value*> movable;
    for (int k = 0; k < body.captured; ++k) {
      const Value* const outer = n.inputs[index(n.captures_begin(&body) + k)];
      Value* const inner = capture_at(body, k);
      if (!outer) continue;
      if (const auto [it, is_new] = first.try_emplace(outer, inner); !is_new) body.replace_uses(inner, it->second);
      if (!outer->producer && (!known || known->count(outer))) movable.insert(inner);
    }
    const Statistics after = train(body, &movable);
    std::vector<Moved> moved;
    for (int k = 0; k < body.captured; ++k)
      if (const auto it = after.find(capture_at(body, k)); it != after.end())
        moved.push_back({n.inputs[index(n.captures_begin(&body) + k)], k, it->first, it->second});
    return moved;
  }

  static Value* add_output(Graph& graph, Node& n, int at, const Value* like) {
    Value* const v = graph.add_value("", like->type);
    graph.insert_output(&n, at, v);
    return v;
  }

  void branches(Graph& graph, Node& n, const std::set<const Value*>* known, Statistics& after) {
    std::vector<Value*> outers;
    std::vector<std::vector<Moved>> moved;
    const auto bodies = n.subgraphs();
    for (const auto& [key, body] : bodies) {
      moved.push_back(has_norm(*body) ? inside(n, *body, known) : std::vector<Moved>());
      for (const Moved& m : moved.back())
        if (std::find(outers.begin(), outers.end(), m.outer) == outers.end()) outers.push_back(m.outer);
    }
    if (outers.empty()) return;
    n.outputs.resize(bodies[0].second->outputs().size());
    for (Value* outer : outers) {
      Value* const before = now(after, outer);
      for (size_t b = 0; b < bodies.size(); ++b) {
        Graph& body = *bodies[b].second;
        const auto m = std::find_if(moved[b].begin(), moved[b].end(), [&](const Moved& x) { return x.outer == outer; });
        Value* result;
        if (m != moved[b].end()) {
          graph.set_input(&n, n.captures_begin(&body) + m->capture, before);
          result = m->after;
        } else {
          result = body.add_input("", outer->type);
          graph.insert_input(&n, n.captures_begin(&body) + body.captured++, before);
        }
        body.add_output(body.emit("Identity", "", 13, {result}, outer->type, nullptr));
      }
      after[outer] = add_output(graph, n, static_cast<int>(n.outputs.size()), outer);
    }
  }

  void steps(Graph& graph, Node& n, const std::set<const Value*>* known, Statistics& after) {
    Graph& body = *n.attr_graph("body");
    if (!has_norm(body)) return;
    const std::vector<Moved> moved = inside(n, body, known);
    if (moved.empty()) return;
    const int loop = n.is("Loop");
    for (; loop && n.own_inputs < 2; ++n.own_inputs) graph.insert_input(&n, n.own_inputs, nullptr);
    int states = n.own_inputs - 2 * loop - (loop ? 0 : static_cast<int>(n.attr_int("num_scan_inputs", 0)));
    n.outputs.resize(std::max(n.outputs.size(), index(states)));
    for (const Moved& m : moved) {
      const int at = 2 * loop + states;
      std::vector<Value*> in = body.inputs(), out = body.outputs();
      Value* const state = body.add_input("", m.outer->type);
      in.insert(in.begin() + at, state);
      body.order_inputs(std::move(in));
      body.replace_uses(m.inner, state);
      out.insert(out.begin() + loop + states, m.after);
      body.clear_outputs();
      for (Value* v : out) body.add_output(v);
      graph.insert_input(&n, at, now(after, m.outer));
      ++n.own_inputs;
      after[m.outer] = add_output(graph, n, states++, m.outer);
    }
  }

  std::vector<std::string>& notes_;
};

}  // namespace

std::vector<std::string> statistics_of(const Graph& g) {
  std::vector<std::string> names;
  find_statistics(g, [](const Value* v) { return v; }, names);
  return names;
}

void read_masters(Graph& graph, Value* rounded, Value* master) {
  for (const Use& use : std::vector<Use>(rounded->uses)) {
    Node& n = *use.node;
    if (n.is("BatchNormalization") && (use.index == 3 || use.index == 4)) graph.set_input(&n, use.index, master);
  }
  std::vector<Node*> nodes;
  for (const auto& n : graph.nodes()) nodes.push_back(n.get());
  for (Node* n : nodes)
    for (const auto& [key, body] : n->subgraphs())
      for (int k = 0; k < body->captured; ++k) {
        if (n->inputs[index(n->captures_begin(body) + k)] != rounded || !has_norm(*body)) continue;
        Value* const inner = capture_at(*body, k);
        Value* const wide = body->add_input("", master->type);
        if (n->own_inputs < 0) n->own_inputs = n->num_own_inputs();
        graph.insert_input(n, n->captures_begin(body) + body->captured, master);
        ++body->captured;
        read_masters(*body, inner, wide);
      }
}

Statistics train_norms(Graph& graph, std::vector<std::string>& notes) { return Norms(notes).train(graph, nullptr); }

}  // namespace tiercel

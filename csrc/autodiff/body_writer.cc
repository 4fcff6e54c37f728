#include "autodiff/body_writer.h"

#include <algorithm>

#include "ops/grad.h"

namespace tiercel {

Value* BodyWriter::capture(Value* outer, bool input) {
  for (const Captured& c : captured_) if (c.outer == outer) return c.inner;
  if (outer->is_constant() && !input) return w.constant(outer->constant);
  Value* v = w.input("", outer_.info(outer));
  captured_.push_back({outer, v});
  return v;
}

Value* BodyWriter::capture(const Type& type, const std::string& name) {
  Value* v = w.input(name, type);
  captured_.push_back({nullptr, v});
  return v;
}

void BodyWriter::bind(Value* inner, Value* outer) {
  for (Captured& c : captured_) if (c.inner == inner) c.outer = outer;
}

std::shared_ptr<Graph> BodyWriter::finish(std::vector<Value*> own, std::span<Value* const> outputs) {
  Graph& g = *graph_;
  for (Value* v : outputs) g.add_output(v);
  g.erase_dead();
  const auto used = [](const Value* v) { return !v->uses.empty() || v->graph_output_uses; };
  std::erase_if(captured_, [&](const Captured& c) { return !used(c.inner); });
  for (const Captured& c : captured_) own.push_back(c.inner);
  for (int i = static_cast<int>(g.inputs().size()) - 1; i >= 0; --i)
    if (Value* v = g.inputs()[static_cast<size_t>(i)]; std::find(own.begin(), own.end(), v) == own.end()) g.remove_input(i);
  g.order_inputs(std::move(own));
  g.captured = static_cast<int>(captured_.size());
  return graph_;
}

std::vector<Value*> BodyWriter::captures() const {
  std::vector<Value*> outer;
  for (const Captured& c : captured_) outer.push_back(c.outer);
  return outer;
}

std::vector<Value*> add_control_flow(GraphWriter& w, const char* op, std::vector<Value*> own, int outputs, AttributeList attributes,
                                     std::span<BodyWriter* const> bodies) {
  const int count = static_cast<int>(own.size());
  for (const BodyWriter* b : bodies)
    for (Value* v : b->captures()) own.push_back(v);
  std::vector<Value*> out;
  for (int i = 0; i < outputs; ++i) out.push_back(w.graph().add_value(""));
  Node* node = w.graph().add_node(op, "", 21, std::move(own), out, w.before);
  node->name = w.name;
  node->own_inputs = count;
  for (auto& [key, value] : attributes) node->set(key, std::move(value));
  w.infer(node);
  return out;
}

void check_repeatable(const GradContext& c, const Graph& body) {
  for (const auto& n : body.nodes()) {
    const bool draws = (op_of(*n).flags & kRandom) && !(n->is("Dropout") && !n->input(2)) && !n->is("Dropout", kTiercelDomain);
    c.check(!draws, n->label(), " draws random numbers in its body, which the gradient would draw anew: draw them outside and give them to it");
    for (const auto& [key, inner] : n->subgraphs()) check_repeatable(c, *inner);
  }
}

}  // namespace tiercel

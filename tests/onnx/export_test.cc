// Graph -> bytes -> Graph, for what an unmodified file does not have: fused operators, captures, nodes of other opsets.
#include "build.h"
#include "harness.h"

using namespace tiercel;
using namespace tiercel::build;

namespace {

Model again(const Model& m) { return parse(onnx::serialize(m)); }

// All that matters of a graph, as text.
std::string text(const Graph& g) {
  std::string s = "(";
  for (const Value* v : g.inputs()) s += v->name + ":" + v->type.str() + " ";
  for (const auto& n : g.nodes()) {
    s += "| " + n->domain + "." + n->op_type + std::to_string(n->opset);
    for (const Value* v : n->inputs) s += !v ? " -" : v->is_constant() ? " const" + v->constant.shape().str() : " " + v->name;
    s += " ->";
    for (const Value* v : n->outputs) s += " " + (v ? v->name : "-");
    for (const auto& [key, body] : n->subgraphs()) s += " " + key + "=" + text(*body);
  }
  s += "| =>";
  for (const Value* v : g.outputs()) s += " " + v->name;
  return s + ")";
}

Model empty_model() {
  Model m;
  m.graph = std::make_shared<Graph>();
  m.graph->opsets[""] = 17;
  return m;
}

}  // namespace

TEST(bytes_hold_the_graph) {
  const Model m = parse(small_model());
  const Model n = again(m);
  CHECK_EQ(text(*n.graph), text(*m.graph));
  CHECK_EQ(n.graph->symbols().str(n.graph->inputs()[0]->type.shape[0]), std::string("N"));
  CHECK_EQ(n.producer_name, m.producer_name);
}

TEST(captures_become_names_again) {
  Model m = empty_model();
  Graph& g = *m.graph;
  Value* c = g.add_input("c", Type::tensor(DType::kBool, {}));
  Value* x = g.add_input("x", Type::tensor(DType::kFloat, {2}));
  Value* w = g.add_constant("w", Tensor::of<float>({2}, {1, 2}));
  auto then_body = std::make_shared<Graph>(g.symbol_table());
  Value* w1 = then_body->add_constant("w_copy", w->constant);
  Value* x1 = then_body->add_input("x", x->type);  // the same name: must not hide the outer one
  then_body->captured = 1;
  then_body->add_output(then_body->emit("Add", "", 17, {x1, w1}, x->type, nullptr));
  auto else_body = std::make_shared<Graph>(g.symbol_table());
  Value* x2 = else_body->add_input("other", x->type);
  else_body->captured = 1;
  else_body->add_output(x2);  // the outer value itself
  Value* y = g.add_value("y", x->type);
  Node* n = g.add_node("If", "", 17, {c, x, x}, {y});
  n->own_inputs = 1;
  n->attributes = {{"then_branch", then_body}, {"else_branch", else_body}};
  g.add_output(g.emit("Mul", "", 17, {y, w}, x->type, nullptr));
  g.check();

  const Model r = again(m);
  const Node& back = *r.graph->nodes().front();
  CHECK_EQ(back.num_own_inputs(), 1);
  CHECK(back.inputs.size() == 3 && back.inputs[1] == r.graph->inputs()[1] && back.inputs[2] == back.inputs[1]);
  const Value* shared = back.attr_graph("then_branch")->nodes().front()->inputs[1];
  CHECK(shared->is_constant() && shared->constant.data() == r.graph->nodes().back()->inputs[1]->constant.data());
  CHECK_EQ(back.attr_graph("else_branch")->nodes().front()->op_type, std::string("Identity"));
}

TEST(fused_operators_get_an_opset) {
  Model m = empty_model();
  Graph& g = *m.graph;
  Value* x = g.add_input("x", Type::tensor(DType::kFloat, {g.symbols().named("batch"), g.symbols().fresh()}));
  g.add_output(g.emit("Fused", "ai.tiercel", 1, {x, nullptr, x}, x->type, nullptr));
  Node* n = g.nodes().front().get();
  n->set("strings", std::vector<std::string>{"a", "b"});
  n->set("tensor", Tensor::of<int64_t>({2}, {1, 2}));
  n->set("f", 0.25f);
  const Model r = again(m);
  CHECK_EQ(r.graph->opsets.at("ai.tiercel"), 1);
  CHECK_EQ(text(*r.graph), text(g));
  const Node& back = *r.graph->nodes().front();
  CHECK_EQ(back.attr_strings("strings")[1], std::string("b"));
  CHECK_EQ(back.attr_tensor("tensor")->as<int64_t>()[1], 2);
  CHECK_EQ(back.attr_float("f", 0), 0.25f);
}

TEST(nodes_of_other_opsets_keep_them) {
  Model m = empty_model();
  Graph& g = *m.graph;
  Value* x = g.add_input("x", Type::tensor(DType::kFloat, {2}));
  Value* s = g.emit("Softmax", "", 11, {x}, x->type, nullptr);
  Value* t = g.emit("Softmax", "", 17, {s}, x->type, nullptr);
  g.add_output(g.emit("Clip", "", 6, {t}, x->type, nullptr));
  const Model r = again(m);
  std::string ops;
  for (const auto& n : r.graph->nodes()) ops += n->op_type + std::to_string(n->opset) + " ";
  CHECK_EQ(ops, std::string("Softmax11 Softmax17 Clip6 "));
}

TEST(outputs_are_named_once) {
  Model m = empty_model();
  Graph& g = *m.graph;
  Value* x = g.add_input("x", Type::tensor(DType::kFloat, {2}));
  Value* c = g.add_constant("c", Tensor::of<float>({2}, {1, 2}));
  Value* y = g.emit("Relu", "", 17, {x}, x->type, nullptr);
  y->name.clear();
  for (Value* v : {y, y, c, x}) g.add_output(v);
  const Model r = again(m);
  CHECK_EQ(r.graph->outputs().size(), 4u);
  CHECK(r.graph->outputs()[0] != r.graph->outputs()[1]);
  CHECK(r.graph->outputs()[2]->is_constant() && r.graph->outputs()[3]->is_graph_input);
}

TEST(blocked_constants_keep_their_layout) {
  Model m = empty_model();
  Graph& g = *m.graph;
  Value* x = g.add_input("x", Type::tensor(DType::kFloat, {1, 3, 2, 2}));
  Tensor blocked(DType::kFloat, {1, 3, 2, 2}, Layout::kBlocked);
  for (int i = 0; i < 64; ++i) blocked.as<float>()[i] = static_cast<float>(i);
  g.add_output(g.emit("Add", "", 17, {x, g.add_constant("c", blocked)}, x->type, nullptr));
  const Tensor t = again(m).graph->nodes().front()->inputs[1]->constant;
  CHECK(t.layout() == Layout::kBlocked && t.shape() == blocked.shape());
  CHECK_EQ(t.as<float>()[63], 63.f);
}

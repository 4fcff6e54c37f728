// What a model becomes: values, constants, bodies, functions.
#include "build.h"
#include "harness.h"

using namespace tiercel;
using namespace tiercel::build;

namespace {
const std::string kX = value("x", type(DType::kFloat, {"N", "2"}));
const std::string kY = value("y", type(DType::kFloat, {}));
Node* first(const Model& m) { return m.graph->nodes().front().get(); }
}  // namespace

TEST(small_model_becomes_a_graph) {
  const Model m = parse(small_model());
  CHECK_EQ(m.ir_version, 8);
  CHECK_EQ(m.producer_name, std::string("test"));
  CHECK_EQ(m.graph->inputs().size(), 1u);
  CHECK_EQ(m.graph->nodes().size(), 2u);
  CHECK_EQ(first(m)->opset, 17);
  CHECK_EQ(first(m)->name, std::string("mm"));
  const Value* x = m.graph->inputs()[0];
  CHECK_EQ(x->type.str(), std::string("tensor(float)[?,2]"));
  CHECK_EQ(m.graph->symbols().str(x->type.shape[0]), std::string("N"));
  CHECK_EQ(m.graph->outputs()[0]->type.shape[0], x->type.shape[0]);
  const Value* w = first(m)->inputs[1];
  CHECK(w->is_constant());
  CHECK_EQ(w->constant.as<float>()[5], 6.f);
  CHECK_EQ(m.graph->opsets.at(""), 17);
}

TEST(initializers_that_are_inputs_are_constants) {
  const std::string w = tensor("w", DType::kFloat, {2}, field(9, raw<float>({1, 2})));
  const Model m = parse(model(graph({node("Add", {"x", "w"}, {"y"})}, {w}, {kX, value("w", type(DType::kFloat, {"2"}))}, {kY})));
  CHECK_EQ(m.graph->inputs().size(), 1u);
  CHECK(first(m)->inputs[1]->is_constant());
}

TEST(nodes_are_sorted) {
  const Model m = parse(model(graph({node("Relu", {"h"}, {"y"}), node("Neg", {"x"}, {"h"})}, {}, {kX}, {kY})));
  CHECK_EQ(first(m)->op_type, std::string("Neg"));
  CHECK_THROWS(parse(model(graph({node("Relu", {"h"}, {"y"}), node("Neg", {"y"}, {"h"}, {}, "n")}, {}, {kX}, {kY}))), "cycle");
}

TEST(wrong_names_are_errors) {
  CHECK_THROWS(parse(model(graph({node("Relu", {"q"}, {"y"}, {}, "r")}, {}, {kX}, {kY}))), "Relu node \"r\": input 0, \"q\"");
  CHECK_THROWS(parse(model(graph({node("Relu", {"x"}, {"z"})}, {}, {kX}, {kY}))), "graph output \"y\"");
  CHECK_THROWS(parse(model(graph({node("Relu", {"x"}, {"y"}), node("Neg", {"x"}, {"y"})}, {}, {kX}, {kY}))), "\"y\" is already taken");
  CHECK_THROWS(parse(model(graph({node("Relu", {"x"}, {"x"})}, {}, {kX}, {kX}))), "");
}

TEST(constant_nodes_become_constants) {
  const auto constant = [](const std::string& attribute) {
    const Model m = parse(model(graph({node("Constant", {}, {"c"}, {attribute}), node("Foo", {"x", "c"}, {"y"})}, {}, {kX}, {kY})));
    CHECK_EQ(m.graph->nodes().size(), 1u);
    return first(m)->inputs[1]->constant;
  };
  CHECK_EQ(constant(attr("value_float", 1, fixed(2, 1.5f))).as<float>()[0], 1.5f);
  CHECK_EQ(constant(attr("value_int", 2, field(3, -7))).as<int64_t>()[0], -7);
  CHECK_EQ(constant(attr("value_string", 3, field(4, "s"))).as<std::string>()[0], std::string("s"));
  CHECK_EQ(constant(attr("value_floats", 6, field(7, raw<float>({1, 2})))).shape().str(), std::string("[2]"));
  CHECK_EQ(constant(attr("value_ints", 7, "")).shape().str(), std::string("[0]"));
  CHECK_EQ(constant(attr("value_strings", 8, field(9, "a") + field(9, "b"))).as<std::string>()[1], std::string("b"));
  CHECK_EQ(constant(attr("value", 4, field(5, tensor("", DType::kInt32, {1}, field(5, 9))))).as<int32_t>()[0], 9);
  const std::string sparse = field(1, tensor("", DType::kFloat, {1}, fixed(4, 4))) + field(2, tensor("", DType::kInt64, {1}, field(7, 2))) + field(3, 3);
  CHECK_EQ(constant(attr("sparse_value", 11, field(22, sparse))).as<float>()[2], 4.f);
  CHECK_THROWS(constant(attr("other", 2, field(3, 1))), "it has no value");
}

TEST(attributes_keep_their_types) {
  const Model m = parse(model(graph({node("Foo", {"x"}, {"y"}, {
      attr("f", 1, fixed(2, 2)), attr("i", 2, field(3, -1)), attr("s", 3, field(4, "str")), attr("fs", 6, fixed(7, 1) + fixed(7, 2)),
      attr("is", 7, field(8, varint(3) + varint(4))), attr("ss", 8, field(9, "a")), attr("none", 7, ""), field(1, "old") + field(3, 5),
      attr("ts", 9, field(10, tensor("", DType::kInt64, {}, field(7, 1)))), attr("ty", 13, field(14, type(DType::kFloat, {"2"}))),
      attr("tys", 14, field(15, type(DType::kFloat, {"2"}))), attr("gs", 10, field(11, graph({}, {}, {}, {"" + value("x", "")})))})}, {}, {kX}, {kY})));
  const Node& n = *first(m);
  CHECK_EQ(n.attr_float("f", 0), 2.f);
  CHECK_EQ(n.attr_int("i", 0), -1);
  CHECK_EQ(n.attr_int("old", 0), 5);
  CHECK_EQ(n.attr_string("s", ""), std::string("str"));
  CHECK_EQ(n.attr_floats("fs").size(), 2u);
  CHECK_EQ(n.attr_ints("is")[1], 4);
  CHECK(n.has("none") && n.attr_ints("none", {1}).empty());
  CHECK_EQ(n.attr_strings("ss")[0], std::string("a"));
  CHECK_EQ(std::get<std::vector<Tensor>>(*n.attribute("ts")).size(), 1u);
  CHECK_EQ(std::get<Type>(*n.attribute("ty")).shape[0], 2);
  CHECK_EQ(std::get<std::vector<Type>>(*n.attribute("tys")).size(), 1u);
  CHECK_EQ(n.subgraphs().size(), 1u);
  CHECK_THROWS(parse(model(graph({node("Foo", {"x"}, {"y"}, {attr("a", 2, field(3, 1)), attr("a", 2, field(3, 1))}, "n")}, {}, {kX}, {kY}))),
               "Foo node \"n\": attribute 'a' is given twice");
}

TEST(types_of_values) {
  const std::string t = type(DType::kFloat, {"2", "-1", ""});
  const Model m = parse(model(graph({node("Foo", {"a", "", "b", "c", "d"}, {"", "y"})}, {},
      {value("a", t), value("b", field(4, field(1, t))), value("c", field(9, field(1, field(4, field(1, t))))), value("d", field(9, field(1, t)))}, {kY})));
  const auto& in = m.graph->inputs();
  CHECK_EQ(in[0]->type.str(), std::string("tensor(float)[2,?,?]"));
  CHECK(in[0]->type.shape[1] != in[0]->type.shape[2]);
  CHECK(in[1]->type.kind == Kind::kSequence && in[2]->type.kind == Kind::kOptionalSequence && in[3]->type.kind == Kind::kOptional);
  CHECK(first(m)->inputs[1] == nullptr && first(m)->outputs[0] == nullptr && first(m)->outputs[1] == m.graph->outputs()[0]);
}

TEST(bodies_capture_outer_values) {
  const std::string w = tensor("w", DType::kFloat, {2}, field(9, raw<float>({1, 2})));
  const auto out = [](const char* name) { return value(name, type(DType::kFloat, {})); };
  // The inner If uses x and h through two levels, and w, a constant.
  const std::string inner = graph({node("Add", {"h", "x"}, {"i1"}), node("Mul", {"i1", "w"}, {"i2"})}, {}, {}, {out("i2")});
  const std::string middle = graph({node("Neg", {"x"}, {"m"}), node("If", {"cond"}, {"mi"}, {attr("then_branch", 5, field(6, inner)), attr("else_branch", 5, field(6, graph({}, {}, {}, {out("m")})))})}, {}, {}, {out("mi")});
  const std::string other = graph({}, {}, {}, {out("w")});
  const Model m = parse(model(graph({node("If", {"cond"}, {"y"}, {attr("then_branch", 5, field(6, middle)), attr("else_branch", 5, field(6, other))}), node("Relu", {"x"}, {"h"})},
                                    {w}, {kX, value("cond", type(DType::kBool, {}))}, {kY})));
  CHECK_EQ(first(m)->op_type, std::string("Relu"));  // the If needs it
  const Node& n = *m.graph->nodes().back();
  CHECK_EQ(n.num_own_inputs(), 1);
  std::string names;
  for (const Value* v : n.inputs) names += v->name + " ";
  CHECK_EQ(names, std::string("cond x cond h "));
  const auto bodies = n.subgraphs();
  CHECK_EQ(bodies[0].second->captured, 3);
  CHECK_EQ(bodies[1].second->captured, 0);
  CHECK_EQ(n.captures_begin(bodies[1].second), 4);
  const Value* w1 = bodies[1].second->outputs()[0];
  const Node& nested = *bodies[0].second->nodes().back();
  const Graph& deepest = *nested.subgraphs()[0].second;
  CHECK_EQ(deepest.captured, 2);
  CHECK(nested.subgraphs()[1].second->outputs()[0]->is_graph_input);
  const Value* w2 = deepest.nodes().back()->inputs[1];
  CHECK(w1->is_constant() && w2->is_constant() && w1->constant.data() == w2->constant.data());
}

TEST(body_names_hide_outer_ones) {
  const std::string body = graph({node("Foo", {"iter", "cond", "s"}, {"x"}), node("Relu", {"x"}, {"o"})}, {},
                                 {value("iter", type(DType::kInt64, {})), value("cond", type(DType::kBool, {})), value("s", "")}, {value("cond", ""), value("o", "")});
  const Model m = parse(model(graph({node("Loop", {"", "", "x"}, {"y"}, {attr("body", 5, field(6, body))})}, {}, {kX}, {kY})));
  const Graph& g = *first(m)->attr_graph("body");
  CHECK_EQ(g.captured, 0);
  CHECK_EQ(g.inputs().size(), 3u);
  CHECK(g.outputs()[0] == g.inputs()[1]);
}

TEST(functions_are_inlined) {
  const auto ref = [](const char* name, const char* parameter) { return field(1, name) + field(20, 1) + field(21, parameter); };
  const auto function = [](const std::string& name, const std::string& body) { return field(25, field(1, name) + body + field(10, "local")); };
  const std::string inner = function("Inner", field(4, "a") + field(4, "skip") + field(5, "b") + field(6, "alpha") + field(9, field(2, 13)) +
      field(7, node("Foo", {"a", "skip", "k"}, {"b"}, {ref("alpha", "alpha"), ref("beta", "beta"), ref("gamma", "gamma")})) +
      field(7, node("Constant", {}, {"k"}, {ref("value_float", "alpha")})) + field(11, attr("beta", 1, fixed(2, 0.5f))));
  const std::string outer = function("Outer", field(4, "a") + field(5, "b") + field(5, "a") + field(6, "slope") + field(9, field(2, 15)) +
      field(7, node("Inner", {"a"}, {"t"}, {ref("alpha", "slope")}, "in", "local")) + field(7, node("If", {"t"}, {"b"}, {attr("then_branch", 5,
      field(6, graph({node("Inner", {"t"}, {"q"}, {ref("alpha", "slope")}, "", "local")}, {}, {}, {value("q", "")})))})));
  const std::string nodes = graph({node("Outer", {"x"}, {"y", "z"}, {attr("slope", 1, fixed(2, 3))}, "call", "local")}, {}, {kX}, {kY, value("z", "")});
  const Model m = parse(model(nodes, inner + outer + opset("local", 1)));
  std::string ops;
  for (const auto& n : m.graph->nodes()) ops += n->op_type + std::to_string(n->opset) + " ";
  CHECK_EQ(ops, std::string("Foo13 If15 Identity15 "));
  const Node& foo = *first(m);
  CHECK_EQ(foo.attr_float("alpha", 0), 3.f);
  CHECK_EQ(foo.attr_float("beta", 0), 0.5f);
  CHECK(!foo.has("gamma"));
  CHECK(foo.inputs[1] == nullptr);
  CHECK_EQ(foo.inputs[2]->constant.as<float>()[0], 3.f);
  CHECK_EQ(m.graph->outputs()[1]->name, std::string("z"));
  const Graph& body = *m.graph->outputs()[0]->producer->attr_graph("then_branch");
  CHECK_EQ(body.captured, 1);
  CHECK_EQ(body.nodes().front()->attr_float("alpha", 0), 3.f);

  CHECK_THROWS(parse(model(nodes, function("Outer", field(4, "a") + field(5, "b") + field(5, "a") + field(7, node("Outer", {"a"}, {"b"}, {}, "", "local"))) + opset("local", 1))), "calls itself");
  CHECK_THROWS(parse(model(nodes, function("Outer", field(4, "a") + field(5, "b") + field(5, "a")) + opset("local", 1))), "does not compute its output \"b\"");
  CHECK_THROWS(parse(model(nodes, function("Outer", field(5, "b") + field(5, "a")) + opset("local", 1))), "but the function takes 0");
}

TEST(overloads_are_different_functions) {
  const auto function = [](const std::string& overload, const std::string& op) {
    return field(25, field(1, "F") + field(4, "a") + field(5, "b") + field(7, node(op, {"a"}, {"b"})) + field(10, "local") + field(13, overload));
  };
  const Model m = parse(model(graph({node("F", {"x"}, {"y"}, {}, "", "local") + field(8, "two")}, {}, {kX}, {kY}), function("one", "Neg") + function("two", "Abs") + opset("local", 1)));
  CHECK_EQ(first(m)->op_type, std::string("Abs"));
}

TEST(opsets_and_domains) {
  const std::string g = graph({node("Foo", {"x"}, {"h"}, {}, "", "com.microsoft"), node("Relu", {"h"}, {"y"}, {}, "", "ai.onnx")}, {}, {kX}, {kY});
  const Model m = parse(field(1, 8) + field(7, g) + opset("ai.onnx", 19) + opset("com.microsoft", 2));
  CHECK_EQ(first(m)->opset, 2);
  CHECK_EQ(m.graph->nodes().back()->domain, std::string());
  CHECK_EQ(m.graph->nodes().back()->opset, 19);
  CHECK_THROWS(parse(field(1, 8) + field(7, g)), "imports no opset");
}

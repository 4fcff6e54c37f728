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

// Elementwise operators in NCHW16c give what they give on plain values, and leave padding channels zero.
#include "harness.h"
#include "ops/evaluate.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {

Tensor to_blocked(const Tensor& t) {
  const Shape& s = t.shape();
  Tensor b(t.dtype(), s, Layout::kBlocked);
  const int64_t spatial = s.count(2, s.rank()), blocks = ceil_div(s[1], kChannelBlock);
  std::fill_n(b.as<float>(), storage_count(s, Layout::kBlocked), 0.0f);
  for (int64_t n = 0; n < s[0]; ++n)
    for (int64_t c = 0; c < s[1]; ++c)
      for (int64_t i = 0; i < spatial; ++i)
        b.as<float>()[((n * blocks + c / 16) * spatial + i) * 16 + c % 16] = t.as<float>()[(n * s[1] + c) * spatial + i];
  return b;
}

Tensor random_tensor(const Shape& s) {
  Tensor t(DType::kFloat, s);
  for (int64_t i = 0; i < s.count(); ++i) t.as<float>()[i] = uniform(0.25f, 2.0f);
  return t;
}

bool same(const Tensor& a, const Tensor& b) {
  const int64_t n = storage_count(a.shape(), a.layout());
  for (int64_t i = 0; i < n; ++i) if (std::fabs(a.as<float>()[i] - b.as<float>()[i]) > 1e-6f) return false;
  return true;
}

// Inputs named by `blocked` are given in both layouts.
void check_op(const std::string& op, int opset, const std::vector<Tensor>& inputs, const std::vector<bool>& blocked,
              std::vector<std::pair<std::string, Attribute>> attributes = {}) {
  Graph g;
  std::vector<Value*> in;
  std::vector<RuntimeValue> plain, mixed;
  for (size_t i = 0; i < inputs.size(); ++i) {
    in.push_back(g.add_input(cat("x", i), Type::tensor(DType::kFloat, inputs[i].shape())));
    plain.push_back(inputs[i]);
    mixed.push_back(blocked[i] ? to_blocked(inputs[i]) : inputs[i]);
  }
  Node* n = g.add_node(op, "", opset, in, {g.add_value("y")});
  for (auto& [k, v] : attributes) n->set(k, v);
  const Tensor want = evaluate(*n, plain)[0].tensor(), got = evaluate(*n, mixed)[0].tensor();
  scope() = cat(op, " ", inputs[0].shape().str(), inputs.size() > 1 ? inputs[1].shape().str() : "");
  CHECK(got.layout() == Layout::kBlocked);
  CHECK(got.shape() == want.shape());
  CHECK(same(got, to_blocked(want)));
  scope().clear();
}

}  // namespace

TEST(blocked_elementwise) {
  for (const Shape& s : {Shape{2, 3, 5, 4}, Shape{1, 16, 3, 3}, Shape{2, 20, 9, 9}, Shape{1, 37, 70}, Shape{3, 5}, Shape{1, 33, 40, 33}}) {
    const Tensor x = random_tensor(s);
    Shape channels{s[1]}, gate = s, one{1};
    for (int i = 2; i < s.rank(); ++i) { channels.push_back(1); gate[i] = 1; }
    Shape batch_one = gate;
    batch_one[0] = 1;
    for (const char* op : {"Exp", "Cos", "Sigmoid", "Neg", "Sqrt", "Softplus", "Relu", "HardSigmoid", "Reciprocal"}) check_op(op, 13, {x}, {true});
    check_op("Clip", 13, {x, Tensor::of<float>({}, {0.5f})}, {true, false});
    check_op("PRelu", 16, {x, random_tensor(channels)}, {true, false});
    for (const char* op : {"Add", "Sub", "Mul", "Div", "Pow"}) {
      check_op(op, 14, {x, random_tensor(s)}, {true, true});
      check_op(op, 14, {x, random_tensor(gate)}, {true, true});
      check_op(op, 14, {random_tensor(gate), x}, {true, true});
      check_op(op, 14, {x, random_tensor(channels)}, {true, false});
      check_op(op, 14, {random_tensor(channels), x}, {false, true});
      check_op(op, 14, {x, random_tensor(gate)}, {true, false});
      check_op(op, 14, {x, random_tensor(batch_one)}, {true, false});
      check_op(op, 14, {x, random_tensor(one)}, {true, false});
      check_op(op, 14, {random_tensor({}), x}, {false, true});
    }
    for (const char* op : {"Max", "Min", "Sum", "Mean"})
      check_op(op, 13, {x, random_tensor(channels), random_tensor(s), random_tensor({})}, {true, false, true, false});
  }
}

TEST(blocked_concat_of_very_many_empty_images) {
  Graph g;
  const Tensor x(DType::kFloat, {int64_t{1} << 40, 20, 0, 3}, Layout::kBlocked);
  std::vector<Value*> in;
  for (int i = 0; i < 2; ++i) in.push_back(g.add_input(cat("x", i), Type::tensor(DType::kFloat, x.shape(), Layout::kBlocked)));
  Node* const concat = g.add_node("Concat", "", 13, in, {g.add_value("y")});
  concat->set("axis", Attribute(int64_t{1}));
  const Tensor y = evaluate(*concat, {x, x})[0].tensor();
  CHECK(y.shape() == Shape({int64_t{1} << 40, 40, 0, 3}));
  Node* const split = g.add_node("Split", "", 11, {in[0]}, {g.add_value("a"), g.add_value("b")});
  split->set("axis", Attribute(int64_t{1}));
  CHECK(evaluate(*split, {x})[1].tensor().shape() == Shape({int64_t{1} << 40, 10, 0, 3}));
}

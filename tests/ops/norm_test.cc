// Norms of images give the same in NCHW16c as in plain layout, and leave the padding channels zero.
#include "harness.h"
#include "ops/activation.h"
#include "ops/evaluate.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {

Tensor random_tensor(const Shape& s, float lo = -1, float hi = 2) {
  Tensor t(DType::kFloat, s);
  for (int64_t i = 0; i < t.count(); ++i) t.as<float>()[i] = uniform(lo, hi);
  return t;
}

// Calls f(plain offset, blocked offset) for every element.
template <class F> void each_element(const Shape& s, F f) {
  const int64_t space = s.count(2, s.rank()), blocks = ceil_div(s[1], 16);
  for (int64_t n = 0; n < s[0]; ++n)
    for (int64_t c = 0; c < s[1]; ++c)
      for (int64_t i = 0; i < space; ++i) f((n * s[1] + c) * space + i, ((n * blocks + c / 16) * space + i) * 16 + c % 16);
}

Tensor blocked(const Tensor& t) {
  Tensor b(DType::kFloat, t.shape(), Layout::kBlocked);
  std::memset(b.data(), 0, static_cast<size_t>(b.bytes()));
  each_element(t.shape(), [&](int64_t p, int64_t q) { b.as<float>()[q] = t.as<float>()[p]; });
  return b;
}

std::vector<RuntimeValue> compute(const char* op, const char* domain, int opset, const std::vector<Tensor>& in, int outputs,
                                  const std::function<void(Node&)>& attributes) {
  Graph g;
  std::vector<Value*> inputs, out;
  std::vector<RuntimeValue> values;
  for (const Tensor& t : in) {
    inputs.push_back(g.add_input(cat("x", inputs.size()), Type::tensor(t.dtype(), t.shape(), t.layout())));
    values.emplace_back(t);
  }
  for (int i = 0; i < outputs; ++i) out.push_back(g.add_value(cat("y", i)));
  Node* node = g.add_node(op, domain, opset, inputs, out);
  attributes(*node);
  return evaluate(*node, values);
}

void check(const char* op, const char* domain, int opset, std::vector<Tensor> in, int outputs, const std::function<void(Node&)>& attributes) {
  const auto plain = compute(op, domain, opset, in, outputs, attributes);
  const Shape shape = in[0].shape();
  in[0] = blocked(in[0]);
  const auto other = compute(op, domain, opset, in, outputs, attributes);
  const Tensor y = plain[0].tensor(), z = other[0].tensor();
  CHECK(z.layout() == Layout::kBlocked);
  double worst = 0, sum = 0, all = 0;
  each_element(shape, [&](int64_t p, int64_t q) {
    worst = std::max(worst, std::fabs(static_cast<double>(y.as<float>()[p]) - z.as<float>()[q]));
    sum += std::fabs(z.as<float>()[q]);
  });
  for (int64_t i = 0; i < storage_count(shape, Layout::kBlocked); ++i) all += std::fabs(z.as<float>()[i]);
  CHECK_BELOW(worst, 5e-6);
  CHECK_BELOW(std::fabs(all - sum), 1e-9 * sum);  // nothing outside the real channels
  for (int i = 1; i < outputs; ++i)
    CHECK_BELOW(max_error(plain[i].tensor().as<float>(), other[i].tensor().as<float>(), static_cast<size_t>(plain[i].tensor().count())), 1e-6);
}

}  // namespace

TEST(norms_in_blocked_layout) {
  for (const Shape& s : {Shape{2, 6, 5, 7}, Shape{1, 36, 40, 33}, Shape{2, 16, 3}, Shape{1, 24, 2, 2}, Shape{1, 18, 70, 80}}) {
    const Tensor x = random_tensor(s), a = random_tensor({s[1]}), b = random_tensor({s[1]}), m = random_tensor({s[1]}),
                 v = random_tensor({s[1]}, 0.5f, 2);
    for (int64_t groups : {1, 2}) {
      const auto attributes = [&](Node& n) { n.set("num_groups", groups); };
      check("GroupNormalization", "", 21, {x, a, b}, 1, attributes);
      for (const ActivationKind k : {ActivationKind::kSilu, ActivationKind::kSigmoid})
        check("GroupNormalization", "ai.tiercel", 1, {x, a, b}, 1, [&](Node& n) {
          attributes(n);
          set_activation(n, {k, 1});
        });
    }
    check("InstanceNormalization", "", 6, {x, a, b}, 1, [](Node&) {});
    check("BatchNormalization", "", 15, {x, a, b, m, v}, 1, [](Node&) {});
    check("BatchNormalization", "", 15, {x, a, b, m, v}, 3, [](Node& n) { n.set("training_mode", int64_t{1}); });
    check("BatchNormalization", "ai.tiercel", 1, {x, a, b, m, v}, 1, [](Node& n) { set_activation(n, {ActivationKind::kSigmoid}); });
  }
}

TEST(reductions_in_blocked_layout) {
  for (const char* op : {"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare"})
    for (const Shape& s : {Shape{2, 6, 5, 7}, Shape{1, 36, 40, 33}, Shape{2, 16, 3}, Shape{1, 18, 70, 80}}) {
      for (int64_t axis : {0, -1}) {
        std::vector<int64_t> axes{axis ? -1 : s.rank() - 1};
        if (!axis) for (int i = 2; i + 1 < s.rank(); ++i) axes.push_back(i);
        const auto attributes = [&](Node& n) { n.set("axes", axes); };
        const Tensor x = random_tensor(s, -1, 1);
        const Tensor y = compute(op, "", 11, {x}, 1, attributes)[0].tensor();
        const Tensor z = compute(op, "", 11, {blocked(x)}, 1, attributes)[0].tensor();
        CHECK(z.layout() == Layout::kBlocked);
        CHECK_BELOW(max_error(blocked(y).as<float>(), z.as<float>(), static_cast<size_t>(z.bytes() / 4), static_cast<double>(x.count())), 1e-6);
      }
    }
}

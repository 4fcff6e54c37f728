// The gradient of RNN, GRU and LSTM. The states of all steps are in Y. The gates are kept by an LSTM of float; else what stood before the
// activations is computed again, by products over all steps at once. RecurrentGrad walks back through time, and the gradients of X, W and R are products over all steps again.
#include "kernels/pointwise/activation_grad.h"
#include "ops/grad.h"
#include "ops/recurrent.h"

namespace tiercel {
namespace {

using namespace recurrent_op;

class Rule {
 public:
  explicit Rule(GradContext& c) : c_(c), w_(c.w), kind_(kind_of(c.node)) {
    directions_ = c.node.attr_string("direction", "forward") == "bidirectional" ? 2 : 1;
    layout_ = c.node.opset >= 14 ? c.node.attr_int("layout", 0) : 0;
    late_ = kind_ == RecurrentKind::kGru && c.node.attr_int("linear_before_reset", 0) == 0;
    apart_ = kind_ == RecurrentKind::kGru && !late_;
  }

  void run() {
    Value *const y = c_.made_output(0), *const W = c_.x(kW), *const R = c_.x(kR);
    const AttributeList where{{"layout", layout_}, {"direction", c_.node.attr_string("direction", "forward")}};
    Value* const previous = w_.op("RecurrentPrevious", {y, input(kInitialH), input(kLengths)}, where, kTiercelDomain);
    Value *const x = flat(c_.x(kX), {-1}), *const h = flat(previous, {directions_, -1});
    Value *sums = nullptr, *state_sums = nullptr, *late_sums = nullptr, *reset = nullptr, *late_weights = nullptr;
    Value *bias = nullptr, *state_bias = nullptr;
    if (input(kB)) {
      const auto parts = w_.ops("Split", {w_.op("Unsqueeze", {c_.x(kB), w_.ints({1})})}, 2, {{"axis", int64_t{2}}, {"num_outputs", int64_t{2}}});
      if (apart_) bias = parts[0], state_bias = parts[1];
      else bias = w_.add(parts[0], parts[1]);
    }
    const bool done = results_are_enough();
    Value* kept = nullptr;
    if (done && kind_ == RecurrentKind::kLstm) {
      sums = c_.made_output(kGates);
      kept = c_.made_output(kCells);
    } else if (done) {
      sums = directions_ == 1 ? y : w_.op("Transpose", {y}, {{"perm", layout_ ? std::vector<int64_t>{2, 0, 1, 3} : std::vector<int64_t>{1, 0, 2, 3}}});
      sums = flat(sums, {directions_, -1});
    } else if (kind_ != RecurrentKind::kGru) {
      sums = product(h, R, nullptr, product(x, W, bias));
    } else {
      sums = product(x, W, bias);
      state_sums = product(h, R, state_bias);
      if (late_) {
        reset = w_.op("GruReset", {sums, state_sums, h}, cells(), kTiercelDomain);
        late_weights = parts_of(R, 1)[2];
        late_sums = product(reset, late_weights, nullptr);
      }
    }
    AttributeList attributes = cells();
    for (const auto& a : where) attributes.push_back(a);
    attributes.emplace_back("kind", c_.node.op_type);
    attributes.emplace_back("done", int64_t{done});
    const bool lstm = kind_ == RecurrentKind::kLstm;
    Value* const dx = w_.op("RecurrentGrad", {sums, state_sums, late_sums, R, previous, c_.dy(0), c_.dy(1), lstm ? c_.dy(2) : nullptr, input(kLengths),
                                         lstm ? input(kInitialC) : nullptr, lstm ? input(kP) : nullptr, kept}, std::move(attributes), kTiercelDomain);
    const auto more = [&](int output) { return w_.add_output(dx->producer, output); };
    Value* const dr = apart_ && (c_.wants(kR) || c_.wants(kB)) ? more(1) : dx;
    if (c_.wants(kX)) {
      Value* g = w_.op("MatMul", {dx, W});
      if (directions_ == 2) g = w_.op("ReduceSum", {g, w_.ints({0})}, {{"keepdims", int64_t{0}}});
      c_.set(kX, w_.reshape_like(g, c_.x(kX)));
    }
    if (c_.wants(kW)) c_.set(kW, transposed_product(dx, x));
    if (c_.wants(kR)) c_.set(kR, late_ ? late_weights_grad(dx, h, reset) : transposed_product(dr, h));
    if (c_.wants(kB)) {
      const auto sum = [&](Value* v) { return w_.op("ReduceSum", {v, w_.ints({1})}, {{"keepdims", int64_t{0}}}); };
      Value* const one = sum(dx);
      c_.set(kB, w_.op("Concat", {one, dr == dx ? one : sum(dr)}, {{"axis", int64_t{1}}}));
    }
    if (c_.wants(kInitialH)) c_.set(kInitialH, more(2));
    if (!lstm) return;
    if (c_.wants(kInitialC)) c_.set(kInitialC, more(3));
    if (c_.wants(kP)) c_.set(kP, more(4));
  }

 private:
  Value* input(int i) const { return i < static_cast<int>(c_.node.inputs.size()) ? c_.x(i) : nullptr; }
  // [.., n] as [leading.., n].
  Value* flat(Value* v, std::vector<int64_t> leading) {
    Value* const last = w_.op("Shape", {v}, {{"start", int64_t{-1}}});
    return w_.op("Reshape", {v, w_.op("Concat", {w_.ints(leading), last}, {{"axis", int64_t{0}}})});
  }
  // a b' + bias + residual
  Value* product(Value* a, Value* b, Value* bias, Value* residual = nullptr) {
    std::vector<Value*> in{a, b};
    if (bias || residual) in.push_back(bias);
    if (residual) in.push_back(residual);
    return w_.op("FusedMatMul", std::move(in), {{"transB", int64_t{1}}}, kTiercelDomain);
  }
  Value* transposed_product(Value* a, Value* b) { return w_.op("FusedMatMul", {a, b}, {{"transA", int64_t{1}}}, kTiercelDomain); }
  std::vector<Value*> parts_of(Value* v, int64_t axis) { return w_.ops("Split", {v}, 3, {{"axis", axis}, {"num_outputs", int64_t{3}}}); }

  // Rows of z and r met the state, those of n what the reset gate left of it.
  Value* late_weights_grad(Value* dx, Value* h, Value* reset) {
    const auto parts = parts_of(dx, 2);
    return w_.op("Concat", {transposed_product(parts[0], h), transposed_product(parts[1], h), transposed_product(parts[2], reset)}, {{"axis", int64_t{1}}});
  }

  // Do the activations say their derivatives by their results? Those of an RNN are Y, those of an LSTM of float can be kept.
  bool results_are_enough() const {
    if (kind_ == RecurrentKind::kGru || c_.node.attr_float("clip", 0) > 0) return false;
    if (kind_ == RecurrentKind::kLstm && w_.dtype(c_.x(kX)) != DType::kFloat) return false;
    for (int d = 0; d < directions_; ++d) {
      const Cell cell = cell_of(c_.node, kind_, d);
      if (!activation_grad_reads_result(cell.f)) return false;
      if (kind_ == RecurrentKind::kLstm && !activation_grad_reads_result(cell.g)) return false;
    }
    return true;
  }

  AttributeList cells() const {
    AttributeList list;
    for (const char* key : {"activations", "activation_alpha", "activation_beta", "clip", "input_forget", "linear_before_reset"})
      if (const Attribute* a = c_.node.attribute(key)) list.emplace_back(key, *a);
    return list;
  }

  GradContext& c_;
  GraphWriter& w_;
  RecurrentKind kind_;
  int64_t directions_ = 1, layout_ = 0;
  bool late_ = false, apart_ = false;
};

void grad(GradContext& c) {
  for (int i : {kX, kW, kR}) c.rank(c.x(i));
  Rule(c).run();
}

const GradRegistration grads({{"RNN", "", grad}, {"GRU", "", grad}, {"LSTM", "", grad}});

}  // namespace
}  // namespace tiercel

// RNN, GRU, LSTM: the rule of their shapes, and their attributes.
#include <algorithm>
#include <cctype>

#include "ops/numeric.h"
#include "ops/recurrent.h"

namespace tiercel::recurrent_op {

RecurrentKind kind_of(const Node& node) {
  return node.op_type == "LSTM" ? RecurrentKind::kLstm : node.op_type == "GRU" ? RecurrentKind::kGru : RecurrentKind::kRnn;
}

void infer(InferContext& ctx) {
  for (const int required : {kX, kW, kR}) check_real(ctx, required);
  const std::string direction = ctx.node.attr_string("direction", "forward");
  ctx.check(direction == "forward" || direction == "reverse" || direction == "bidirectional",
            "direction should be forward, reverse or bidirectional, got \"", direction, "\"");
  const int64_t layout = ctx.node.opset >= 14 ? ctx.node.attr_int("layout", 0) : 0;
  ctx.check(layout == 0 || layout == 1, "layout should be 0 or 1, got ", layout);
  const int gates = gates_of(kind_of(ctx.node));
  const Dim directions = direction == "bidirectional" ? 2 : 1;
  Dim steps = ctx.fresh(), batch = ctx.fresh(), inputs = ctx.fresh(), hidden = ctx.node.attr_int("hidden_size", 0);
  ctx.check(hidden >= 0 && hidden <= INT32_MAX, "hidden_size should be positive and below 2^31, got ", hidden);
  if (hidden == 0) hidden = ctx.fresh();
  if (ctx.ranked(kX)) {
    const Shape& x = ctx.shape(kX);
    ctx.check(x.rank() == 3, "X should have 3 dimensions, got ", x.rank());
    steps = x[layout ? 1 : 0];
    batch = x[layout ? 0 : 1];
    inputs = x[2];
  }
  auto expect = [&](int i, const char* name, std::initializer_list<Dim> dims) {
    if (!ctx.has_input(i) || !ctx.ranked(i)) return;
    const Shape& s = ctx.shape(i);
    ctx.check(s.rank() == static_cast<int>(dims.size()), name, " should have ", dims.size(), " dimensions, got ", s);
    int k = 0;
    for (const Dim d : dims) {
      ctx.check(is_symbol(d) || is_symbol(s[k]) || d == s[k], name, " should be ", Shape(dims), ", got ", s);
      ++k;
    }
  };
  if (is_symbol(hidden) && ctx.ranked(kR) && ctx.shape(kR).rank() == 3) hidden = ctx.shape(kR)[2];
  const Dim rows = is_symbol(hidden) ? hidden : gates * hidden;
  const Dim unknown = ctx.fresh();
  expect(kW, "W", {directions, is_symbol(hidden) ? unknown : rows, inputs});
  expect(kR, "R", {directions, is_symbol(hidden) ? unknown : rows, hidden});
  expect(kB, "B", {directions, is_symbol(hidden) ? unknown : 2 * rows});
  expect(kLengths, "sequence_lens", {batch});
  const bool batch_first = layout == 1;
  const Dim first = batch_first ? batch : directions, second = batch_first ? directions : batch;
  expect(kInitialH, "initial_h", {first, second, hidden});
  if (kind_of(ctx.node) == RecurrentKind::kLstm) {
    expect(kInitialC, "initial_c", {first, second, hidden});
    expect(kP, "P", {directions, is_symbol(hidden) ? unknown : 3 * hidden});
  }
  for (int i = 1; i < ctx.num_inputs(); ++i)
    if (ctx.has_input(i) && i != kLengths)
      ctx.check(ctx.dtype(i) == ctx.dtype(kX), "input ", i, " should have the type of X");
  if (ctx.has_input(kLengths)) ctx.check(ctx.dtype(kLengths) == DType::kInt32, "sequence_lens should be int32");
  const Shape y = batch_first ? Shape{batch, steps, directions, hidden} : Shape{steps, directions, batch, hidden};
  ctx.set_output(0, ctx.dtype(kX), y);
  ctx.set_output(1, ctx.dtype(kX), Shape{first, second, hidden});
  ctx.set_output(2, ctx.dtype(kX), Shape{first, second, hidden});
  if (kind_of(ctx.node) != RecurrentKind::kLstm) return;
  const Dim all = is_symbol(steps) || is_symbol(batch) ? ctx.fresh() : steps * batch;
  ctx.set_output(kGates, ctx.dtype(kX), Shape{directions, all, rows});
  ctx.set_output(kCells, ctx.dtype(kX), Shape{directions, all, hidden});
}

Cell cell_of(const Node& node, RecurrentKind kind, int direction) {
  const int each = kind == RecurrentKind::kRnn ? 1 : kind == RecurrentKind::kGru ? 2 : 3;
  const auto names = node.attr_strings("activations");
  const auto alphas = node.attr_floats("activation_alpha"), betas = node.attr_floats("activation_beta");
  Cell cell;
  cell.clip = node.attr_float("clip", 0);
  cell.input_forget = node.attr_int("input_forget", 0) != 0;
  Activation* slots[] = {&cell.f, &cell.g, &cell.h};
  if (names.empty()) {
    cell.f.kind = kind == RecurrentKind::kRnn ? ActivationKind::kTanh : ActivationKind::kSigmoid;
    cell.g.kind = cell.h.kind = ActivationKind::kTanh;
    return cell;
  }
  if (names.size() < static_cast<size_t>(each) * (direction + 1))
    fail(Code::kInvalidArgument, node.label(), ": expected ", each, " activations a direction, got ", names.size(), " in all");
  size_t a = 0, b = 0;  // alpha and beta lists hold values for the functions that take them, in order
  for (int i = 0; i < each * (direction + 1); ++i) {
    std::string name = names[i];
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    Activation f;
    auto take = [](const std::vector<float>& list, size_t& at, float otherwise) { return at < list.size() ? list[at++] : otherwise; };
    if (name == "relu") f.kind = ActivationKind::kRelu;
    else if (name == "tanh") f.kind = ActivationKind::kTanh;
    else if (name == "sigmoid") f.kind = ActivationKind::kSigmoid;
    else if (name == "softsign") f.kind = ActivationKind::kSoftsign;
    else if (name == "softplus") f.kind = ActivationKind::kSoftplus;
    else if (name == "leakyrelu") f = {ActivationKind::kLeakyRelu, take(alphas, a, 0.01f), 0};
    else if (name == "elu") f = {ActivationKind::kElu, take(alphas, a, 1.0f), 0};
    else if (name == "thresholdedrelu") f = {ActivationKind::kThresholdedRelu, take(alphas, a, 1.0f), 0};
    else if (name == "hardsigmoid") { f = {ActivationKind::kHardSigmoid, take(alphas, a, 0.2f), 0}; f.beta = take(betas, b, 0.5f); }
    else if (name == "affine") { f = {ActivationKind::kAffine, take(alphas, a, 1.0f), 0}; f.beta = take(betas, b, 0.0f); }
    else if (name == "scaledtanh") { f = {ActivationKind::kScaledTanh, take(alphas, a, 1.0f), 0}; f.beta = take(betas, b, 1.0f); }
    else fail(Code::kInvalidArgument, node.label(), ": unknown activation \"", names[i], "\"");
    if (i >= each * direction) *slots[i - each * direction] = f;
  }
  return cell;
}

Dims dims_of(const PrepareContext& ctx) {
  const Shape& x = ctx.shape(kX);
  Dims d;
  d.batch_first = ctx.node.opset >= 14 && ctx.node.attr_int("layout", 0) == 1;
  d.steps = x[d.batch_first ? 1 : 0];
  d.batch = x[d.batch_first ? 0 : 1];
  d.inputs = x[2];
  d.hidden = ctx.shape(kR)[2];
  d.directions = static_cast<int>(ctx.shape(kW)[0]);
  d.gates = gates_of(kind_of(ctx.node));
  return d;
}

}  // namespace tiercel::recurrent_op

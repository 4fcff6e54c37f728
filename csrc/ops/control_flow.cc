// If, Loop, Scan, and Constant. Their eval is collective: every thread walks the same steps, thread 0 alone holds the values
// and decides, and Worker::agree tells the others.
#include "ops/control_flow.h"

#include "ops/registry.h"

namespace tiercel {
namespace {

// The types with which a body's state repeats: an extent that a step changes is unknown. `state` holds the first `count` own
// inputs after `skip`; the body's outputs from `out_skip` on are the next state. Returns the last infos of all outputs.
std::vector<ValueInfo> infer_steps(const InferContext& ctx, Graph& body, std::vector<ValueInfo>& own, size_t skip, size_t out_skip,
                                   size_t count) {
  std::vector<Dim> undecided;
  for (int round = 0;; ++round) {
    auto out = infer_body(ctx, body, own);
    bool stable = true;
    for (size_t i = 0; i < count; ++i) {
      Type& state = own[skip + i].type;
      Type next = either(ctx, state, out[out_skip + i].type, &undecided);
      if (round > 8) next.ranked = false;
      if (next.ranked != state.ranked || !(next.shape == state.shape) || next.dtype != state.dtype) stable = false;
      state = std::move(next);
    }
    if (stable || round > 16) return out;
  }
}

ValueInfo scalar_of(DType t) {
  ValueInfo i;
  i.type = Type::tensor(t, {});
  return i;
}

ValueInfo type_only(const InferContext& ctx, int i) {
  ValueInfo info;
  if (ctx.has_input(i)) info.type = ctx.type(i);
  return info;
}

// Sets output i to what a scan output of this type stacks to.
void set_stacked(InferContext& ctx, int i, const Type& item, Dim steps, int64_t axis = 0) {
  Type t = item;
  if (item.ranked) {
    ctx.check(item.shape.rank() < kMaxRank, "a scan output of rank ", item.shape.rank() + 1, " is not supported");
    t.shape.insert(ctx.axis(axis, item.shape.rank() + 1), steps);
  }
  ctx.set_output(i, std::move(t));
}

// ---- If

void infer_if(InferContext& ctx) {
  ctx.check(ctx.dtype(0) == DType::kBool, "the condition should be a bool");
  const int n = ctx.num_outputs();
  Graph &then_body = body_of(ctx.node, "then_branch", 0, n), &else_body = body_of(ctx.node, "else_branch", 0, n);
  const auto known = small_ints(ctx, 0);
  std::vector<ValueInfo> a, b;
  const bool decided = known && known->size() == 1 && !is_symbol((*known)[0]);
  if (!decided || (*known)[0]) a = infer_body(ctx, then_body, {});
  if (!decided || !(*known)[0]) b = infer_body(ctx, else_body, {});
  for (int i = 0; i < n; ++i) {
    const auto k = static_cast<size_t>(i);
    if (a.empty() || b.empty()) {
      const ValueInfo& only = a.empty() ? b[k] : a[k];
      ctx.set_output(i, only.type);
      if (only.ints) ctx.set_ints(i, *only.ints);
      continue;
    }
    ctx.set_output(i, either(ctx, a[k].type, b[k].type));
    if (a[k].ints && b[k].ints && *a[k].ints == *b[k].ints) ctx.set_ints(i, *a[k].ints);
  }
}

void eval_if(EvalContext& ctx, Worker& w) {
  const bool condition = w.agree([&] { return read_bool(ctx, ctx.value(0), "the condition"); });
  const Graph& body = *ctx.node.attr_graph(condition ? "then_branch" : "else_branch");
  std::vector<RuntimeValue> in;
  if (w.index() == 0) in = with_captures(ctx, body, {});
  auto out = ctx.bodies().run(body, std::move(in), w);
  if (w.index() == 0)
    for (int i = 0; i < ctx.num_outputs(); ++i) ctx.set(i, std::move(out[static_cast<size_t>(i)]));
}

// Scan output i. Where no step was made its shape is what inference has for these inputs, else what the body declares.
Tensor take_stacked(const EvalContext& ctx, Stack& stack, int i, const Value* declared) {
  if (!stack.empty()) return stack.take(declared->type);
  std::vector<ValueInfo> infos(static_cast<size_t>(ctx.num_inputs())), out(static_cast<size_t>(ctx.num_outputs()));
  std::vector<const ValueInfo*> in;
  for (int k = 0; k < ctx.num_inputs(); ++k) {
    ValueInfo& info = infos[static_cast<size_t>(k)];
    const bool tensor = ctx.has_input(k) && ctx.value(k).is_tensor();
    if (tensor) info.type = Type::tensor(ctx.tensor(k).dtype(), ctx.tensor(k).shape());
    else if (const Value* v = ctx.node.input(k)) info.type = v->type;
    if (tensor && is_integer(info.type.dtype) && ctx.tensor(k).count() <= kMaxKnownInts) info.constant = &ctx.tensor(k);
    in.push_back(ctx.node.input(k) ? &info : nullptr);
  }
  try {
    SymbolTable symbols(ctx.node.graph->symbols());
    infer_node(ctx.node, in, out, symbols);
  } catch (const Error&) {
    return stack.take(declared->type);
  }
  Type t = out[static_cast<size_t>(i)].type;
  if (!t.ranked || t.dtype == DType::kUndefined) return stack.take(declared->type);
  for (int k = 0; k < t.shape.rank(); ++k) t.shape[k] = std::max<Dim>(t.shape[k], 0);
  return t.shape.count() == 0 ? Tensor(t.dtype, t.shape) : stack.take(declared->type);
}

// ---- Loop(M, cond, state...) -> (state..., stacked...); body(i, cond, state...) -> (cond, state..., item...)

// What the body's own inputs are at the first step.
std::vector<ValueInfo> loop_inputs(const InferContext& ctx) {
  std::vector<ValueInfo> own{scalar_of(DType::kInt64), scalar_of(DType::kBool)};
  for (int i = 2; i < ctx.node.num_own_inputs(); ++i) own.push_back(type_only(ctx, i));
  const auto given = ctx.has_input(1) ? small_ints(ctx, 1) : std::vector<Dim>{1};
  if (given && given->size() == 1 && (*given)[0] == 1) own[1].ints = std::vector<Dim>{1};
  return own;
}

void infer_loop(InferContext& ctx) {
  const int states = ctx.node.num_own_inputs() - 2;
  ctx.check(states >= 0, "the trip count and the condition should stand among the inputs (they may be empty)");
  Graph& body = body_of(ctx.node, "body", states + 2, -1);
  const int stacked = static_cast<int>(body.outputs().size()) - 1 - states;
  ctx.check(stacked >= 0, "the body should give the condition and ", states, " states");
  ctx.check(ctx.num_outputs() <= states + stacked, "the node has ", ctx.num_outputs(), " outputs, its body gives ", states + stacked);
  std::vector<ValueInfo> own = loop_inputs(ctx);
  const auto out = infer_steps(ctx, body, own, 2, 1, static_cast<size_t>(states));
  const bool starts = own[1].ints.has_value();
  // A loop that nothing ends early makes as many steps as it was told to.
  const bool goes_on = starts && out[0].ints && *out[0].ints == std::vector<Dim>{1};
  const auto trips = ctx.has_input(0) ? small_ints(ctx, 0) : std::nullopt;
  const Dim steps = goes_on && trips && trips->size() == 1 ? is_symbol((*trips)[0]) ? (*trips)[0] : std::max<Dim>((*trips)[0], 0) : ctx.fresh();
  for (int i = 0; i < ctx.num_outputs(); ++i) {
    if (i < states) ctx.set_output(i, own[static_cast<size_t>(2 + i)].type);
    else set_stacked(ctx, i, out[static_cast<size_t>(1 + i)].type, steps);
  }
}

void eval_loop(EvalContext& ctx, Worker& w) {
  const Graph& body = *ctx.node.attr_graph("body");
  const int states = ctx.node.num_own_inputs() - 2, outputs = static_cast<int>(body.outputs().size()) - 1;
  const bool lead = w.index() == 0;
  std::vector<RuntimeValue> state;
  std::vector<Stack> stacks(static_cast<size_t>(outputs - states));
  int64_t trips = INT64_MAX;
  bool condition = true;
  if (lead) {
    if (ctx.has_input(0)) trips = read_int(ctx, ctx.value(0), "the trip count");
    if (ctx.has_input(1)) condition = read_bool(ctx, ctx.value(1), "the condition");
    for (int i = 0; i < states; ++i) state.push_back(ctx.value(2 + i));
    // Reserves no more than a moderate count: the condition may end the loop early.
    for (Stack& s : stacks) s = Stack(0, trips <= 4096 ? trips : -1, false);
  }
  for (int64_t i = 0; w.agree([&] { return condition && i < trips; }); ++i) {
    std::vector<RuntimeValue> in;
    if (lead) {
      in = {Tensor::of<int64_t>({}, {i}), Tensor::of<bool>({}, {condition})};
      for (RuntimeValue& v : state) in.push_back(std::move(v));
      in = with_captures(ctx, body, std::move(in));
    }
    auto out = ctx.bodies().run(body, std::move(in), w);
    if (!lead) continue;
    condition = read_bool(ctx, out[0], "the condition that the body gives");
    for (int k = 0; k < states; ++k) state[static_cast<size_t>(k)] = std::move(out[static_cast<size_t>(1 + k)]);
    for (int k = states; k < outputs; ++k) {
      if (!ctx.has_output(k)) continue;
      const RuntimeValue& v = out[static_cast<size_t>(1 + k)];
      ctx.check(v.is_tensor(), "a scan output should be a tensor");
      stacks[static_cast<size_t>(k - states)].add(ctx, v.tensor());
    }
  }
  if (!lead) return;
  for (int i = 0; i < ctx.num_outputs(); ++i) {
    if (!ctx.has_output(i)) continue;
    if (i < states) ctx.set(i, std::move(state[static_cast<size_t>(i)]));
    else ctx.set(i, take_stacked(ctx, stacks[static_cast<size_t>(i - states)], i, body.outputs()[static_cast<size_t>(1 + i)]));
  }
}

// ---- Scan(state..., sequence...) -> (state..., stacked...); body(state..., item...) -> (state..., item...)
// Opset 8 has sequence_lens as its first input, a batch axis 0 on everything and the sequences along axis 1.

// What the body's own inputs are at the first step; the number of steps and, of opset 8, of sequences.
std::vector<ValueInfo> scan_inputs(const InferContext& ctx, const ScanForm& form, Dim& steps, Dim& batch) {
  const bool batched = ctx.node.opset < 9;
  auto unbatch = [&](Type& t) {
    if (!batched || !t.ranked) return;
    ctx.check(t.shape.rank() > 0, "every input should have a batch axis");
    batch = unify(ctx, t.shape[0], batch, "batch extents");
    t.shape.erase(0);
  };
  std::vector<ValueInfo> own;
  for (int i = 0; i < form.states; ++i) {
    own.push_back(type_only(ctx, form.first + i));
    unbatch(own.back().type);
  }
  for (int i = 0; i < form.scans; ++i) {
    own.push_back(type_only(ctx, form.first + form.states + i));
    Type& t = own.back().type;
    unbatch(t);
    if (!t.ranked) continue;
    const int axis = ctx.axis(form.in_axes[static_cast<size_t>(i)], t.shape.rank());
    steps = unify(ctx, t.shape[axis], steps, "the lengths of the scan inputs");
    t.shape.erase(axis);
  }
  return own;
}

void infer_scan(InferContext& ctx) {
  const ScanForm form(ctx.node);
  const bool batched = ctx.node.opset < 9;
  Dim steps = ctx.fresh(), batch = ctx.fresh();
  std::vector<ValueInfo> own = scan_inputs(ctx, form, steps, batch);
  const auto out = infer_steps(ctx, *form.body, own, 0, 0, static_cast<size_t>(form.states));
  for (int i = 0; i < ctx.num_outputs(); ++i) {
    const auto k = static_cast<size_t>(i);
    if (i < form.states) ctx.set_output(i, own[k].type);
    else set_stacked(ctx, i, out[k].type, steps, form.out_axes[static_cast<size_t>(i - form.states)]);
    if (!batched || !ctx.has_output(i)) continue;
    Type t = ctx.output(i).type;
    if (t.ranked) t.shape.insert(0, batch);
    ctx.set_output(i, std::move(t));
  }
}

// One sequence from its first step to the last. On thread 0 `state` holds the first state and then the last.
void scan_steps(EvalContext& ctx, Worker& w, const ScanForm& form, int64_t steps, std::vector<RuntimeValue>& state,
                const std::vector<Tensor>& sequences, std::vector<Stack>& stacks) {
  const bool lead = w.index() == 0;
  for (int64_t t = 0; t < steps; ++t) {
    std::vector<RuntimeValue> in;
    if (lead) {
      for (RuntimeValue& v : state) in.push_back(std::move(v));
      for (int i = 0; i < form.scans; ++i) {
        const auto k = static_cast<size_t>(i);
        in.push_back(select(sequences[k], normalize_axis(form.in_axes[k], sequences[k].shape().rank()), form.in_back[k] ? steps - 1 - t : t));
      }
      in = with_captures(ctx, *form.body, std::move(in));
    }
    auto out = ctx.bodies().run(*form.body, std::move(in), w);
    if (!lead) continue;
    for (int k = 0; k < form.states; ++k) state[static_cast<size_t>(k)] = std::move(out[static_cast<size_t>(k)]);
    for (int k = 0; k < form.stacked; ++k) {
      const RuntimeValue& v = out[static_cast<size_t>(form.states + k)];
      ctx.check(v.is_tensor(), "a scan output should be a tensor");
      if (t == 0) {
        const int64_t axis = form.out_axes[static_cast<size_t>(k)];
        const int at = normalize_axis(axis, v.tensor().shape().rank() + 1);
        ctx.check(at >= 0, "scan_output_axes entry ", axis, " is outside the rank ", v.tensor().shape().rank() + 1);
        stacks[static_cast<size_t>(k)] = Stack(at, steps, form.out_back[static_cast<size_t>(k)] != 0);
      }
      stacks[static_cast<size_t>(k)].add(ctx, v.tensor());
    }
  }
}

void eval_scan(EvalContext& ctx, Worker& w) {
  const ScanForm form(ctx.node);
  const bool lead = w.index() == 0;
  std::vector<RuntimeValue> state;
  std::vector<Tensor> sequences;
  const int64_t steps = w.agree([&] {
    int64_t n = -1;
    for (int i = 0; i < form.states; ++i) state.push_back(ctx.value(form.first + i));
    for (int i = 0; i < form.scans; ++i) {
      const Tensor& t = ctx.tensor(form.first + form.states + i);
      const int axis = normalize_axis(form.in_axes[static_cast<size_t>(i)], t.shape().rank());
      ctx.check(axis >= 0, "scan_input_axes entry ", form.in_axes[static_cast<size_t>(i)], " is outside the rank ", t.shape().rank());
      ctx.check(n < 0 || n == t.shape()[axis], "the scan inputs have lengths ", n, " and ", t.shape()[axis]);
      n = t.shape()[axis];
      sequences.push_back(t);
    }
    return n;
  });
  std::vector<Stack> stacks(static_cast<size_t>(form.stacked));
  scan_steps(ctx, w, form, steps, state, sequences, stacks);
  if (!lead) return;
  for (int i = 0; i < ctx.num_outputs(); ++i) {
    if (!ctx.has_output(i)) continue;
    if (i < form.states) ctx.set(i, std::move(state[static_cast<size_t>(i)]));
    else ctx.set(i, take_stacked(ctx, stacks[static_cast<size_t>(i - form.states)], i, form.body->outputs()[static_cast<size_t>(i)]));
  }
}

void eval_scan_8(EvalContext& ctx, Worker& w) {
  const ScanForm form(ctx.node);
  const bool lead = w.index() == 0;
  const int inputs = form.states + form.scans, outputs = form.states + form.stacked;
  int64_t longest = 0;
  std::vector<int64_t> lengths;
  const int64_t batch = w.agree([&] {
    int64_t n = -1, length = -1;
    for (int i = 0; i < inputs; ++i) {
      const Shape& s = ctx.tensor(1 + i).shape();
      ctx.check(s.rank() > (i < form.states ? 0 : 1) && (n < 0 || n == s[0]), "all inputs should have one batch extent");
      n = s[0];
      if (i < form.states) continue;
      ctx.check(length < 0 || length == s[1], "all scan inputs should have one length");
      length = s[1];
    }
    if (ctx.has_input(0)) lengths = ctx.ints(0);
    else lengths.assign(static_cast<size_t>(n), length);
    ctx.check(static_cast<int64_t>(lengths.size()) == n, "sequence_lens should have ", n, " entries");
    for (int64_t l : lengths) ctx.check(l >= 0 && l <= length, "sequence length ", l, " is outside [0, ", length, "]");
    longest = length;
    return n;
  });
  std::vector<Stack> results(static_cast<size_t>(outputs), Stack(0, batch, false));
  for (int64_t b = 0; b < batch; ++b) {
    std::vector<RuntimeValue> state;
    std::vector<Tensor> sequences;
    const int64_t steps = w.agree([&] {
      const int64_t length = lengths[static_cast<size_t>(b)];
      for (int i = 0; i < form.states; ++i) state.push_back(select(ctx.tensor(1 + i), 0, b));
      for (int i = 0; i < form.scans; ++i) sequences.push_back(part(select(ctx.tensor(1 + form.states + i), 0, b), 0, 0, length));
      return length;
    });
    std::vector<Stack> stacks(static_cast<size_t>(form.stacked));
    scan_steps(ctx, w, form, steps, state, sequences, stacks);
    if (!lead) continue;
    for (int i = 0; i < outputs; ++i) {
      const auto k = static_cast<size_t>(i);
      if (i < form.states) {
        ctx.check(state[k].is_tensor(), "a state should be a tensor");
        results[k].add(ctx, state[k].tensor());
        continue;
      }
      const Tensor made = stacks[k - static_cast<size_t>(form.states)].take(form.body->outputs()[k]->type);
      Shape shape = made.shape();  // padded with zeros up to the longest
      shape[0] = longest;
      Tensor full(made.dtype(), shape);
      const Element e(made.dtype());
      if (!e.string) std::memset(full.data(), 0, static_cast<size_t>(full.bytes()));
      copy_elements(e, full.data(), made.data(), made.count());
      results[k].add(ctx, full);
    }
  }
  if (!lead) return;
  for (int i = 0; i < ctx.num_outputs(); ++i)
    if (ctx.has_output(i)) ctx.set(i, results[static_cast<size_t>(i)].take(form.body->outputs()[static_cast<size_t>(i)]->type));
}

// ---- Constant: importing makes initializers of most; this serves those that passes or functions leave

Tensor constant_of(const Node& node) {
  for (const char* key : {"value", "sparse_value"})
    if (const Tensor* t = node.attr_tensor(key)) return *t;
  if (node.has("value_float")) return Tensor::of<float>({}, {node.attr_float("value_float", 0)});
  if (node.has("value_int")) return Tensor::of<int64_t>({}, {node.attr_int("value_int", 0)});
  auto list = [&]<class T>(const std::vector<T>& v, DType t) {
    Tensor r(t, {static_cast<Dim>(v.size())});
    std::copy(v.begin(), v.end(), r.as<T>());
    return r;
  };
  if (node.has("value_floats")) return list(node.attr_floats("value_floats"), DType::kFloat);
  if (node.has("value_ints")) return list(node.attr_ints("value_ints"), DType::kInt64);
  if (node.has("value_strings")) return list(node.attr_strings("value_strings"), DType::kString);
  if (!node.has("value_string")) fail(Code::kInvalidGraph, node.label(), ": no attribute gives its value");
  Tensor r(DType::kString, {});
  *r.as<std::string>() = node.attr_string("value_string", "");
  return r;
}

void infer_constant(InferContext& ctx) {
  const Tensor t = constant_of(ctx.node);
  ctx.set_output(0, t.dtype(), t.shape());
  if (t.shape().rank() > 1 || t.count() > kMaxKnownInts || bits_of(t.dtype()) < 8) return;
  if (!is_integer(t.dtype()) && t.dtype() != DType::kBool) return;
  auto v = t.ints();
  if (std::none_of(v.begin(), v.end(), is_symbol)) ctx.set_ints(0, std::move(v));
}

void eval_constant(EvalContext& ctx, Worker&) { ctx.set(0, constant_of(ctx.node)); }

const OpRegistration rows({
    {"If", "", 1, infer_if, nullptr, eval_if, kCollective},
    {"Loop", "", 1, infer_loop, nullptr, eval_loop, kCollective},
    {"Scan", "", 8, infer_scan, nullptr, eval_scan_8, kCollective},
    {"Scan", "", 9, infer_scan, nullptr, eval_scan, kCollective},
    {"Constant", "", 1, infer_constant, nullptr, eval_constant},
});

}  // namespace

ScanForm::ScanForm(const Node& node) {
  first = node.opset < 9 ? 1 : 0;
  const int64_t n = node.attr_int("num_scan_inputs", 0);
  const int own = node.num_own_inputs() - first;
  if (n < 1 || n > own) fail(Code::kInvalidGraph, node.label(), ": num_scan_inputs is ", n, " for ", own, " inputs");
  scans = static_cast<int>(n);
  states = own - scans;
  body = &body_of(node, "body", own, states);
  stacked = static_cast<int>(body->outputs().size()) - states;
  auto list = [&](const char* key, int count) {
    auto v = node.attr_ints(key);
    if (v.empty()) v.assign(static_cast<size_t>(count), 0);
    if (static_cast<int>(v.size()) != count) fail(Code::kInvalidGraph, node.label(), ": '", key, "' should have ", count, " entries");
    return v;
  };
  in_axes = list("scan_input_axes", scans);
  in_back = list(node.opset < 9 ? "directions" : "scan_input_directions", scans);
  out_axes = list("scan_output_axes", stacked);
  out_back = list("scan_output_directions", stacked);
  for (const auto* directions : {&in_back, &out_back})
    for (int64_t d : *directions) if (d != 0 && d != 1) fail(Code::kInvalidGraph, node.label(), ": direction ", d, " is neither 0 nor 1");
  if (static_cast<int>(node.outputs.size()) > states + stacked)
    fail(Code::kInvalidGraph, node.label(), ": ", node.outputs.size(), " outputs, but the body gives ", states + stacked);
}

std::vector<ValueInfo> step_inputs(const InferContext& ctx) {
  std::vector<ValueInfo> own;
  if (ctx.node.op_type == "Loop") {
    own = loop_inputs(ctx);
    infer_steps(ctx, body_of(ctx.node, "body", -1, -1), own, 2, 1, own.size() - 2);
  } else {
    const ScanForm form(ctx.node);
    Dim steps = ctx.fresh(), batch = ctx.fresh();
    own = scan_inputs(ctx, form, steps, batch);
    infer_steps(ctx, *form.body, own, 0, 0, static_cast<size_t>(form.states));
  }
  return own;
}

}  // namespace tiercel

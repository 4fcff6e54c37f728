// The gradient of SequenceMap: a SequenceMap over the same sequences and the gradients of its results. What every step is given has the sum
// of what the steps say.
#include <algorithm>

#include "autodiff/body_writer.h"
#include "autodiff/gradients.h"
#include "ops/grad.h"

namespace tiercel {
namespace {

// The sum of a sequence of tensors of x's shape, of which there may be none.
Value* sum_of(GraphWriter& w, Value* sequence, Value* x) {
  Value* all = w.op("SequenceInsert", {sequence, w.zeros_like(x)});
  all = w.op("ConcatFromSequence", {all}, {{"axis", int64_t{0}}, {"new_axis", int64_t{1}}});
  Value* sum = w.op("ReduceSum", {all, w.ints({0})}, {{"keepdims", int64_t{0}}});
  w.declare(sum, w.type(x));
  return sum;
}

void grad(GradContext& c) {
  Node& node = c.forward();
  const Graph& body = *node.attr_graph("body");
  check_repeatable(c, body);
  BodyWriter b(c.w);
  const auto index = [](int i) { return static_cast<size_t>(i); };
  const int own = node.num_own_inputs();
  std::vector<Value*> in, items, start;
  for (int i = 0; i < own; ++i) {
    Type t = c.w.type(c.x(i));
    if (t.kind == Kind::kSequence) t = Type::tensor(t.dtype);
    else if (t.kind != Kind::kTensor) c.fail("input ", i, " is a ", t.str(), ": only tensors and sequences have one here");
    in.push_back(b.w.input(body.inputs()[index(i)]->name, t));
    items.push_back(in.back());
    start.push_back(c.x(i));
  }
  const int at = node.captures_begin(&body);
  for (int i = 0; i < body.captured; ++i) in.push_back(b.capture(c.x(at + i), c.wants(at + i)));
  const std::vector<Value*> out = b.w.append(body, in);
  std::vector<GradientSeed> seeds;
  for (int i = 0; i < static_cast<int>(node.outputs.size()); ++i) {
    if (!c.dy(i)) continue;
    items.push_back(b.w.input(cat("gradient of ", out[index(i)]->name), b.w.type(out[index(i)])));
    start.push_back(c.dy(i));
    seeds.push_back({out[index(i)], items.back()});
  }
  std::vector<int> asked;
  std::vector<Value*> wrt;
  for (int i = 0; i < static_cast<int>(node.inputs.size()); ++i) {
    Value* inner = i < own ? in[index(i)] : in[index(own + i - at)];
    if (!c.wants(i) || std::find(wrt.begin(), wrt.end(), inner) != wrt.end()) continue;
    asked.push_back(i);
    wrt.push_back(inner);
  }
  GradientOptions options;
  options.strict = false;
  options.way = c.way + ", in its body: ";
  const std::vector<Value*> g = gradients(b.w, seeds, wrt, options);
  std::vector<int> given;
  std::vector<Value*> outputs;
  for (size_t i = 0; i < g.size(); ++i) {
    if (!g[i]) continue;
    given.push_back(asked[i]);
    outputs.push_back(g[i]);
  }
  if (outputs.empty()) return;
  AttributeList attributes;
  attributes.emplace_back("body", Attribute(b.finish(items, outputs)));
  BodyWriter* const bodies[] = {&b};
  const auto dx = add_control_flow(c.w, "SequenceMap", start, static_cast<int>(outputs.size()), std::move(attributes), bodies);
  for (size_t k = 0; k < given.size(); ++k) {
    Value* x = c.x(given[k]);
    c.set(given[k], c.w.type(x).kind == Kind::kSequence ? dx[k] : sum_of(c.w, dx[k], x));
  }
}

const GradRegistration grads({{"SequenceMap", "", grad}});

}  // namespace
}  // namespace tiercel

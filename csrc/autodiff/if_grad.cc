// The gradient of If: an If on the same condition, whose branches compute the branch again and go backwards through it.
#include <algorithm>

#include "autodiff/body_writer.h"
#include "autodiff/gradients.h"
#include "ops/grad.h"

namespace tiercel {
namespace {

void grad(GradContext& c) {
  Node& node = c.forward();
  std::vector<Value*> wrt;  // outer values, once each
  for (int i = node.num_own_inputs(); i < static_cast<int>(node.inputs.size()); ++i)
    if (c.wants(i) && std::find(wrt.begin(), wrt.end(), c.x(i)) == wrt.end()) wrt.push_back(c.x(i));
  const char* const keys[] = {"then_branch", "else_branch"};
  std::unique_ptr<BodyWriter> branches[2];
  std::vector<Value*> results[2];
  for (int k = 0; k < 2; ++k) {
    const Graph& body = *node.attr_graph(keys[k]);
    check_repeatable(c, body);
    branches[k] = std::make_unique<BodyWriter>(c.w);
    BodyWriter& b = *branches[k];
    const auto wanted = [&](const Value* v) { return std::find(wrt.begin(), wrt.end(), v) != wrt.end(); };
    std::vector<Value*> in, here;
    for (int i = node.captures_begin(&body), end = i + body.captured; i < end; ++i) in.push_back(b.capture(c.x(i), wanted(c.x(i))));
    for (Value* v : wrt) here.push_back(b.capture(v, true));
    const std::vector<Value*> out = b.w.append(body, in);
    std::vector<GradientSeed> seeds;
    for (size_t i = 0; i < node.outputs.size(); ++i)
      if (Value* dy = c.dy(static_cast<int>(i))) seeds.push_back({out[i], b.capture(dy)});
    GradientOptions options;
    options.strict = false;
    options.way = cat(c.way, ", in its ", keys[k], ": ");
    results[k] = gradients(b.w, seeds, here, options);
  }
  std::vector<Value*> asked;
  std::vector<Value*> outputs[2];
  for (size_t i = 0; i < wrt.size(); ++i) {
    if (!results[0][i] && !results[1][i]) continue;
    asked.push_back(wrt[i]);
    for (int k = 0; k < 2; ++k)
      outputs[k].push_back(results[k][i] ? results[k][i] : branches[k]->w.zeros_like(branches[k]->capture(wrt[i], true)));
  }
  if (asked.empty()) return;
  AttributeList attributes;
  for (int k = 0; k < 2; ++k) attributes.emplace_back(keys[k], Attribute(branches[k]->finish({}, outputs[k])));
  BodyWriter* const bodies[] = {branches[0].get(), branches[1].get()};
  const auto dx = add_control_flow(c.w, "If", {c.x(0)}, static_cast<int>(asked.size()), std::move(attributes), bodies);
  for (size_t i = 0; i < asked.size(); ++i) {
    const auto at = std::find(node.inputs.begin() + node.num_own_inputs(), node.inputs.end(), asked[i]);
    c.set(static_cast<int>(at - node.inputs.begin()), c.w.reshape_like(dx[i], asked[i]));
  }
}

const GradRegistration grads({{"If", "", grad}});

}  // namespace
}  // namespace tiercel

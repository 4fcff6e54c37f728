#include <algorithm>
#include <array>
#include <cmath>

#include "passes/affine.h"
#include "passes/fuse_conv.h"
#include "passes/match.h"

namespace tiercel {
namespace {

// A branch as a convolution: weights [outputs, in_group, kernel...] placed at `begin` of a kernel whose windows start at -pad.
struct Branch {
  Tensor weights;
  std::vector<double> bias;
  std::vector<int64_t> kernel, stride, dilation, begin, end;
  int64_t groups = 1;
};

std::optional<Branch> branch_of(const Node* conv) {
  if (!conv->is("Conv") || conv->input(3) || conv->has("tiercel_recomputed") || conv->has("activation") || !conv->output()) return std::nullopt;
  const Value *const w = conv->inputs[1], *const b = conv->input(2);
  const std::string mode = conv->attr_string("auto_pad", "NOTSET");
  if (!match::is_f32(w) || !w->is_constant() || (b && !b->is_constant()) || (mode != "NOTSET" && mode != "VALID" && !mode.empty())) return std::nullopt;
  const Shape& s = w->constant.shape();
  const auto axes = static_cast<size_t>(std::max(s.rank() - 2, 0));
  Branch r;
  r.weights = w->constant;
  r.groups = conv->attr_int("group", 1);
  r.kernel.assign(s.begin() + 2, s.end());
  r.stride = conv->attr_ints("strides");
  r.dilation = conv->attr_ints("dilations");
  std::vector<int64_t> pads = conv->attr_ints("pads");
  if (r.stride.empty()) r.stride.assign(axes, 1);
  if (r.dilation.empty()) r.dilation.assign(axes, 1);
  if (pads.empty() || mode == "VALID") pads.assign(2 * axes, 0);
  if (!axes || r.stride.size() != axes || r.dilation.size() != axes || pads.size() != 2 * axes) return std::nullopt;
  r.begin.assign(pads.begin(), pads.begin() + static_cast<int64_t>(axes));
  r.end.assign(pads.begin() + static_cast<int64_t>(axes), pads.end());
  for (size_t a = 0; a < axes; ++a)
    if (r.dilation[a] != 1 && r.kernel[a] != 1) return std::nullopt;
  if (s[0] == 0 || s[1] == 0 || !match::all_finite(w->constant)) return std::nullopt;
  r.bias.assign(static_cast<size_t>(s[0]), 0);
  if (b) r.bias = b->constant.doubles();
  if (r.bias.size() != static_cast<size_t>(s[0])) return std::nullopt;
  return r;
}

// BatchNormalization beside a convolution `like`: every channel from itself.
std::optional<Branch> branch_of(const Node* bn, const Branch& like) {
  const Shape& s = like.weights.shape();
  const int64_t channels = s[1] * like.groups;
  if (channels != s[0] || std::any_of(like.stride.begin(), like.stride.end(), [](int64_t v) { return v != 1; })) return std::nullopt;
  const auto a = batch_norm(bn, channels);
  if (!a) return std::nullopt;
  Branch r;
  r.groups = like.groups;
  r.stride = like.stride;
  r.kernel.assign(like.kernel.size(), 1);
  r.dilation = r.kernel;
  r.begin.assign(like.kernel.size(), 0);
  r.end = r.begin;
  Shape shape = s;
  for (int i = 2; i < shape.rank(); ++i) shape[i] = 1;
  r.weights = Tensor(DType::kFloat, shape);
  std::fill_n(r.weights.as<float>(), r.weights.count(), 0.0f);
  for (int64_t c = 0; c < channels; ++c) r.weights.as<float>()[c * s[1] + c % s[1]] = static_cast<float>(a->scale[static_cast<size_t>(c)]);
  r.bias = a->shift;
  return match::all_finite(r.weights) ? std::optional(std::move(r)) : std::nullopt;
}

// Adds the smaller kernel to the larger, where both look at the same pixels; false where they do not.
bool add_to(Branch& large, const Branch& small) {
  const Shape &l = large.weights.shape(), &s = small.weights.shape();
  if (l.rank() != s.rank() || l[0] != s[0] || l[1] != s[1] || large.groups != small.groups || large.stride != small.stride) return false;
  std::array<int64_t, kMaxRank> at{};
  for (size_t a = 0; a < large.kernel.size(); ++a) {
    at[a] = large.begin[a] - small.begin[a];
    const int64_t after = large.kernel[a] - small.kernel[a] - at[a];
    if (at[a] < 0 || after < 0 || large.end[a] - small.end[a] != after) return false;
  }
  Tensor sum(DType::kFloat, l);
  std::copy_n(large.weights.as<float>(), l.count(), sum.as<float>());
  const int64_t taps = s.count(2, s.rank()), all_taps = l.count(2, l.rank());
  for (int64_t i = 0; i < s.count(); ++i) {
    int64_t to = 0, step = 1, rest = i % taps;
    for (size_t a = large.kernel.size(); a-- > 0;) {
      to += (at[a] + rest % small.kernel[a]) * step;
      rest /= small.kernel[a];
      step *= large.kernel[a];
    }
    sum.as<float>()[i / taps * all_taps + to] += small.weights.as<float>()[i];
  }
  if (!match::all_finite(sum)) return false;
  for (size_t c = 0; c < large.bias.size(); ++c)
    if (!std::isfinite(static_cast<float>(large.bias[c] + small.bias[c]))) return false;
  large.weights = std::move(sum);
  for (size_t c = 0; c < large.bias.size(); ++c) large.bias[c] += small.bias[c];
  return true;
}

// Conv(x) + Conv(x), Conv(x) + BatchNormalization(x): the convolution takes the place of all three nodes. Returns what it swallowed.
Node* merge_branch(Graph& graph, Node* conv) {
  Value* const y = conv->outputs[0];
  Node* const add = match::only_reader(y, "Add");
  if (!add || add->opset < 7) return nullptr;
  Value* const z = match::other(add, y);
  Node* const other = z && z != y && z->has_one_use() ? z->producer : nullptr;
  if (!other || other->inputs.empty() || other->inputs[0] != conv->inputs[0]) return nullptr;
  auto a = branch_of(conv);
  if (!a) return nullptr;
  auto b = other->is("BatchNormalization") ? branch_of(other, *a) : branch_of(other);
  if (!b) return nullptr;
  if (a->weights.count() < b->weights.count()) std::swap(a, b);
  if (!add_to(*a, *b)) return nullptr;
  std::vector<int64_t> pads = a->begin;
  pads.insert(pads.end(), a->end.begin(), a->end.end());
  conv->unset("auto_pad");
  conv->set("pads", std::move(pads));
  conv->set("kernel_shape", a->kernel);
  conv->set("dilations", a->dilation);
  conv->set("strides", a->stride);
  graph.set_input(conv, 1, graph.new_constant(std::move(a->weights)));
  Tensor bias(DType::kFloat, Shape{static_cast<int64_t>(a->bias.size())});
  std::transform(a->bias.begin(), a->bias.end(), bias.as<float>(), [](double v) { return static_cast<float>(v); });
  if (conv->inputs.size() < 3) graph.add_node_input(conv, nullptr);
  graph.set_input(conv, 2, graph.new_constant(std::move(bias)));
  Value* const out = add->outputs[0];
  if (out->graph_output_uses) std::swap(out->name, y->name);
  graph.replace_uses(out, y);
  graph.erase(add);
  graph.erase(other);
  return other;
}

}  // namespace

void merge_branches(Graph& graph) {
  std::vector<Node*> convs;
  for (const auto& n : graph.nodes())
    if (n->is("Conv") && n->output() && match::is_f32(n->outputs[0]) && n->inputs.size() >= 2) convs.push_back(n.get());
  for (size_t i = 0; i < convs.size(); ++i)
    while (convs[i]) {
      Node* const gone = merge_branch(graph, convs[i]);
      if (!gone) break;
      std::replace(convs.begin(), convs.end(), gone, static_cast<Node*>(nullptr));
    }
}

}  // namespace tiercel

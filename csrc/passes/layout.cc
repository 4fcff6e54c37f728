#include "passes/layout.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <unordered_map>

#include "kernels/conv/plan.h"
#include "kernels/reorder/reorder.h"
#include "ops/overlap_add.h"
#include "ops/registry.h"
#include "passes/match.h"

namespace tiercel {
namespace {

bool blocked(const Value* v) { return v && v->type.layout == Layout::kBlocked; }

// Could v lie in channel blocks: float, [N, C, ...] with C known?
bool can_block(const Value* v) { return match::is_f32(v) && match::rank(v) >= 2 && !is_symbol(v->type.shape[1]); }
bool whole_blocks(const Value* v) { return v->type.shape[1] % kChannelBlock == 0; }

// What a node needs to work on blocked values: the inputs that have to be blocked. Its other inputs stay as they are.
using Form = std::optional<std::vector<int>>;

// ---- The rules. Each sees a node of which at least one input is blocked (convolutions: any).

// Weights tell the extents; the kernels serve one to three spatial axes.
Form convolution(const Node& n) {
  const Value *x = n.inputs[0], *w = n.inputs[1];
  if (!match::is_f32(x) || match::rank(x) < 3 || match::rank(x) > 5 || match::rank(w) != match::rank(x) || !w->type.shape.known() ||
      w->type.shape.count() == 0)
    return {};
  // Weights that come at run time: a step of training, whose other readers of the image (statistics, gradients) take it plain.
  if (!w->is_constant() && !blocked(x)) return {};
  int64_t phases = 1;
  if (n.op_type == "ConvTranspose")
    for (int64_t s : n.attr_ints("strides")) phases *= std::clamp<int64_t>(s, 1, 1 << 10);
  if (phases > 256 || w->type.shape.count(2, w->type.shape.rank()) >= (1 << 24)) return {};
  const int64_t groups = n.attr_int("group", 1);
  const int64_t channels = n.op_type == "Conv" ? w->type.shape[1] * groups : w->type.shape[0];
  if (is_symbol(x->type.shape[1])) return {};
  std::vector<int> inputs;
  if (blocked(x) || !conv_reads_plain(channels, groups)) inputs.push_back(0);
  if (n.input(3)) inputs.push_back(3);
  return inputs;
}

// Maps of input 0 to one output of its shape. They keep padded channels zero.
Form map(const Node& n) {
  if (!blocked(n.inputs[0]) || !match::is_f32(n.outputs[0])) return {};
  if (std::any_of(n.outputs.begin() + 1, n.outputs.end(), [](const Value* v) { return v != nullptr; })) return {};
  return std::vector<int>{0};
}

// A plain operand that broadcasts against blocked ones as it is: a scalar, or extents N and C alone.
bool broadcasts_plain(const Value* v, const Value* out) {
  const Shape &s = v->type.shape, &o = out->type.shape;
  if (std::all_of(s.begin(), s.end(), [](Dim d) { return d == 1; })) return true;
  const int skip = o.rank() - s.rank();
  if (skip < 0 || skip > 1 || s[1 - skip] != o[1]) return false;
  for (int i = std::max(0, 2 - skip); i < s.rank(); ++i) if (s[i] != 1) return false;
  return true;
}

Form broadcast(const Node& n) {
  const Value* out = n.outputs[0];
  if (n.domain.empty() && n.opset < 8) return {};  // numpy's rules, for variadic operators too
  if (!can_block(out)) return {};
  std::vector<int> inputs;
  int are = 0, become = 0;
  for (int i = 0; i < static_cast<int>(n.inputs.size()); ++i) {
    const Value* v = n.inputs[static_cast<size_t>(i)];
    if (!match::is_f32(v) || !v->type.ranked) return {};
    if (!blocked(v) && broadcasts_plain(v, out)) continue;
    if (!can_block(v) || match::rank(v) != match::rank(out) || v->type.shape[1] != out->type.shape[1]) return {};
    inputs.push_back(i);
    ++(blocked(v) ? are : become);
  }
  return are > 0 && are >= become ? Form(inputs) : Form();
}

Form pool(const Node& n) {
  if (!blocked(n.inputs[0]) || match::rank(n.inputs[0]) > 5 || n.output(1)) return {};
  return std::vector<int>{0};
}

Form roi_align(const Node& n) {
  if (!blocked(n.inputs[0]) || !match::is_f32(n.outputs[0]) || n.attr_string("mode", "avg") != "avg") return {};
  return std::vector<int>{0};
}

Form concat(const Node& n) {
  const Value* out = n.outputs[0];
  if (!can_block(out)) return {};
  const int axis = normalize_axis(n.attr_int("axis", 1), match::rank(out));
  if (axis < 1) return {};
  std::vector<int> inputs;
  int64_t are = 0, all = 0;
  for (size_t i = 0; i < n.inputs.size(); ++i) {
    const Value* v = n.inputs[i];
    if (!can_block(v)) return {};
    inputs.push_back(static_cast<int>(i));
    are += blocked(v) ? v->type.shape[1] : 0;
    all += v->type.shape[1];
  }
  return 2 * are >= all ? Form(inputs) : Form();
}

Form split(const Node& n) {
  if (!blocked(n.inputs[0])) return {};
  const int axis = normalize_axis(n.attr_int("axis", 0), match::rank(n.inputs[0]));
  if (axis < 1) return {};
  for (size_t i = 0; i < n.outputs.size(); ++i) {
    const Value* v = n.outputs[i];
    if (!v || !can_block(v)) return {};
  }
  return std::vector<int>{0};
}

// Of a model that was optimised and saved.
Form chain(const Node& n) {
  std::vector<int> inputs{0};
  if (n.input(7)) inputs.push_back(7);  // the residual
  return inputs;
}

// Operators that leave batch and channels as they are.
Form spatial(const Node& n) {
  const Value *x = n.inputs[0], *y = n.outputs[0];
  if (!blocked(x) || !can_block(y) || match::rank(x) != match::rank(y)) return {};
  if (x->type.shape[0] != y->type.shape[0] || x->type.shape[1] != y->type.shape[1]) return {};
  return std::vector<int>{0};
}

Form resize(const Node& n) {
  if (n.attr_string("coordinate_transformation_mode", "") == "tf_crop_and_resize") return {};  // padding channels would not stay zero
  return spatial(n);
}

Form pad(const Node& n) {
  if (n.attr_string("mode", "constant") == "constant" && !whole_blocks(n.inputs[0])) {
    const bool zero = n.opset < 11 ? n.attr_float("value", 0) == 0 : !n.input(2) || match::scalar(n.input(2)) == 0;
    if (!zero) return {};
  }
  return spatial(n);
}

// The axes of a reduction over spatial ones alone; else empty.
std::vector<int64_t> spatial_axes(const Node& n) {
  std::vector<int64_t> axes = n.attr_ints("axes");
  if (const Value* v = n.input(1)) {
    if (!v->is_constant()) return {};
    axes = v->constant.ints();
  }
  for (int64_t& a : axes)
    if ((a = normalize_axis(a, match::rank(n.inputs[0]))) < 2) return {};
  return axes;
}

Form reduce(const Node& n) {
  if (!n.attr_int("keepdims", 1) || spatial_axes(n).empty()) return {};
  return spatial(n);
}

struct Rule {
  const char* op;
  Form (*form)(const Node&);
};
// An operator is also asked: its row must have kAnyLayout.
constexpr Rule kRules[] = {
    {"ConvChain", chain}, {"MaxPool", pool}, {"AveragePool", pool}, {"GlobalAveragePool", pool}, {"GlobalMaxPool", pool}, {"RoiAlign", roi_align},
    {"Concat", concat}, {"Split", split}, {"Resize", resize}, {"Upsample", resize}, {"Pad", pad},
    {"ReduceMean", reduce}, {"ReduceSum", reduce}, {"ReduceMax", reduce}, {"ReduceMin", reduce}, {"ReduceL1", reduce},
    {"ReduceL2", reduce}, {"ReduceSumSquare", reduce},
    {"Add", broadcast}, {"Sub", broadcast}, {"Mul", broadcast}, {"Div", broadcast}, {"Pow", broadcast}, {"PRelu", broadcast},
    {"Max", broadcast}, {"Min", broadcast}, {"Sum", broadcast}, {"Mean", broadcast},
    {"BatchNormalization", map}, {"InstanceNormalization", map}, {"GroupNormalization", map}, {"Identity", map}, {"Dropout", map},
    {"Abs", map}, {"Neg", map}, {"Exp", map}, {"Log", map}, {"Sqrt", map}, {"Reciprocal", map}, {"Erf", map}, {"Sign", map},
    {"Floor", map}, {"Ceil", map}, {"Round", map}, {"Sin", map}, {"Cos", map}, {"Tan", map}, {"Sinh", map}, {"Cosh", map},
    {"Tanh", map}, {"Sigmoid", map}, {"Relu", map}, {"LeakyRelu", map}, {"Elu", map}, {"Celu", map}, {"Selu", map},
    {"ThresholdedRelu", map}, {"Softplus", map}, {"Softsign", map}, {"HardSigmoid", map}, {"HardSwish", map}, {"Gelu", map},
    {"Mish", map}, {"Swish", map}, {"Silu", map}, {"QuickGelu", map}, {"Shrink", map}, {"Clip", map},
};

bool is_conv(const Node& n) {
  return (n.op_type == "Conv" || n.op_type == "ConvTranspose") && (n.domain.empty() || n.domain == kTiercelDomain);
}
// Convolutions that read either layout and give a plain result.
bool gives_plain(const Node& n) {
  if (!is_conv(n) || n.input(3)) return false;
  const bool transposed = n.op_type == "ConvTranspose";
  const std::vector<int64_t> strides = n.attr_ints("strides");
  if (!transposed && !std::all_of(strides.begin(), strides.end(), [](int64_t s) { return s == 1; })) return false;
  const Value *x = n.inputs[0], *w = n.inputs[1];
  return match::is_f32(x) && w->is_constant() && match::rank(w) >= 3 && match::rank(w) <= 4 &&
         suits_overlap_add(transposed, w->type.shape[transposed ? 0 : 1], w->type.shape[transposed ? 1 : 0], w->type.shape.count(2, w->type.shape.rank()), n.attr_int("group", 1), match::rank(w) - 2);
}
// Operators that read shapes alone see through layouts.
bool sees_through(const Node& n) { return n.domain.empty() && (n.op_type == "Shape" || n.op_type == "Size"); }

Form blocked_form(const Node& n) {
  const OpRow* row = find_op(n.op_type, n.domain, n.opset);
  if (!row || !(row->flags & kAnyLayout) || !n.output()) return {};
  if (is_conv(n)) return convolution(n);
  if (std::none_of(n.inputs.begin(), n.inputs.end(), blocked)) return {};
  for (const Rule& r : kRules)
    if (n.op_type == r.op) return r.form(n);
  return {};
}

// Reductions of images keep their axes, which a Squeeze takes away: so they work on blocks.
void keep_axes(Graph& graph) {
  std::vector<Node*> reductions;
  for (const auto& n : graph.nodes())
    if (n->op_type.starts_with("Reduce") && n->domain.empty() && n->output() && !n->attr_int("keepdims", 1)) reductions.push_back(n.get());
  for (Node* n : reductions) {
    Value* const y = n->outputs[0];
    if (!can_block(n->inputs[0]) || !y->type.ranked) continue;
    const std::vector<int64_t> axes = spatial_axes(*n);
    if (axes.empty()) continue;
    Type type = n->inputs[0]->type;
    for (int64_t a : axes) type.shape[static_cast<int>(a)] = 1;
    Value* const kept = graph.emit(n->op_type, "", n->opset, n->inputs, type, n);
    kept->producer->name = n->name;
    kept->producer->attributes = n->attributes;
    kept->producer->set("keepdims", int64_t{1});
    Tensor list(DType::kInt64, Shape{static_cast<int64_t>(axes.size())});
    std::copy(axes.begin(), axes.end(), list.as<int64_t>());
    Value* const list_value = graph.new_constant(std::move(list), "axes");
    Value* const squeezed = graph.emit("Squeeze", "", 13, {kept, list_value}, y->type, n);
    if (y->graph_output_uses) std::swap(y->name, squeezed->name);
    graph.replace_uses(y, squeezed);
    graph.erase(n);
  }
}

// ---- The rewrite

class Rewrite {
 public:
  explicit Rewrite(Graph& graph) : graph_(graph) {}

  void run() {
    for (auto it = graph_.nodes().begin(); it != graph_.nodes().end(); ++it) visit(**it);
    for (int i = 0; i < static_cast<int>(graph_.outputs().size()); ++i) {
      Value* const v = graph_.outputs()[static_cast<size_t>(i)];
      if (!blocked(v)) continue;
      Value* const plain = in(Layout::kPlain, v, nullptr);
      if (plain->graph_output_uses == 0 && v->graph_output_uses > 0) std::swap(plain->name, v->name);
      graph_.set_output(i, plain);
    }
  }

 private:
  void visit(Node& n) {
    if (gives_plain(n)) {
      if (!blocked(n.inputs[0])) return;
      n.domain = kTiercelDomain;
      n.opset = 1;
      n.set("layout", std::string("plain"));
      return;
    }
    const Form form = blocked_form(n);
    if (!form) {
      if (sees_through(n)) return;
      for (size_t i = 0; i < n.inputs.size(); ++i)
        if (blocked(n.inputs[i])) graph_.set_input(&n, static_cast<int>(i), in(Layout::kPlain, n.inputs[i], &n));
      return;
    }
    for (int i : *form) graph_.set_input(&n, i, in(Layout::kBlocked, n.inputs[static_cast<size_t>(i)], &n));
    if (is_conv(n)) {
      n.domain = kTiercelDomain;
      n.opset = 1;
      n.set("layout", std::string("blocked"));
    }
    for (Value* v : n.outputs) if (v) v->type.layout = Layout::kBlocked;
  }

  // v in a layout: itself, or through a Reorder before `before`, made once.
  Value* in(Layout layout, Value* v, Node* before) {
    if (v->type.layout == layout) return v;
    Value*& twin = twins_[v];
    if (twin) return twin;
    Type type = v->type;
    type.layout = layout;
    if (v->is_constant()) {
      twin = constant_blocks(v);
    } else {
      twin = graph_.emit("Reorder", kTiercelDomain, 1, {v}, type, before);
      twin->producer->set("to", std::string(layout == Layout::kBlocked ? "blocked" : "plain"));
    }
    Value* const made = twin;
    twins_[made] = v;
    return made;
  }

  Value* constant_blocks(Value* v) {
    const Shape& s = v->type.shape;
    const int64_t channels = s[1], plane = s.count(2, s.rank()), blocks = ceil_div(channels, kChannelBlock);
    return graph_.new_constant(graph_.derived("blocked", {v}, [&] {
      Tensor t(DType::kFloat, s, Layout::kBlocked);
      for (int64_t i = 0; i < s[0] * blocks; ++i) {
        const int64_t n = i / blocks, c = i % blocks * kChannelBlock;
        reorder().to_blocked(v->constant.as<float>() + (n * channels + c) * plane, plane,
                             static_cast<int>(std::min<int64_t>(kChannelBlock, channels - c)), plane, t.as<float>() + i * plane * kChannelBlock);
      }
      return t;
    }), "blocked");
  }

  Graph& graph_;
  std::unordered_map<Value*, Value*> twins_;
};

}  // namespace

void layout(Graph& graph) {
  keep_axes(graph);
  Rewrite(graph).run();
}

void allow_winograd(Graph& graph) {
  for (const auto& n : graph.nodes()) {
    if (n->op_type != "Conv" || n->domain != kTiercelDomain || !blocked(n->output()) || !blocked(n->inputs[0])) continue;
    const Value* const w = n->inputs[1];
    if (!w->is_constant() || match::rank(w) != 4 || w->type.shape[2] != 3 || w->type.shape[3] != 3) continue;
    // Transforms of an infinite weight would be NaN, which its sums are not.
    if (match::all_finite(graph, w->constant)) n->set("winograd", int64_t{1});
  }
}

}  // namespace tiercel

// The gradients of Scan and Loop: a Scan over the steps, last first. Its body computes a step again, from the states that the forward pass is
// made to give as one scan output more, and goes backwards through it; it carries the gradients of the states, and sums those of what the
// body captures. A Loop gives the numbers of its steps too: so many were made.
#include <algorithm>
#include <map>

#include "autodiff/body_writer.h"
#include "autodiff/gradients.h"
#include "autodiff/reach.h"
#include "ops/control_flow.h"
#include "ops/grad.h"

namespace tiercel {
namespace {

constexpr int64_t kBackwards = 1;

class Steps {
 public:
  explicit Steps(GradContext& c) : c_(c), node_(c.forward()), body_(*node_.attr_graph("body")), b_(c.w), inputs_(node_.inputs) {
    if (node_.is("Scan")) {
      c.check(node_.opset >= 9, "a Scan of opset 8 has none: write the model in a newer opset");
      const ScanForm form(node_);
      states_ = form.states;
      items_ = form.scans;
      in_axes_ = form.in_axes;
      in_back_ = form.in_back;
      out_axes_ = form.out_axes;
      out_back_ = form.out_back;
    } else {
      loop_ = 1;
      states_ = node_.num_own_inputs() - 2;
      out_axes_.assign(body_.outputs().size() - 1 - index(states_), 0);
      out_back_ = out_axes_;
    }
    check_repeatable(c, body_);
  }

  void run() {
    find_types();
    name_sequences();
    write_forward();
    seed();
    finish();
  }

 private:
  static size_t index(int i) { return static_cast<size_t>(i); }
  int x_of_state(int k) const { return loop_ ? 2 + k : k; }
  int x_of_item(int m) const { return states_ + m; }
  Value* state_in(int k) const { return body_.inputs()[index(x_of_state(k))]; }
  Value* state_out(int k) const { return body_.outputs()[index(loop_ + k)]; }
  int stacked() const { return static_cast<int>(out_axes_.size()); }

  // What the body sees, and which of its states vary and matter.
  void find_types() {
    for (int i = 0; i < states_ + items_; ++i)
      c_.check(inputs_.size() > index(x_of_state(i)) && inputs_[index(x_of_state(i))], "input ", x_of_state(i), " is required");
    std::vector<const ValueInfo*> in;
    std::vector<ValueInfo> out(node_.outputs.size());
    for (const Value* v : inputs_) in.push_back(v ? &c_.w.info(v) : nullptr);
    own_ = step_inputs(InferContext(node_, in, out, c_.w.graph().symbols()));
    std::vector<bool> wanted;
    for (size_t i = 0; i < inputs_.size(); ++i) wanted.push_back(c_.wants(static_cast<int>(i)));
    const std::vector<bool> at = reached_in_body(node_, body_, wanted);
    std::vector<bool> matters(body_.outputs().size(), false);  // outputs that the result depends on
    for (int k = 0; k < states_; ++k) varies_.push_back(at[index(x_of_state(k))] && differentiable(own_[index(x_of_state(k))].type));
    for (int p = 0; p < stacked(); ++p) matters[index(loop_ + states_ + p)] = c_.dy(states_ + p);
    for (int k = 0; k < states_; ++k) matters[index(loop_ + k)] = c_.dy(k);
    for (bool more = true; more;) {
      more = false;
      for (int k = 0; k < states_; ++k) {
        if (matters[index(loop_ + k)] || !varies_[index(k)]) continue;
        std::vector<bool> from(body_.inputs().size(), false);
        from[index(x_of_state(k))] = true;
        const std::vector<bool> to = reached(body_, from);
        for (size_t o = 0; o < to.size(); ++o)
          if (to[o] && matters[o]) matters[index(loop_ + k)] = more = true;
      }
    }
    for (int k = 0; k < states_; ++k) carried_.push_back(varies_[index(k)] && matters[index(loop_ + k)]);
  }

  // A state whose shape changes from step to step cannot be stacked: the forward pass keeps a sequence of it.
  bool stacks(int k) const {
    if (!loop_) return true;
    const Type &at = own_[index(x_of_state(k))].type, &first = c_.w.type(inputs_[index(x_of_state(k))]);
    return at.kind == Kind::kTensor && at.ranked && first.ranked && at.shape == first.shape;
  }

  void name_sequences() {
    const Type number = Type::tensor(DType::kInt64, Shape{});
    if (loop_) number_ = b_.w.input("step", number);
    for (int k = 0; k < states_; ++k) {
      const Type& t = own_[index(x_of_state(k))].type;
      const std::string name = state_in(k)->name;
      Saved s;
      if (!stacks(k) && t.kind == Kind::kTensor) {
        Type all = Type::tensor(t.dtype);
        all.kind = Kind::kSequence;
        s.source = b_.capture(all, cat(name, " of all steps"));
        s.value = b_.w.op("SequenceAt", {s.source, number_});
        b_.w.declare(s.value, t);
      } else {
        s.source = s.value = b_.w.input(name, t);
      }
      saved_.push_back(s);
    }
    for (int m = 0; m < items_; ++m) item_.push_back(b_.w.input(body_.inputs()[index(states_ + m)]->name, own_[index(states_ + m)].type));
  }

  void write_forward() {
    std::vector<Value*> in;
    if (loop_) {
      in.push_back(number_);
      in.push_back(b_.w.constant(Tensor::of<bool>({}, {true})));
    }
    for (const Saved& s : saved_) in.push_back(s.value);
    in.insert(in.end(), item_.begin(), item_.end());
    const int at = node_.captures_begin(&body_);
    for (int i = 0; i < body_.captured; ++i) {
      Value* outer = inputs_[index(at + i)];
      in.push_back(b_.capture(outer, c_.wants(at + i)));
      if (c_.wants(at + i) && std::none_of(captured_.begin(), captured_.end(), [&](const Captured& other) { return other.inner == in.back(); }))
        captured_.push_back({at + i, in.back()});
    }
    outputs_ = b_.w.append(body_, in);
  }

  void seed() {
    std::vector<GradientSeed> seeds;
    for (int k = 0; k < states_; ++k) {
      d_state_.push_back(nullptr);
      if (!carried_[index(k)]) continue;
      d_state_.back() = b_.w.input(cat("gradient of ", state_in(k)->name), own_[index(x_of_state(k))].type);
      seeds.push_back({outputs_[index(loop_ + k)], d_state_.back()});
    }
    for (int p = 0; p < stacked(); ++p) {
      d_item_.push_back(nullptr);
      if (!c_.dy(states_ + p)) continue;
      Value* y = outputs_[index(loop_ + states_ + p)];
      d_item_.back() = b_.w.input(cat("gradient of ", y->name), b_.w.type(y));
      seeds.push_back({y, d_item_.back()});
    }
    std::vector<Value*> wrt;
    for (int k = 0; k < states_; ++k) if (varies_[index(k)]) wrt.push_back(saved_[index(k)].value);
    for (int m = 0; m < items_; ++m) if (c_.wants(x_of_item(m))) wrt.push_back(item_[index(m)]);
    for (const Captured& w : captured_) wrt.push_back(w.inner);
    GradientOptions options;
    options.strict = false;
    options.way = c_.way + ", in its body: ";
    const std::vector<Value*> g = gradients(b_.w, seeds, wrt, options);
    for (size_t i = 0; i < wrt.size(); ++i) gradient_[wrt[i]] = g[i];
  }

  Value* gradient_of(Value* v) const {
    const auto it = gradient_.find(v);
    return it == gradient_.end() ? nullptr : it->second;
  }

  void finish() {
    std::vector<Value*> own, outputs, start, answers;  // of the body; of the node
    std::vector<int> to;                               // which input of the forward node an output is the gradient of
    for (int k = 0; k < states_; ++k) {
      if (!carried_[index(k)]) continue;
      own.push_back(d_state_[index(k)]);
      Value* g = gradient_of(saved_[index(k)].value);
      outputs.push_back(g ? g : b_.w.zeros_like(saved_[index(k)].value));
      start.push_back(c_.dy(k) ? c_.dy(k) : c_.w.zeros_like(c_.made_output(k)));
      to.push_back(x_of_state(k));
    }
    for (const Captured& v : captured_) {
      Value* g = gradient_of(v.inner);
      if (!g) continue;
      own.push_back(b_.w.input("", b_.w.type(v.inner)));
      outputs.push_back(b_.w.sum(own.back(), g));
      start.push_back(c_.w.zeros_like(inputs_[index(v.input)]));
      to.push_back(v.input);
    }
    const size_t carried = own.size();
    std::vector<int64_t> out_axes, out_back;
    for (int m = 0; m < items_; ++m) {
      Value* g = gradient_of(item_[index(m)]);
      if (!g) continue;
      outputs.push_back(g);
      out_axes.push_back(in_axes_[index(m)]);
      out_back.push_back(!in_back_[index(m)]);
      to.push_back(x_of_item(m));
    }
    if (outputs.empty()) return;
    // A dry run of what is dead: only states that the gradient reads are saved.
    for (Value* v : outputs) b_.w.graph().add_output(v);
    b_.w.graph().erase_dead();
    b_.w.graph().clear_outputs();
    std::vector<Value*> sequences;
    std::vector<int64_t> in_axes, in_back;
    const auto scan = [&](Value* inner, Value* outer, int64_t axis, int64_t back) {
      own.push_back(inner);
      sequences.push_back(outer);
      in_axes.push_back(axis);
      in_back.push_back(back);
    };
    const auto is_output = [&](const Value* v) { return std::find(outputs.begin(), outputs.end(), v) != outputs.end(); };
    const auto used = [&](const Value* v) { return !v->uses.empty() || is_output(v); };
    std::vector<int> keep;  // states
    for (int k = 0; k < states_; ++k) if (used(saved_[index(k)].source)) keep.push_back(k);
    if (loop_) scan(number_, give(body_.inputs()[0]), 0, kBackwards);
    for (int m = 0; m < items_; ++m)
      if (used(item_[index(m)]) || m == 0) scan(item_[index(m)], inputs_[index(x_of_item(m))], in_axes_[index(m)], !in_back_[index(m)]);
    for (int p = 0; p < static_cast<int>(d_item_.size()); ++p)
      if (d_item_[index(p)] && used(d_item_[index(p)]))
        scan(d_item_[index(p)], c_.dy(states_ + p), out_axes_[index(p)], !out_back_[index(p)]);
    for (int k : keep)
      if (saved_[index(k)].source == saved_[index(k)].value) scan(saved_[index(k)].value, saved_stack(k), 0, kBackwards);
    for (int k : keep)
      if (saved_[index(k)].source != saved_[index(k)].value) b_.bind(saved_[index(k)].source, saved_sequence(k));
    AttributeList attributes{{"num_scan_inputs", static_cast<int64_t>(sequences.size())}, {"scan_input_axes", in_axes},
                             {"scan_input_directions", in_back}};
    if (!out_axes.empty()) {
      attributes.emplace_back("scan_output_axes", out_axes);
      attributes.emplace_back("scan_output_directions", out_back);
    }
    attributes.emplace_back("body", Attribute(b_.finish(own, outputs)));
    start.insert(start.end(), sequences.begin(), sequences.end());
    BodyWriter* const bodies[] = {&b_};
    answers = add_control_flow(c_.w, "Scan", std::move(start), static_cast<int>(outputs.size()), std::move(attributes), bodies);
    for (size_t i = 0; i < to.size(); ++i) {
      Value* x = inputs_[index(to[i])];
      c_.set(to[i], i < carried && c_.w.type(x).kind != Kind::kTensor ? answers[i] : c_.w.reshape_like(answers[i], x));
    }
  }

  // What the forward node's body knows as `v`, stacked over the steps.
  Value* give(Value* v) {
    const size_t first = index(loop_ + states_);
    size_t o = first;
    while (o < body_.outputs().size() && !(body_.outputs()[o] == v && axis(o - first) == 0)) ++o;
    if (o == body_.outputs().size()) {
      body_.add_output(v);
      for (const char* key : {"scan_output_axes", "scan_output_directions"})
        if (const auto* list = node_.find_ints(key); list && !list->empty()) {
          std::vector<int64_t> longer = *list;
          longer.push_back(0);
          node_.set(key, std::move(longer));
        }
      out_axes_.push_back(0);
      out_back_.push_back(0);
    }
    const int at = static_cast<int>(o) - loop_;
    return node_.output(at) ? node_.output(at) : c_.w.add_output(&node_, at);
  }
  int64_t axis(size_t p) const { return out_axes_[p] == 0 ? out_back_[p] : 1; }

  Value* saved_stack(int k) {
    c_.check(own_[index(x_of_state(k))].type.kind == Kind::kTensor, "the state \"", state_in(k)->name, "\" is a ",
             own_[index(x_of_state(k))].type.str(), " whose values at all steps would be needed: only tensors can be kept");
    return give(state_in(k));
  }

  // One state more, to which each step appends the state `k` that it begins with.
  Value* saved_sequence(int k) {
    const DType t = own_[index(x_of_state(k))].type.dtype;
    Graph& g = c_.w.graph();
    Value* empty = g.add_value("");
    Node* maker = g.add_node("SequenceEmpty", "", 21, {}, {empty}, &node_);
    maker->set("dtype", static_cast<int64_t>(t));
    c_.w.infer(maker);
    Value* const before = state_in(k);
    std::vector<Value*> in = body_.inputs();
    Value* all = body_.add_input("", empty->type);
    in.insert(in.begin() + 2 + states_, all);
    body_.order_inputs(std::move(in));
    Value* longer = body_.add_value("", empty->type);
    body_.add_node("SequenceInsert", "", 21, {all, before}, {longer});
    std::vector<Value*> out = body_.outputs();
    out.insert(out.begin() + 1 + states_, longer);
    body_.clear_outputs();
    for (Value* v : out) body_.add_output(v);
    g.insert_input(&node_, 2 + states_, empty);
    if (node_.own_inputs >= 0) ++node_.own_inputs;
    if (static_cast<int>(node_.outputs.size()) < states_) node_.outputs.resize(index(states_));
    Value* kept = g.add_value("");
    g.insert_output(&node_, states_, kept);
    ++states_;
    c_.w.infer(&node_);
    return kept;
  }

  struct Saved { Value* source = nullptr; Value* value = nullptr; };  // what holds all steps' or this one's; this one's
  struct Captured { int input; Value* inner; };

  GradContext& c_;
  Node& node_;
  Graph& body_;
  BodyWriter b_;
  const std::vector<Value*> inputs_;  // of the node, as the rule found them
  int loop_ = 0, states_ = 0, items_ = 0;
  std::vector<int64_t> in_axes_, in_back_, out_axes_, out_back_;
  std::vector<ValueInfo> own_;
  std::vector<bool> varies_, carried_;
  Value* number_ = nullptr;
  std::vector<Saved> saved_;
  std::vector<Value*> item_, outputs_, d_state_, d_item_;
  std::vector<Captured> captured_;
  std::map<const Value*, Value*> gradient_;
};

void grad(GradContext& c) { Steps(c).run(); }

const GradRegistration grads({{"Scan", "", grad}, {"Loop", "", grad}});

}  // namespace
}  // namespace tiercel

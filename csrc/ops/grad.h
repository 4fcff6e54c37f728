// Gradient rules: what stands beside an operator's forward so that autodiff can go backwards through it.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ops/graph_writer.h"
#include "ops/registry.h"

namespace tiercel {

// What a rule sees of a node: its operands, the gradients of its outputs, and a writer for the nodes that it adds.
class GradContext {
 public:
  GradContext(Node& node, GraphWriter& writer, std::span<Value* const> dy, std::span<const bool> wanted)
      : node(node), w(writer), dx(node.inputs.size()), node_(node), dy_(dy), wanted_(wanted) {}
  const Node& node;
  GraphWriter& w;
  std::vector<Value*> dx;  // the answer, by input; null: no gradient

  std::string way;         // how the gradient's errors name the way to this node
  Node& forward() const { return node_; }  // for rules that make it give more; inputs keep their numbers in `dx` and `set`

  Value* x(int i) const { return node.input(i); }
  Value* y(int i = 0) const { return node.output(i); }
  bool has(int i) const { return x(i) != nullptr; }
  Value* dy(int i = 0) const { return i < static_cast<int>(dy_.size()) ? dy_[static_cast<size_t>(i)] : nullptr; }  // null: none
  // Output i, which the forward is made to give when it was left out.
  Value* made_output(int i) const { return y(i) ? y(i) : w.add_output(&node_, i); }
  // Is the gradient of input i asked for?
  bool wants(int i) const { return i < static_cast<int>(dx.size()) && wanted_[static_cast<size_t>(i)]; }
  void set(int i, Value* v) { if (wants(i)) dx[static_cast<size_t>(i)] = v; }
  // The same, of an operand that was broadcast.
  void set_summed(int i, Value* v) { if (wants(i)) dx[static_cast<size_t>(i)] = w.sum_to(v, x(i)); }
  // The rank of a value; an error when it is not known.
  int rank(Value* v) const;
  // The known elements of input i, which should be a small constant; an error (what: "axes") when they are not known.
  std::vector<int64_t> ints(int i, const char* what) const;
  int axis(int64_t a, int rank) const;
  template <class... A> [[noreturn]] void fail(const A&... a) const { raise(cat(a...)); }
  template <class... A> void check(bool ok, const A&... a) const { if (!ok) raise(cat(a...)); }

 private:
  [[noreturn]] void raise(const std::string& message) const;
  Node& node_;
  std::span<Value* const> dy_;
  std::span<const bool> wanted_;
};

using GradFn = void (*)(GradContext&);

// A null function: the output does not vary with the inputs where it has a derivative at all (Shape, Floor, Less): the gradient is zero.
struct GradRow {
  std::string_view name;
  std::string_view domain;
  GradFn grad;
};

// static const GradRegistration grads({{"MatMul", "", grad_matmul}, ...});  beside the operator's OpRegistration
class GradRegistration {
 public:
  GradRegistration(std::initializer_list<GradRow> rows);
};

// Of operators that are written as standard ones before gradients are taken (passes/expand.h): called where that could not be done.
void grad_rewritten(GradContext& c);

const GradRow* find_grad(std::string_view name, std::string_view domain);  // null: there is no rule
std::vector<const GradRow*> all_grads();

}  // namespace tiercel

// What the operators with bodies share (If, Loop, Scan, SequenceMap).
#pragma once
#include <vector>

#include "ops/infer_graph.h"
#include "ops/movement.h"

namespace tiercel {

// The body in attribute `key`, with `inputs` inputs of its own and at least `outputs` outputs; any number when negative.
Graph& body_of(const Node& node, const char* key, int inputs, int outputs);

// `own`, followed by the outer values that the body captures. Thread 0's business.
std::vector<RuntimeValue> with_captures(const EvalContext& ctx, const Graph& body, std::vector<RuntimeValue> own);

// Infos of a body's outputs for inputs of these types (captures come from ctx). Where the body cannot work with them (another
// branch will run, or an error that a run will report), the types it declares.
std::vector<ValueInfo> infer_body(const InferContext& ctx, Graph& body, std::vector<ValueInfo> own);

// What a value may be that is either of two: equal extents survive, others are fresh. `undecided`, when given, gathers the
// symbols made here: an extent that is one of them stays itself.
Type either(const InferContext& ctx, const Type& a, const Type& b, std::vector<Dim>* undecided = nullptr);

// Stacks equal tensors along a new axis as they come.
class Stack {
 public:
  Stack() = default;
  // `axis` in the result; `total`: how many will come (negative: unknown, then axis should be 0); `reverse`: last first.
  Stack(int axis, int64_t total, bool reverse) : axis_(axis), total_(total), reverse_(reverse) {}
  void add(const EvalContext& ctx, const Tensor& item);
  bool empty() const { return count_ == 0; }
  // The result; `empty` gives dtype and shape where nothing came (unknown extents count as 0).
  Tensor take(const Type& empty);

 private:
  void reserve(int64_t items);
  int axis_ = 0;
  int64_t total_ = -1, count_ = 0, capacity_ = 0;
  bool reverse_ = false;
  Shape item_;
  Tensor buffer_;
};

// [outer, extent, inner] of `t` at index i of `axis`, without that axis: a view where it is contiguous, else a copy.
Tensor select(const Tensor& t, int axis, int64_t i);
// Part [begin, end) of `axis`, copied.
Tensor part(const Tensor& t, int axis, int64_t begin, int64_t end);
// A one-element tensor as a bool or an integer.
bool read_bool(const EvalContext& ctx, const RuntimeValue& v, const char* what);
int64_t read_int(const EvalContext& ctx, const RuntimeValue& v, const char* what);

}  // namespace tiercel

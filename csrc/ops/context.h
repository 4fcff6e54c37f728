// What an operator sees: of types and shapes at load (InferContext), of known shapes when a Program is built
// (PrepareContext), and of memory while it runs (Args; EvalContext for operators whose results have data-dependent shapes).
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/tensor.h"
#include "base/worker.h"
#include "graph/graph.h"
#include "ops/value.h"

namespace tiercel {

// ---- Inference: types, shapes and small known values out of the same -------------------------------------------------

// A value as inference knows it. `ints`: the elements of an integer or bool tensor of rank 0 or 1 (at most kMaxKnownInts)
// that are known; an element may be a symbol. So Shape -> Gather -> Concat -> Reshape costs nothing at run time.
inline constexpr int64_t kMaxKnownInts = 256;
struct ValueInfo {
  Type type;
  const Tensor* constant = nullptr;         // all of the data, when known
  std::optional<std::vector<Dim>> ints;
  bool known_ints() const;                  // every element is a number
};

class InferContext {
 public:
  InferContext(const Node& node, std::span<const ValueInfo* const> in, std::span<ValueInfo> out, SymbolTable& symbols)
      : node(node), in_(in), out_(out), symbols_(symbols) {}
  const Node& node;

  int num_inputs() const { return static_cast<int>(in_.size()); }
  int num_outputs() const { return static_cast<int>(out_.size()); }
  bool has_input(int i) const { return i < num_inputs() && in_[i]; }
  bool has_output(int i) const { return i < num_outputs() && node.outputs[i]; }
  const ValueInfo& input(int i) const;                 // fails with a clear message when it is left out
  const Type& type(int i) const { return input(i).type; }
  DType dtype(int i) const { return type(i).dtype; }
  bool ranked(int i) const { return type(i).ranked; }
  const Shape& shape(int i) const { return type(i).shape; }  // only when ranked
  const Tensor* constant(int i) const { return has_input(i) ? in_[i]->constant : nullptr; }
  // The input's known elements: a constant's or a carried value's; nullopt when not known at all. Elements may be symbols.
  std::optional<std::vector<Dim>> ints(int i) const;

  void set_output(int i, Type type);                   // no effect when the output is left out
  void set_output(int i, DType dtype, const Shape& shape) { set_output(i, Type::tensor(dtype, shape)); }
  void set_ints(int i, std::vector<Dim> values);       // dropped when longer than kMaxKnownInts
  ValueInfo& output(int i) { return out_[i]; }
  Dim fresh() const { return symbols_.fresh(); }
  SymbolTable& symbols() const { return symbols_; }

  // Errors name the operator, the node, its tensors and what was found; `message` says what was expected.
  template <class... A> [[noreturn]] void fail(const A&... a) const { raise(cat(a...)); }
  template <class... A> void check(bool ok, const A&... a) const { if (!ok) raise(cat(a...)); }
  // axis normalised to [0, rank), or an error.
  int axis(int64_t a, int rank) const;

 private:
  [[noreturn]] void raise(const std::string& message) const;
  std::span<const ValueInfo* const> in_;
  std::span<ValueInfo> out_;
  SymbolTable& symbols_;
};

// Two extents that must be equal: the known one, else the first. Fails (through ctx) when both are known and differ.
Dim unify(const InferContext& ctx, Dim a, Dim b, const char* what);
// ONNX multidirectional broadcasting; symbols broadcast to themselves, or to a fresh symbol when undecided.
Shape broadcast_shapes(const InferContext& ctx, const Shape& a, const Shape& b);

// ---- Running ---------------------------------------------------------------------------------------------------------

// Memory of one instruction: pointers in the order of the node's inputs and outputs, null for those left out (trailing inputs
// too). They may be the caller's memory, aligned to the element alone: use unaligned loads and stores.
class Args {
 public:
  Args(void* const* table, const int32_t* slots, int num_inputs, void* workspace)
      : table_(table), slots_(slots), num_inputs_(num_inputs), workspace_(workspace) {}
  template <class T = void> const T* in(int i) const { return i < num_inputs_ ? static_cast<const T*>(at(i)) : nullptr; }
  template <class T = void> T* out(int i) const { return static_cast<T*>(at(num_inputs_ + i)); }
  template <class T = void> T* workspace() const { return static_cast<T*>(workspace_); }  // 64-byte aligned

 private:
  void* at(int i) const { return slots_[i] < 0 ? nullptr : table_[slots_[i]]; }
  void* const* table_;
  const int32_t* slots_;
  int num_inputs_;
  void* workspace_;
};

// An operator prepared for one set of shapes: immutable, shared by concurrent runs. All threads of the team call run() with the
// same Args; it returns without a barrier at its end (the Program places those).
class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual void run(const Args& args, Worker& worker) const = 0;
};

template <class F>
class LambdaKernel final : public Kernel {
 public:
  explicit LambdaKernel(F f) : f_(std::move(f)) {}
  void run(const Args& args, Worker& worker) const override { f_(args, worker); }

 private:
  F f_;
};

// Packed constants of a session, shared by its Programs.
class PackCache {
 public:
  virtual ~PackCache() = default;
  // The packing `key` of the constant `weight`, made by `pack` the first time. Thread-safe.
  virtual Buffer get(const Value* weight, const std::string& key, const std::function<Buffer()>& pack) = 0;
  // f(begin, end) on chunks that cover [0, n), on all threads where there are some to spare.
  virtual void split(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& f);
};

// ---- Preparation: all shapes known -------------------------------------------------------------------------------------

struct Cost {
  double flops = 0, bytes = 0;
};

class PrepareContext {
 public:
  PrepareContext(const Node& node, std::span<const ValueInfo* const> in, std::span<const ValueInfo> out, PackCache& packs,
                 int threads = 1)
      : node(node), in_(in), out_(out), packs_(packs), threads_(threads) {}
  const Node& node;
  // The most threads that a run will have: for sizing per-thread scratch, never for splitting work.
  int threads() const { return threads_; }

  int num_inputs() const { return static_cast<int>(in_.size()); }
  int num_outputs() const { return static_cast<int>(out_.size()); }
  bool has_input(int i) const { return i < num_inputs() && in_[i]; }
  bool has_output(int i) const { return i < num_outputs() && node.outputs[i]; }
  DType dtype(int i) const { return in_[i]->type.dtype; }
  const Shape& shape(int i) const { return in_[i]->type.shape; }
  Layout layout(int i) const { return in_[i]->type.layout; }
  DType out_dtype(int i) const { return out_[i].type.dtype; }
  const Shape& out_shape(int i) const { return out_[i].type.shape; }
  Layout out_layout(int i) const { return out_[i].type.layout; }
  const Tensor* constant(int i) const { return has_input(i) ? in_[i]->constant : nullptr; }
  std::optional<std::vector<Dim>> ints(int i) const;  // as InferContext::ints
  // The constant input `i` in the packing `key` (a name that says everything the layout depends on, such as
  // "gemm_b:n32"), made by `make` once a session. Keep the Buffer in the kernel.
  Buffer pack(int i, const std::string& key, const std::function<Buffer(const Tensor&)>& make) const;
  // For `make`: f(begin, end) on chunks of at most `grain` that cover [0, n), on all threads.
  void split(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& f) const { packs_.split(n, grain, f); }

  // The answer: exactly one of alias(0, i) for every output, or a kernel.
  void kernel(std::unique_ptr<Kernel> k) { kernel_ = std::move(k); }
  template <class F> void run(F f) { kernel_ = std::make_unique<LambdaKernel<F>>(std::move(f)); }
  // Output `out` is input `in` under another shape: the same memory, no instruction.
  void alias(int out, int in) { aliases_.push_back({out, in}); }
  // Output `out` may be written over input `in` (same bytes; element i of the output depends on element i of it alone).
  void inplace(int out, int in) { inplace_.push_back({out, in}); }
  // Output `out` is input `in` after this instruction: the caller may give both the same memory. So every other reader of the input must stand
  // before it (checked when the Program is built); element i of the output is written after element i of the input was read.
  void updates(int out, int in) { updates_.push_back({out, in}); }
  // Scratch memory for the whole instruction, not per thread.
  void workspace(int64_t bytes) { workspace_ = bytes; }
  // Arithmetic and memory traffic: decides whether the team is worth waking; shown by the profiler. Without it: output bytes.
  void cost(double flops, double bytes) { cost_ = {flops, bytes}; }
  // Only one thread runs it, whatever the cost (kernels that do not split their work).
  void serial() { serial_ = true; }
  // Constant input `i` is not read at run time, and any later Program asks for the same packings of it that exist by
  // now: the session may drop the original from memory.
  void drops(int i) { dropped_.push_back(i); }

  // The kernel reads input `i` at any alignment (it copies bytes): a weight inside a file is then read in place.
  void unaligned(int i) { unaligned_.push_back(i); }

  template <class... A> [[noreturn]] void fail(const A&... a) const { raise(cat(a...)); }

  std::unique_ptr<Kernel> kernel_;
  std::vector<std::pair<int, int>> aliases_, inplace_, updates_;
  std::vector<int> dropped_, unaligned_;
  int64_t workspace_ = 0;
  std::optional<Cost> cost_;
  bool serial_ = false;

 private:
  [[noreturn]] void raise(const std::string& message) const;
  std::span<const ValueInfo* const> in_;
  std::span<const ValueInfo> out_;
  PackCache& packs_;
  int threads_;
};

// ---- Evaluation: results whose shapes the data decide; strings, sequences, optionals -----------------------------------

// Runs the bodies of control flow; implemented by the runtime.
class BodyRunner {
 public:
  virtual ~BodyRunner() = default;
  // Runs a body on `inputs` (own, then captured) and returns its outputs. Collective: every thread of the team calls it; only
  // thread 0's inputs count and only thread 0 gets outputs.
  virtual std::vector<RuntimeValue> run(const Graph& body, std::vector<RuntimeValue> inputs, Worker& worker) = 0;
};

class EvalContext {
 public:
  EvalContext(const Node& node, std::vector<RuntimeValue> in, int num_outputs, BodyRunner* bodies)
      : node(node), in_(std::move(in)), out_(num_outputs), bodies_(bodies) {}
  const Node& node;
  int num_inputs() const { return static_cast<int>(in_.size()); }
  int num_outputs() const { return static_cast<int>(out_.size()); }
  bool has_input(int i) const { return i < num_inputs() && !in_[i].empty(); }
  bool has_output(int i) const { return i < num_outputs() && node.outputs[i]; }
  const RuntimeValue& value(int i) const { return in_[i]; }
  const Tensor& tensor(int i) const;  // fails clearly when it is not a tensor
  std::vector<int64_t> ints(int i) const { return tensor(i).ints(); }
  // Inputs may be views of memory that is reused after this instruction (tensors without an owner): those are copied here.
  void set(int i, RuntimeValue v);
  BodyRunner& bodies() const { if (!bodies_) raise("bodies run in a session alone"); return *bodies_; }
  std::vector<RuntimeValue>& outputs() { return out_; }
  template <class... A> [[noreturn]] void fail(const A&... a) const { raise(cat(a...)); }
  template <class... A> void check(bool ok, const A&... a) const { if (!ok) raise(cat(a...)); }

 private:
  [[noreturn]] void raise(const std::string& message) const;
  std::vector<RuntimeValue> in_, out_;
  BodyRunner* bodies_;
};

}  // namespace tiercel

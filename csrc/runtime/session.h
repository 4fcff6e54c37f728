// Session: a loaded model, ready to run from any number of threads at once.
#pragma once
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graph/graph.h"
#include "ops/value.h"

namespace tiercel {

struct SessionOptions {
  int threads = 0;                       // of one run; 0: all available processors
  int optimization_level = 99;           // 0 none, 1 basic (folding, elimination), 2 extended (fusion), 99 all (layout)
  std::vector<std::string> disabled_passes;
  std::vector<std::pair<std::string, int64_t>> dimension_overrides;  // symbolic dimension -> its only extent
  std::string optimized_model_path;      // where the optimised graph is written, when not empty
  bool profile = false;                  // record the time of every instruction
  int program_cache = 256;               // most Programs kept for recent sets of input shapes; fewer where they are large
};

struct IoInfo {
  std::string name;
  Type type;  // extents may be symbols of Session::symbols()
};

// Stops a run from another thread; shared by the runs that are given it.
struct RunControl {
  std::atomic<bool> terminate{false};
};

// One instruction of a profiled run, in microseconds since the session was made.
struct ProfileEvent {
  std::string node, op, domain, kernel;
  double begin_us = 0, duration_us = 0, flops = 0, bytes = 0;
  int thread = 0, run = 0;
  std::vector<Shape> inputs, outputs;
};

// A model whose weights change between runs: a training's.
class LiveModel {
 public:
  virtual ~LiveModel() = default;
  virtual uint64_t version() const = 0;  // another number after each change
  virtual const Model& given() const = 0;  // its graph as it was read, for what it says of itself; weights may be missing
  // A graph of its own with the weights of now, and their version. What has not changed since the last call is the same memory as then; where that
  // is all, nothing is given, unless `always`. One call at a time.
  virtual std::optional<Model> model(uint64_t& version, bool always) = 0;
};

class Program;
class SessionImpl;

class Session {
 public:
  explicit Session(const std::string& path, const SessionOptions& options = {});
  // The bytes are not copied: they must stay alive as long as `owner`, which the session keeps. External data is looked for in
  // `folder`; "" means that there must be none.
  Session(const void* data, size_t size, Buffer owner, const std::string& folder = "", const SessionOptions& options = {});
  Session(Model model, const SessionOptions& options = {});
  // A run has the weights of the time when it begins: it takes over what has changed since the last one. Nothing else is made again.
  explicit Session(std::shared_ptr<LiveModel> live, const SessionOptions& options = {});
  ~Session();

  const Model& model() const;            // as optimised (as given, where weights are live); metadata as read
  LiveModel* live() const;               // or null
  const SymbolTable& symbols() const;
  const SessionOptions& options() const;
  const std::vector<IoInfo>& inputs() const;   // without initializers
  const std::vector<IoInfo>& overridable() const;  // initializers that a run may replace: Model::overridable
  // The model with some of those as inputs, in the place where the file has them; a name that is none of theirs is an Error(kInvalidArgument). What
  // is recorded of its runs is in this session's profile.
  std::unique_ptr<Session> with_inputs(const std::vector<std::string>& initializers);
  const std::vector<IoInfo>& outputs() const;
  int input_index(std::string_view name) const;   // -1: none of that name
  int output_index(std::string_view name) const;

  // Output types for inputs of these shapes; an output whose shape the data decide has ranked == false or symbols.
  // Also checks the shapes: an Error(kInvalidArgument) names the input, what was expected and what came.
  void output_types(std::span<const Shape> input_shapes, std::span<Type> outputs);

  // Runs the model on inputs (in the order of inputs(); tensors are read in place). `outputs` stands for outputs(): an empty
  // value is filled with memory that the engine allocates, a Tensor names the caller's memory, written in place (its dtype
  // and shape must be the result's). `wanted`: which outputs to give back (all when empty).
  // Throws Error; the session stays usable. Thread-safe.
  void run(std::span<const RuntimeValue> inputs, std::span<RuntimeValue> outputs, std::span<const bool> wanted = {},
           RunControl* control = nullptr);

  // Profile so far (options.profile), and forget it.
  std::vector<ProfileEvent> take_profile();

  struct Memory {
    int64_t weights = 0;      // bytes of constants as read or folded
    int64_t packed = 0;       // bytes of packed constants
    int64_t arena = 0;        // bytes of the largest Program's intermediates
    int64_t live_bound = 0;   // bytes live at its worst instruction: no plan can be below
    int64_t program_bytes = 0;  // held by Programs of recent shapes
    int programs = 0, instructions = 0, barriers = 0;
    int symbols = 0;          // of the graph: the same whatever shapes have run
  };
  Memory memory() const;

 private:
  std::unique_ptr<SessionImpl> impl_;
};

// What the model asks for that this engine does not have: "Op (domain, opset N): nodes a, b" a line. Empty: nothing.
std::vector<std::string> unsupported(const Model& model);

}  // namespace tiercel

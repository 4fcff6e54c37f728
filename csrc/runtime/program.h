// Program: the instructions of one graph for one set of input shapes. Immutable once built; concurrent runs share it, each
// with a Frame of its own.
#pragma once
#include <atomic>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "graph/graph.h"
#include "ops/evaluate.h"
#include "ops/registry.h"
#include "runtime/spare.h"

namespace tiercel {

// What is known of an input when a Program is built.
struct InputKey {
  Kind kind = Kind::kTensor;
  bool empty = false;  // an optional input that was left out
  DType dtype = DType::kUndefined;
  Shape shape;
  bool operator==(const InputKey& o) const {
    return kind == o.kind && empty == o.empty && dtype == o.dtype && shape == o.shape;
  }
};
InputKey key_of(const RuntimeValue& v);
size_t hash_of(std::span<const InputKey> keys);

// Where a value's memory comes from when the Program runs.
enum class Storage : uint8_t {
  kNone,      // never materialised
  kConstant,  // fixed pointer
  kInput,     // the caller's memory, index = graph input
  kOutput,    // the caller's or freshly allocated memory, index = graph output
  kArena,     // offset in the frame's arena
  kDynamic,   // a RuntimeValue in the frame, made as the Program runs
};

struct Slot {
  Storage storage = Storage::kNone;
  int index = -1;      // of the input or output
  int64_t offset = 0;  // in the arena
  Type type;           // shape known unless kDynamic
  const Tensor* constant = nullptr;  // the graph's, or one of Program::folded
  bool unaligned = false;  // every reader takes the constant at any alignment
  bool graph_input = false;
};

// What an instruction of this cost takes on one thread: arithmetic at a modest rate, or traffic within the caches.
inline double estimate_us(const Cost& c) { return std::max(c.flops / 60e3, c.bytes / 40e3); }

enum class Mode : uint8_t {
  kKernel,  // prepared: shapes known
  kLate,    // shapes become known as it runs: inferred and prepared then
  kEval,    // the operator's eval()
};

struct Instruction {
  Mode mode = Mode::kKernel;
  bool parallel = false;        // all threads take part; else thread 0 alone
  bool barrier_before = false;
  bool updates = false;         // writes the memory of an input (PrepareContext::updates)
  int num_inputs = 0, num_outputs = 0;
  int first_slot = 0;           // in Program::operands
  int64_t workspace = -1;       // arena offset, -1: none
  int state = -1;               // kLate, kEval: index of the frame's state
  const Kernel* kernel = nullptr;
  const Node* node = nullptr;
  const OpRow* row = nullptr;
  Cost cost;
  std::vector<int> release;     // dynamic slots that nothing reads after this instruction
};

class Program {
 public:
  std::shared_ptr<const Graph> graph;
  std::vector<InputKey> keys;
  std::vector<Slot> slots;             // of the values that exist as it runs
  std::vector<Tensor> folded;          // constants of these shapes alone that are read as it runs
  std::vector<int32_t> operands;       // slots of all instructions, inputs then outputs; -1: left out
  std::vector<Instruction> instructions;
  std::vector<std::unique_ptr<Kernel>> kernels;
  struct Output {
    int slot;           // of the value
    bool copy = false;  // its memory belongs to something else (an input, a constant, another output): copied at the end
  };
  std::vector<Output> outputs;
  std::vector<std::pair<int, int>> input_slots, output_slots;  // slot, index of the graph's input or output whose memory it is
  int64_t arena_bytes = 0, live_bound = 0;
  int num_states = 0, barriers = 0;
  bool dynamic = false;                // is any slot kDynamic?
  std::vector<const Value*> droppable; // constants whose data no kernel reads
  bool parallel = false;               // is there anything for a team to do?
  int64_t held_bytes = 0;              // about what the Program and a Frame of it take
  double estimated_us = 0;             // on one thread, of the instructions whose shapes are known
  bool open_cost = false;              // others decide their cost as they run: bodies, shapes out of data
  mutable std::atomic<float> alone_us{0};  // of runs on one thread, where the cost is open
  mutable std::atomic<uint32_t> team_runs{0};
};

// What a build needs from the session.
struct BuildOptions {
  int threads = 1;
  PackCache* packs = nullptr;
};
// The memory of one build at a time of one graph, and what is the same for all of them: constants.
struct BuildScratch {
  // A set of slots that share memory.
  struct Group {
    Storage storage = Storage::kArena;
    int index = -1;
    int64_t bytes = 0;
    int first = 0, last = -1;
    int64_t offset = 0;
    int64_t readers = 0;  // uses of its values by nodes that come later, and by the graph's outputs
  };
  std::vector<Slot> slots;       // these four by value id
  std::vector<ValueInfo> infos;
  std::vector<int> group;        // -1: none (yet); constants have none
  std::vector<int> dropped;      // by how many uses
  std::vector<int> variables;    // ids of values that are no constants of the graph
  std::deque<Tensor> folded;     // constants of these shapes alone
  std::vector<Group> groups;
  std::vector<ValueInfo> out;
  std::vector<const ValueInfo*> in;
};
// The operators of a graph's nodes, in their order: found once for all Programs.
std::vector<const OpRow*> rows_of(const Graph& graph);
// Resolves every shape, chooses the kernels, lays out memory and places barriers.
std::shared_ptr<Program> build_program(std::shared_ptr<const Graph> graph, std::span<const OpRow* const> rows,
                                       std::span<const InputKey> inputs, const BuildOptions& options, BuildScratch& scratch);

// State of an instruction whose shapes become known as it runs; kept to be used again when they are the same next time.
struct LateState {
  std::vector<InputKey> shapes;
  std::vector<int64_t> values;  // of the small inputs that preparation may have read
  Prepared prepared;
  bool valid = false;
  std::unique_ptr<EvalContext> eval;
  std::vector<void*> table;     // operands of this instruction alone
  std::vector<int32_t> operands;
  Buffer workspace;
  int64_t workspace_bytes = 0;
};

// The memory of one run.
struct Frame {
  explicit Frame(std::shared_ptr<const Program> program);
  std::shared_ptr<const Program> program;
  Buffer arena;
  int64_t arena_capacity = 0;
  void* arena_base = nullptr;          // what the table was filled in for
  bool bound = false;
  std::vector<void*> table;            // by slot
  std::vector<RuntimeValue> dynamic;   // by slot; empty when the Program has none
  std::vector<char> spared;            // by slot, as `dynamic`: does its memory go back to `spare`?
  SpareMemory spare;
  std::vector<LateState> states;
  int64_t late_bytes = 0;              // of the states' workspaces, as the cache counted them
  std::vector<RuntimeValue> results;   // by graph output
};

struct ProfileSink;
struct ExecuteContext {
  BodyRunner* bodies = nullptr;
  PackCache* packs = nullptr;
  const std::atomic<bool>* terminate = nullptr;
  ProfileSink* profile = nullptr;
  int threads = 1;
};

// Gives the frame its arena (Program::arena_bytes) and fills in what stays the same from run to run.
void bind_arena(Frame& frame, Buffer arena, int64_t capacity);
// Points the frame at a run's inputs and outputs; allocates outputs that are empty. Thread 0, before execute().
void bind_frame(Frame& frame, std::span<const RuntimeValue> inputs, std::span<RuntimeValue> outputs);
// Runs all instructions. Collective. Ends with a barrier when `worker` has company.
void execute(Frame& frame, Worker& worker, const ExecuteContext& context);
// Copies what must be copied and hands over results into `outputs`. Thread 0, after execute().
void collect_outputs(Frame& frame, std::span<RuntimeValue> outputs);

}  // namespace tiercel

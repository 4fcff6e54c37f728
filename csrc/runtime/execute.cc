// Running a Program: the loop that every thread of the team walks.
#include <xmmintrin.h>

#include <cstring>

#include "runtime/profile.h"
#include "runtime/program.h"

namespace tiercel {
namespace {

constexpr int64_t kSmallInts = kMaxKnownInts, kSmallFloats = 16;

// What preparation at run time may read as a constant: shape-like data, not activations.
bool is_small(const Tensor& t) {
  const int64_t n = t.count();
  if (is_integer(t.dtype()) || t.dtype() == DType::kBool) return n <= kSmallInts && bits_of(t.dtype()) >= 8;
  return is_float(t.dtype()) && bits_of(t.dtype()) >= 8 && n <= kSmallFloats;
}

void append_bytes(std::vector<int64_t>& to, const Tensor& t) {
  const size_t bytes = static_cast<size_t>(t.bytes()), words = (bytes + 7) / 8, at = to.size();
  to.resize(at + words, 0);
  if (bytes) std::memcpy(&to[at], t.data(), bytes);
}

RuntimeValue value_at(const Frame& f, int slot) {
  if (slot < 0) return {};
  const Slot& s = f.program->slots[slot];
  if (s.storage == Storage::kDynamic) return f.dynamic[slot];
  if (s.storage == Storage::kConstant) return *s.constant;
  return Tensor(s.type.dtype, s.type.shape, f.table[slot], nullptr, s.type.layout);
}

void set_dynamic(Frame& f, int slot, RuntimeValue v, bool spared = false) {
  f.table[slot] = v.is_tensor() ? v.tensor().data() : nullptr;
  f.dynamic[slot] = std::move(v);
  f.spared[slot] = spared;
}

void release(Frame& f, int slot) {
  RuntimeValue& v = f.dynamic[slot];
  Buffer memory = f.spared[slot] ? v.tensor().owner() : nullptr;
  v = RuntimeValue();
  if (memory) f.spare.give(std::move(memory));
}

// Infers and prepares a node for the shapes that its inputs have now, unless they are those of the last time.
void resolve(Frame& f, const Instruction& ins, LateState& state, const ExecuteContext& context) {
  const int32_t* operands = &f.program->operands[ins.first_slot];
  std::vector<Tensor> tensors(ins.num_inputs);
  std::vector<InputKey> shapes(ins.num_inputs);
  std::vector<int64_t> values;
  for (int i = 0; i < ins.num_inputs; ++i) {
    const RuntimeValue v = value_at(f, operands[i]);
    shapes[i] = key_of(v);
    if (v.empty()) continue;
    if (!v.is_tensor()) fail(Code::kRuntimeException, ins.node->label(), ": input ", i, " should be a tensor");
    tensors[i] = v.tensor();
    if (f.program->slots[operands[i]].storage != Storage::kConstant && is_small(tensors[i])) append_bytes(values, tensors[i]);
  }
  if (!state.valid || state.shapes != shapes || state.values != values) {
    state.valid = false;
    std::vector<ValueInfo> infos(ins.num_inputs);
    std::vector<const ValueInfo*> in(ins.num_inputs);
    for (int i = 0; i < ins.num_inputs; ++i) {
      if (!tensors[i].defined()) continue;
      infos[i].type = Type::tensor(tensors[i].dtype(), tensors[i].shape(), tensors[i].layout());
      if (f.program->slots[operands[i]].storage == Storage::kConstant || is_small(tensors[i])) infos[i].constant = &tensors[i];
      in[i] = &infos[i];
    }
    SymbolTable symbols;
    state.prepared = prepare_node(*ins.node, *ins.row, in, symbols, *context.packs, context.threads);
    state.shapes = std::move(shapes);
    state.values = std::move(values);
    if (state.prepared.workspace > state.workspace_bytes) {
      state.workspace = allocate(static_cast<size_t>(state.prepared.workspace));
      state.workspace_bytes = state.prepared.workspace;
    }
    state.valid = true;
  }
  const Prepared& p = state.prepared;
  for (int o = 0; o < ins.num_outputs; ++o) {
    const int slot = operands[ins.num_inputs + o];
    if (slot < 0) continue;
    const Type& type = p.outputs[o];
    Tensor t;
    bool spared = type.dtype != DType::kString;
    for (auto [out, from] : p.aliases)
      if (out == o) {  // keeps a dynamic input alive; borrowed memory stays borrowed
        const Tensor& source = tensors[from];
        t = Tensor(type.dtype, type.shape, source.data(), source.owner(), type.layout);
        spared = spared && operands[from] >= 0 && f.program->slots[operands[from]].storage == Storage::kDynamic && f.spared[operands[from]];
        if (!source.owner()) t = Tensor();  // arena memory may be reused while the view lives: copy below
        if (!t.defined()) {
          t = Tensor(type.dtype, type.shape, type.layout);
          std::memcpy(t.data(), source.data(), static_cast<size_t>(t.bytes()));
        }
      }
    if (!t.defined() && spared) {
      Buffer memory = f.spare.take(bytes_of(type.dtype, storage_count(type.shape, type.layout)));
      void* const data = memory.get();
      t = Tensor(type.dtype, type.shape, data, std::move(memory), type.layout);
    }
    if (!t.defined()) t = Tensor(type.dtype, type.shape, type.layout);
    set_dynamic(f, slot, std::move(t), spared);
  }
}

// Is a node whose shapes are known now worth the team?
bool worth_a_team(const Prepared& p) {
  constexpr double kTeamUs = 3;
  if (!p.kernel || p.serial) return false;
  double work = 0;
  if (p.cost) work = estimate_us(*p.cost);
  else for (const Type& t : p.outputs) if (t.static_shape()) work += static_cast<double>(t.shape.count()) / 2e3;
  return work > kTeamUs;
}

// `alone`: has thread 0 done something that the others have not waited for? A barrier is due before they read it.
void run_late(Frame& f, const Instruction& ins, Worker& w, const ExecuteContext& context, bool& alone) {
  LateState& state = f.states[ins.state];
  const auto args = [&] { return Args(f.table.data(), &f.program->operands[ins.first_slot], ins.num_inputs, state.workspace.get()); };
  if (w.index() == 0) resolve(f, ins, state, context);
  if (w.decide(w.index() == 0 && w.count() > 1 && worth_a_team(state.prepared))) {
    w.barrier();
    state.prepared.kernel->run(args(), w);
    w.barrier();
    alone = false;
    return;
  }
  alone = true;
  if (w.index() != 0 || !state.prepared.kernel) return;
  Worker one = tiercel::alone();
  state.prepared.kernel->run(args(), one);
}

void run_eval(Frame& f, const Instruction& ins, Worker& w, const ExecuteContext& context, bool& alone) {
  LateState& state = f.states[ins.state];
  const int32_t* operands = &f.program->operands[ins.first_slot];
  const bool collective = ins.row->flags & kCollective;
  alone = !collective;
  if (w.index() == 0) {
    std::vector<RuntimeValue> in;
    for (int i = 0; i < ins.num_inputs; ++i) in.push_back(value_at(f, operands[i]));
    state.eval = std::make_unique<EvalContext>(*ins.node, std::move(in), ins.num_outputs, context.bodies);
    if (!collective) {
      Worker one = tiercel::alone();
      ins.row->eval(*state.eval, one);
    }
  }
  if (collective) {
    w.barrier();
    ins.row->eval(*state.eval, w);
    w.barrier();
  }
  if (w.index() == 0) {
    for (int o = 0; o < ins.num_outputs; ++o) {
      const int slot = operands[ins.num_inputs + o];
      if (slot >= 0) set_dynamic(f, slot, std::move(state.eval->outputs()[o]));
    }
    state.eval.reset();
  }
  if (collective) w.barrier();
}

void run(Frame& f, const Instruction& ins, Worker& worker, const ExecuteContext& context, bool& alone) {
  ProfileScope scope(context.profile, ins, worker, f);
  switch (ins.mode) {
    case Mode::kKernel: {
      const Args args(f.table.data(), &f.program->operands[ins.first_slot], ins.num_inputs,
                      ins.workspace >= 0 ? static_cast<char*>(f.arena.get()) + ins.workspace : nullptr);
      if (ins.parallel) {
        ins.kernel->run(args, worker);
      } else if (worker.index() == 0) {
        Worker one = tiercel::alone();
        ins.kernel->run(args, one);
      }
      break;
    }
    case Mode::kLate: run_late(f, ins, worker, context, alone); break;
    case Mode::kEval: run_eval(f, ins, worker, context, alone); break;
  }
  if (context.profile) worker.barrier();  // else a node's time would hold another one's work, and miss its own
}

// Denormals cost hundreds of cycles each: a run flushes them to zero and restores the caller's mode.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | (uint64_t{1} << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

}  // namespace

Frame::Frame(std::shared_ptr<const Program> p) : program(std::move(p)) {
  table.assign(program->slots.size(), nullptr);
  if (program->dynamic) {
    dynamic.resize(program->slots.size());
    spared.resize(program->slots.size());
  }
  states.resize(program->num_states);
  results.resize(program->outputs.size());
}

void bind_arena(Frame& f, Buffer arena, int64_t capacity) {
  f.arena = std::move(arena);
  f.arena_capacity = capacity;
  if (f.bound && f.arena_base == f.arena.get()) return;
  f.bound = true;
  f.arena_base = f.arena.get();
  char* base = static_cast<char*>(f.arena_base);
  for (size_t i = 0; i < f.table.size(); ++i) {
    const Slot& s = f.program->slots[i];
    if (s.storage == Storage::kConstant && s.constant)
      f.table[i] = s.unaligned ? const_cast<void*>(s.constant->deferred_bytes().data) : s.constant->data();
    if (s.storage == Storage::kArena) f.table[i] = base + s.offset;
  }
}

void bind_frame(Frame& f, std::span<const RuntimeValue> inputs, std::span<RuntimeValue> outputs) {
  const Program& p = *f.program;
  for (size_t i = 0; i < p.outputs.size(); ++i) {
    const Slot& s = p.slots[p.outputs[i].slot];
    f.results[i] = outputs[i];
    if (p.outputs[i].copy || s.storage != Storage::kOutput) continue;
    if (f.results[i].empty()) f.results[i] = Tensor(s.type.dtype, s.type.shape, s.type.layout);
  }
  for (const auto& [slot, input] : p.input_slots) {
    if (p.slots[slot].storage == Storage::kDynamic) set_dynamic(f, slot, inputs[input]);
    else f.table[slot] = inputs[input].tensor().data();
  }
  for (const auto& [slot, output] : p.output_slots) f.table[slot] = f.results[output].tensor().data();
}

void execute(Frame& f, Worker& worker, const ExecuteContext& context) {
  const Program& p = *f.program;
  const FlushDenormals flush;
  bool alone = false;  // has thread 0 run ahead since the last barrier?
  std::vector<int> releasable;  // by thread 0, after the next barrier
  for (const Instruction& ins : p.instructions) {
    if (ins.barrier_before || (alone && ins.mode == Mode::kKernel && ins.parallel)) {
      worker.barrier();
      alone = false;
      for (const int slot : releasable) release(f, slot);
      releasable.clear();
    }
    if (context.terminate && worker.index() == 0 && context.terminate->load(std::memory_order_relaxed))
      fail(Code::kFail, "the run was stopped: RunOptions.terminate is set");
    run(f, ins, worker, context, alone);
    // What a node reads that learns its shapes as it runs, all have read when it ends; another thread may still be in a kernel of known shapes.
    if (worker.index() != 0) continue;
    if (ins.mode == Mode::kKernel) releasable.insert(releasable.end(), ins.release.begin(), ins.release.end());
    else for (const int slot : ins.release) release(f, slot);
  }
  worker.barrier();
}

void collect_outputs(Frame& f, std::span<RuntimeValue> outputs) {
  const Program& p = *f.program;
  for (size_t i = 0; i < p.outputs.size(); ++i) {
    if (!p.outputs[i].copy) {
      outputs[i] = std::move(f.results[i]);
      continue;
    }
    const int slot = p.outputs[i].slot;
    RuntimeValue v = value_at(f, slot);
    const bool given = !f.results[i].empty();
    if (!v.is_tensor()) {
      if (given) fail(Code::kInvalidArgument, "output \"", p.graph->outputs()[i]->name, "\" is not a tensor: it cannot be written into given memory");
      outputs[i] = std::move(v);
      continue;
    }
    const Tensor& from = v.tensor();
    // A value that this run made and nobody else holds is handed over; anything else is copied.
    if (!given && p.slots[slot].storage == Storage::kDynamic && !p.slots[slot].graph_input && from.owner()) {
      outputs[i] = std::move(v);
      continue;
    }
    if (given && (f.results[i].tensor().dtype() != from.dtype() || !(f.results[i].tensor().shape() == from.shape())))
      fail(Code::kInvalidArgument, "output \"", p.graph->outputs()[i]->name, "\" is ", dtype_name(from.dtype()), from.shape().str(),
           ", but the memory given for it is ", dtype_name(f.results[i].tensor().dtype()), f.results[i].tensor().shape().str());
    Tensor to = given ? f.results[i].tensor() : Tensor(from.dtype(), from.shape(), from.layout());
    if (from.dtype() == DType::kString) std::copy_n(from.as<std::string>(), from.count(), to.as<std::string>());
    else if (from.bytes()) std::memcpy(to.data(), from.data(), static_cast<size_t>(from.bytes()));
    outputs[i] = std::move(to);
  }
  for (RuntimeValue& v : f.results) v = RuntimeValue();
  for (size_t slot = 0; slot < f.dynamic.size(); ++slot) if (!f.dynamic[slot].empty()) release(f, static_cast<int>(slot));
}

}  // namespace tiercel

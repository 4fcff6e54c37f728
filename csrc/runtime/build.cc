// From a graph and the shapes of its inputs to a Program: infer, prepare, place in memory, place barriers.
#include <algorithm>

#include "base/memory.h"
#include "ops/infer_graph.h"
#include "runtime/keep.h"
#include "runtime/plan.h"
#include "runtime/program.h"

namespace tiercel {
namespace {

// A node runs on all threads when one thread would need longer than this; a barrier costs well below a microsecond. A Program
// enters the team at all when that saves more than waking a sleeping thread may cost.
constexpr double kParallelUs = 3, kTeamUs = 15;
constexpr int64_t kFoldElements = 64 << 10;  // outputs of constant inputs up to this size are computed at build

class Builder {
 public:
  Builder(std::shared_ptr<const Graph> graph, std::span<const OpRow* const> rows, std::span<const InputKey> inputs, const BuildOptions& options,
          BuildScratch& scratch)
      : graph_(*graph), rows_(rows), options_(options), symbols_(graph->symbols()), program_(std::make_shared<Program>()), p_(*program_),
        scratch_(scratch) {
    p_.graph = std::move(graph);
    p_.keys.assign(inputs.begin(), inputs.end());
    p_.instructions.reserve(rows_.size());
  }

  std::shared_ptr<Program> build() {
    seed();
    size_t n = 0;
    for (const auto& node : graph_.nodes()) add(*node, *rows_[n++]);
    bind_outputs();
    lay_out();
    if (p_.estimated_us < kTeamUs && p_.num_states == 0)
      for (Instruction& ins : p_.instructions) ins.parallel = false;
    place_barriers();
    finish();
    return program_;
  }

 private:
  using Group = BuildScratch::Group;

  int now() const { return static_cast<int>(p_.instructions.size()); }

  int new_group(Storage storage, int index, int64_t bytes) {
    groups_.push_back({storage, index, bytes, now(), now(), 0, 0});
    return static_cast<int>(groups_.size()) - 1;
  }

  void join(const Value* v, int g) {
    group_[v->id] = g;
    groups_[g].readers += static_cast<int64_t>(v->uses.size()) + v->graph_output_uses;
  }

  // `t` outlives the Program.
  void set_constant(const Value* v, const Tensor& t) {
    Slot& s = slots_[v->id];
    s.storage = Storage::kConstant;
    s.type = Type::tensor(t.dtype(), t.shape(), t.layout());
    s.constant = &t;
    infos_[v->id].type = s.type;
    infos_[v->id].constant = &t;
  }
  void fold_into(const Value* v, Tensor t) { set_constant(v, scratch_.folded.emplace_back(std::move(t))); }

  void find_constants() {
    slots_.resize(graph_.num_values());
    infos_.resize(graph_.num_values());
    for (int id = 0; id < graph_.num_values(); ++id) {
      const Value* v = graph_.value(id);
      if (v && v->is_constant()) set_constant(v, v->constant);
      else if (v) scratch_.variables.push_back(id);
    }
  }

  void seed() {
    if (slots_.empty()) find_constants();
    for (const int id : scratch_.variables) {
      slots_[id] = Slot();
      infos_[id].type = Type();
      infos_[id].constant = nullptr;
      infos_[id].ints.reset();
    }
    scratch_.folded.clear();
    group_.assign(slots_.size(), -1);
    dropped_.assign(slots_.size(), 0);
    groups_.clear();
    for (size_t i = 0; i < graph_.inputs().size(); ++i) {
      const Value* v = graph_.inputs()[i];
      const InputKey& k = p_.keys[i];
      Slot& s = slots_[v->id];
      s.storage = Storage::kInput;
      s.graph_input = true;
      s.index = static_cast<int>(i);
      s.type = k.kind == Kind::kTensor && !k.empty ? Type::tensor(k.dtype, k.shape) : v->type;
      if (!k.empty) s.type.kind = k.kind;  // an optional left empty stays one
      else if (v->type.is_tensor() || v->type.kind == Kind::kSequence)
        fail(Code::kInvalidArgument, "input \"", v->name, "\" of graph \"", graph_.name, "\" is given nothing; it takes a ", v->type.str());
      if (s.type.dtype == DType::kUndefined) s.type.dtype = v->type.dtype;
      infos_[v->id].type = s.type;
      if (k.kind != Kind::kTensor || k.empty || k.dtype == DType::kString) s.storage = Storage::kDynamic;
      join(v, new_group(s.storage, static_cast<int>(i), 0));
    }
  }

  void add(const Node& node, const OpRow& row) {
    in_.clear();
    bool dynamic = false, constant = true;
    for (const Value* v : node.inputs) {
      in_.push_back(v ? &infos_[v->id] : nullptr);
      if (!v) continue;
      const Slot& s = slots_[v->id];
      if (!infos_[v->id].type.static_shape()) dynamic = true;
      if (s.storage != Storage::kConstant) constant = false;
    }
    out_.assign(node.outputs.size(), {});
    InferContext infer(node, in_, out_, symbols_);
    row.infer(infer);
    bool all_known = true, outputs_static = true, objects = false, strings = false;
    for (size_t i = 0; i < out_.size(); ++i) {
      if (!node.outputs[i]) continue;
      const ValueInfo& o = out_[i];
      if (!o.type.static_shape()) outputs_static = false;
      if (!o.type.is_tensor()) objects = true;
      if (o.type.dtype == DType::kString) strings = true;
      if (!(o.known_ints() && o.type.static_shape())) all_known = false;
    }
    for (const ValueInfo* i : in_) if (i && !i->type.is_tensor()) objects = true;
    consume(node);
    if (all_known && !(row.flags & kRandom)) return fold_ints(node);
    if (constant && outputs_static && !objects && !(row.flags & (kRandom | kCollective)) && small_outputs(node))
      return fold(node, row);

    Instruction ins;
    ins.node = &node;
    ins.row = &row;
    ins.num_inputs = static_cast<int>(node.inputs.size());
    ins.num_outputs = static_cast<int>(node.outputs.size());
    if (!row.prepare || objects || (row.eval && (dynamic || !outputs_static))) {
      if (!row.eval) fail(Code::kNotImplemented, node.label(), ": not supported for sequences and optionals");
      ins.mode = Mode::kEval;
    } else if (dynamic || !outputs_static || strings) {
      ins.mode = Mode::kLate;
    }
    if (ins.mode == Mode::kKernel) prepare(node, row, ins);
    else emit_dynamic(node, ins);
  }

  bool small_outputs(const Node& node) const {
    for (size_t i = 0; i < out_.size(); ++i)
      if (node.outputs[i] && out_[i].type.shape.count() > kFoldElements) return false;
    return true;
  }

  void fold_ints(const Node& node) {
    for (size_t i = 0; i < out_.size(); ++i)
      if (const Value* v = node.outputs[i])
        fold_into(v, Tensor::from_ints(out_[i].type.dtype, out_[i].type.shape, out_[i].ints->data()));
  }

  void fold(const Node& node, const OpRow& row) {
    if (row.prepare) {
      std::vector<Tensor> out = evaluate_inferred(node, row, in_, out_);
      for (size_t i = 0; i < out.size(); ++i)
        if (const Value* v = node.outputs[i]) fold_into(v, std::move(out[i]));
      return;
    }
    std::vector<RuntimeValue> in;
    for (const Value* v : node.inputs) in.push_back(v ? RuntimeValue(*infos_[v->id].constant) : RuntimeValue());
    std::vector<RuntimeValue> out = evaluate(node, in);
    for (size_t i = 0; i < out.size(); ++i)
      if (const Value* v = node.outputs[i]) fold_into(v, out[i].tensor());
  }

  void prepare(const Node& node, const OpRow& row, Instruction& ins) {
    PrepareContext ctx(node, in_, out_, *options_.packs, options_.threads);
    row.prepare(ctx);
    for (const int i : ctx.dropped_) {
      ++dropped_[node.inputs[i]->id];
      unread_.push_back({static_cast<int>(p_.instructions.size()), i});
    }
    for (const int i : ctx.unaligned_) unaligned_.push_back({static_cast<int>(p_.instructions.size()), i});
    if (ctx.cost_) {
      ins.cost = *ctx.cost_;
    } else {
      for (const ValueInfo& o : out_) if (o.type.static_shape()) ins.cost.bytes += 2.0 * bytes(o.type);
    }
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const Value* v = node.outputs[i];
      if (!v) continue;
      Slot& s = slots_[v->id];
      s.type = out_[i].type;
      infos_[v->id] = std::move(out_[i]);
    }
    for (auto [o, i] : ctx.aliases_) alias(node, o, i);
    if (!ctx.kernel_) return;
    ins.kernel = ctx.kernel_.get();
    p_.kernels.push_back(std::move(ctx.kernel_));
    ins.parallel = !ctx.serial_ && options_.threads > 1 && estimate_us(ins.cost) > kParallelUs;
    p_.estimated_us += estimate_us(ins.cost);
    touch_inputs(node);
    for (auto [o, i] : ctx.inplace_) overwrite(node, o, i);
    for (auto [o, i] : ctx.updates_) update(node, ins, i);
    for (const Value* v : node.outputs) {
      if (!v || group_[v->id] >= 0 || slots_[v->id].storage == Storage::kConstant) continue;
      Slot& s = slots_[v->id];
      s.storage = Storage::kArena;
      join(v, new_group(Storage::kArena, -1, bytes(s.type)));
    }
    if (ctx.workspace_ > 0) {
      ins.workspace = static_cast<int64_t>(workspaces_.size());  // replaced by the offset in finish()
      workspaces_.push_back(new_group(Storage::kArena, -1, ctx.workspace_));
    }
    push(ins);
  }

  static int64_t bytes(const Type& t) { return bytes_of(t.dtype, storage_count(t.shape, t.layout)); }

  void alias(const Node& node, int o, int i) {
    const Value *to = node.outputs[o], *from = node.inputs[i];
    if (!to) return;
    Slot &s = slots_[to->id], &f = slots_[from->id];
    s.storage = f.storage;
    s.index = f.index;
    if (f.storage != Storage::kDynamic && f.storage != Storage::kConstant) join(to, group_[from->id]);
    if (f.storage == Storage::kConstant) {
      s.constant = &scratch_.folded.emplace_back(infos_[from->id].constant->reshaped(s.type.shape));
      infos_[to->id].constant = s.constant;
    }
    if (f.storage == Storage::kDynamic) {  // a view of an object that another instruction makes: made by one as well
      Instruction ins;
      ins.mode = Mode::kLate;
      ins.node = &node;
      ins.row = &op_of(node);
      ins.num_inputs = static_cast<int>(node.inputs.size());
      ins.num_outputs = static_cast<int>(node.outputs.size());
      emit_dynamic(node, ins);
    }
  }

  // The output takes over the input's memory where nobody reads that afterwards.
  void overwrite(const Node& node, int o, int i) {
    const Value *to = node.outputs[o], *from = node.inputs[i];
    if (!to || !from || group_[to->id] >= 0 || slots_[to->id].storage == Storage::kConstant) return;
    const int g = group_[from->id];
    if (g < 0 || groups_[g].storage != Storage::kArena || groups_[g].readers > 0) return;
    if (groups_[g].bytes != bytes(slots_[to->id].type)) return;
    for (size_t k = 0; k < node.inputs.size(); ++k)  // another operand in the same memory
      if (static_cast<int>(k) != i && node.inputs[k] && group_[node.inputs[k]->id] == g) return;
    slots_[to->id].storage = Storage::kArena;
    join(to, g);
  }

  // The node writes the memory of input i, which is the caller's: nobody may read that afterwards.
  void update(const Node& node, Instruction& ins, int i) {
    const Value* v = node.inputs[i];
    if (!v || slots_[v->id].storage != Storage::kInput) return;
    if (groups_[group_[v->id]].readers > 0) fail(Code::kInvalidGraph, node.label(), ": \"", v->name, "\" is read after its update");
    ins.updates = true;
  }

  // This node's uses of its inputs are about to be done.
  void consume(const Node& node) {
    for (const Value* v : node.inputs) if (v && group_[v->id] >= 0) --groups_[group_[v->id]].readers;
  }
  void touch_inputs(const Node& node) {
    for (const Value* v : node.inputs) if (v && group_[v->id] >= 0) groups_[group_[v->id]].last = now();
  }

  void emit_dynamic(const Node& node, Instruction& ins) {
    ins.parallel = true;
    ins.state = p_.num_states++;
    touch_inputs(node);
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const Value* v = node.outputs[i];
      if (!v) continue;
      Slot& s = slots_[v->id];
      if (!s.type.ranked) s.type = out_[i].type;
      if (infos_[v->id].type.dtype == DType::kUndefined) infos_[v->id] = std::move(out_[i]);
      s.storage = Storage::kDynamic;
      join(v, new_group(Storage::kDynamic, -1, 0));
    }
    push(ins);
  }

  void push(Instruction& ins) {
    const Node& node = *ins.node;
    ins.first_slot = static_cast<int>(p_.operands.size());
    for (const Value* v : node.inputs) p_.operands.push_back(v ? v->id : -1);
    for (const Value* v : node.outputs) p_.operands.push_back(v ? v->id : -1);
    p_.instructions.push_back(std::move(ins));
  }

  void bind_outputs() {
    std::vector<bool> taken(groups_.size(), false);
    for (size_t i = 0; i < graph_.outputs().size(); ++i) {
      const Value* v = graph_.outputs()[i];
      Program::Output out{v->id};
      const int g = group_[v->id];
      if (g >= 0 && groups_[g].storage == Storage::kArena && !taken[g] && groups_[g].bytes == bytes(slots_[v->id].type)) {
        groups_[g].storage = Storage::kOutput;
        groups_[g].index = static_cast<int>(i);
        taken[g] = true;
      } else {
        out.copy = true;
      }
      if (g >= 0) groups_[g].last = now();
      p_.outputs.push_back(out);
    }
  }

  void lay_out() {
    std::vector<PlanBlock> blocks;
    std::vector<int> owner;
    for (size_t g = 0; g < groups_.size(); ++g) {
      const Group& group = groups_[g];
      if (group.storage != Storage::kArena || group.bytes == 0) continue;
      blocks.push_back({group.bytes, group.first, group.last});
      owner.push_back(static_cast<int>(g));
    }
    const PlanResult plan = plan_arena(blocks);
    p_.arena_bytes = plan.bytes;
    p_.live_bound = plan.live_bound;
    for (size_t i = 0; i < blocks.size(); ++i) groups_[owner[i]].offset = blocks[i].offset;
    for (size_t id = 0; id < group_.size(); ++id)
      if (group_[id] >= 0) {
        const Group& group = groups_[group_[id]];
        Slot& s = slots_[id];
        if (s.storage == Storage::kArena && group.storage == Storage::kOutput) s.storage = Storage::kOutput;
        if (s.storage == Storage::kOutput) s.index = group.index;
        s.offset = group.offset;
      }
    for (Instruction& ins : p_.instructions)
      if (ins.workspace >= 0) {
        const Group& group = groups_[workspaces_[ins.workspace]];
        ins.workspace = group.offset;
        workspace_bytes_.push_back(group.bytes);
      } else {
        workspace_bytes_.push_back(0);
      }
  }

  // A barrier stands before an instruction that touches memory which another thread may still be writing (or reading, where
  // this one writes), unless both run on thread 0 alone.
  void place_barriers() {
    struct Access { int space; int64_t begin, end; bool write, parallel; };
    std::vector<Access> pending;
    auto accesses = [&](size_t n, std::vector<Access>& list) {
      const Instruction& ins = p_.instructions[n];
      for (int k = 0; k < ins.num_inputs + ins.num_outputs; ++k) {
        const int id = p_.operands[ins.first_slot + k];
        if (id < 0) continue;
        const Slot& s = slots_[id];
        const bool write = k >= ins.num_inputs;
        if (s.storage == Storage::kArena)
          list.push_back({0, s.offset, s.offset + groups_[group_[id]].bytes, write, ins.parallel});
        else if (s.storage == Storage::kOutput)
          list.push_back({1 + s.index, 0, 1, write, ins.parallel});
      }
      if (ins.workspace >= 0)
        list.push_back({0, ins.workspace, ins.workspace + workspace_bytes_[n], true, ins.parallel});
    };
    std::vector<Access> mine;
    for (size_t n = 0; n < p_.instructions.size(); ++n) {
      Instruction& ins = p_.instructions[n];
      mine.clear();
      accesses(n, mine);
      bool wait = ins.updates && n > 0 && !p_.instructions[n - 1].updates;
      // Those that learn their shapes as they run see to what comes after them, and read when all else is done.
      if (ins.mode != Mode::kKernel) wait = std::any_of(pending.begin(), pending.end(), [](const Access& a) { return a.parallel; });
      for (const Access& a : mine)
        for (const Access& b : pending)
          if (ins.mode == Mode::kKernel && (a.write || b.write) && (a.parallel || b.parallel) && a.space == b.space && a.begin < b.end && b.begin < a.end)
            wait = true;
      ins.barrier_before = wait;
      if (wait) { pending.clear(); ++p_.barriers; }
      if (ins.mode == Mode::kKernel) pending.insert(pending.end(), mine.begin(), mine.end());
    }
  }

  void finish() {
    // Dynamic values are released after their last reader.
    std::vector<int> last(slots_.size(), -1);
    for (size_t n = 0; n < p_.instructions.size(); ++n) {
      const Instruction& ins = p_.instructions[n];
      for (int k = 0; k < ins.num_inputs + ins.num_outputs; ++k)
        if (const int id = p_.operands[ins.first_slot + k]; id >= 0) last[id] = static_cast<int>(n);
    }
    for (const Program::Output& o : p_.outputs) last[o.slot] = -1;
    for (const Value* v : graph_.inputs()) last[v->id] = -1;
    for (size_t id = 0; id < last.size(); ++id)
      if (last[id] >= 0 && slots_[id].storage == Storage::kDynamic)
        p_.instructions[last[id]].release.push_back(static_cast<int>(id));
    for (const Instruction& ins : p_.instructions) {
      p_.parallel |= ins.mode == Mode::kEval ? (ins.row->flags & kCollective) != 0 : ins.parallel;
      p_.open_cost |= ins.mode != Mode::kKernel;
    }
    p_.open_cost &= p_.estimated_us < kTeamUs;
    for (size_t id = 0; id < slots_.size(); ++id) {
      const Slot& s = slots_[id];
      if (s.storage == Storage::kInput) p_.input_slots.emplace_back(static_cast<int>(id), s.index);
      if (s.storage == Storage::kOutput) p_.output_slots.emplace_back(static_cast<int>(id), s.index);
    }
    for (size_t i = 0; i < graph_.inputs().size(); ++i)
      if (const int id = graph_.inputs()[i]->id; slots_[id].storage == Storage::kDynamic)
        p_.input_slots.emplace_back(id, static_cast<int>(i));
    // A constant that no kernel reads any more: each of its uses has packed it.
    for (const auto& [instruction, input] : unread_) p_.operands[p_.instructions[instruction].first_slot + input] = -1;
    for (size_t id = 0; id < dropped_.size(); ++id)
      if (const Value* v = graph_.value(static_cast<int>(id)); dropped_[id] && dropped_[id] == static_cast<int>(v->uses.size()) && !v->graph_output_uses)
        p_.droppable.push_back(v);
    keep_slots(p_, slots_, scratch_.folded);
    for (Slot& s : p_.slots) {
      s.unaligned = s.constant && s.constant->is_deferred();
      p_.dynamic |= s.storage == Storage::kDynamic;
    }
    for (size_t n = 0; n < p_.instructions.size(); ++n)
      for (int k = 0; k < p_.instructions[n].num_inputs; ++k)
        if (const int slot = p_.operands[p_.instructions[n].first_slot + k]; slot >= 0 && p_.slots[slot].unaligned)
          p_.slots[slot].unaligned = std::binary_search(unaligned_.begin(), unaligned_.end(), std::pair(static_cast<int>(n), k));
    for (const Program::Output& o : p_.outputs) p_.slots[o.slot].unaligned = false;
    p_.held_bytes = held_bytes(p_);
  }

  const Graph& graph_;
  const std::span<const OpRow* const> rows_;
  BuildOptions options_;
  SymbolTable symbols_;          // of what the data decide
  std::shared_ptr<Program> program_;
  Program& p_;
  BuildScratch& scratch_;
  std::vector<Slot>& slots_ = scratch_.slots;
  std::vector<ValueInfo>&infos_ = scratch_.infos, &out_ = scratch_.out;
  std::vector<const ValueInfo*>& in_ = scratch_.in;
  std::vector<Group>& groups_ = scratch_.groups;
  std::vector<int>&group_ = scratch_.group, &dropped_ = scratch_.dropped;
  std::vector<int> workspaces_;  // groups
  std::vector<int64_t> workspace_bytes_;
  std::vector<std::pair<int, int>> unaligned_;     // instruction, input, in order: read at any alignment
  std::vector<std::pair<int, int>> unread_;        // instruction, input: packed, so the operand is not materialised
};

}  // namespace

std::vector<const OpRow*> rows_of(const Graph& graph) {
  std::vector<const OpRow*> rows;
  for (const auto& node : graph.nodes()) rows.push_back(&op_of(*node));
  return rows;
}

std::shared_ptr<Program> build_program(std::shared_ptr<const Graph> graph, std::span<const OpRow* const> rows,
                                       std::span<const InputKey> inputs, const BuildOptions& options, BuildScratch& scratch) {
  return Builder(std::move(graph), rows, inputs, options, scratch).build();
}

InputKey key_of(const RuntimeValue& v) {
  InputKey k;
  if (v.empty()) { k.empty = true; return k; }
  if (v.is_sequence()) { k.kind = Kind::kSequence; k.dtype = v.sequence()->dtype; return k; }
  k.dtype = v.tensor().dtype();
  k.shape = v.tensor().shape();
  return k;
}

size_t hash_of(std::span<const InputKey> keys) {
  size_t h = keys.size();
  auto mix = [&h](size_t x) { h = (h ^ x) * 0x9e3779b97f4a7c15ull; h ^= h >> 29; };
  for (const InputKey& k : keys) {
    mix(static_cast<size_t>(k.kind) * 64 + static_cast<size_t>(k.dtype) * 2 + k.empty);
    for (const Dim d : k.shape) mix(static_cast<size_t>(d));
  }
  return h;
}

}  // namespace tiercel

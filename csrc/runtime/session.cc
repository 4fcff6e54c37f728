#include "runtime/session.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <set>

#include "onnx/onnx.h"
#include "base/file_map.h"
#include "graph/constant_memo.h"
#include "passes/passes.h"
#include "runtime/cache.h"
#include "runtime/profile.h"
#include "runtime/team.h"

namespace tiercel {

namespace {

// A graph as optimised, with what its runs keep.
struct Loaded {
  // `before`: of the same model with some other weights, whose packings and arenas serve again.
  Loaded(Model m, const SessionOptions& o, int threads, const std::vector<IoInfo>& inputs, Loaded* before = nullptr)
      : model(std::move(m)), options(o), threads(threads) {
    optimize(model, {options.optimization_level, options.disabled_passes});
    for_each_graph(*model.graph, [](Graph& g) { g.renumber(); });
    if (!before && !options.optimized_model_path.empty()) onnx::save(model, options.optimized_model_path);
    if (before) packs.inherit(before->packs, *model.graph);
    main = std::make_unique<ProgramCache>(model.graph, BuildOptions{threads, &packs}, options.program_cache);
    if (before) main->take_arenas(*before->main);
    if (std::all_of(inputs.begin(), inputs.end(), [](const IoInfo& i) { return i.type.static_shape(); })) {
      std::vector<InputKey> keys;
      for (const IoInfo& i : inputs) keys.push_back({Kind::kTensor, false, i.type.dtype, i.type.shape});
      main->find_or_build(keys);
      if (!model.graph->memo) release_packed(*main->newest());
    }
  }

  ProgramCache& cache_of(const Graph& body) {
    std::lock_guard lock(bodies_mutex);
    auto& cache = bodies[&body];
    if (!cache)
      cache = std::make_unique<ProgramCache>(std::shared_ptr<const Graph>(model.graph, &body), BuildOptions{threads, &packs},
                                             options.program_cache);
    return *cache;
  }

  // Constants that only packed copies are read of lose their memory. Only where no other Program will ever be built.
  void release_packed(const Program& program) {
    for (const Value* v : program.droppable) {
      const Tensor& t = v->constant;
      if (!t.is_deferred() && !in_file_map(t))
        model.graph->value(v->id)->constant = Tensor(t.dtype(), t.shape(), nullptr, nullptr, t.layout());
    }
  }

  Model model;
  const SessionOptions& options;
  const int threads;
  SessionPacks packs{threads};
  std::unique_ptr<ProgramCache> main;
  ForkSafeMutex bodies_mutex;
  std::map<const Graph*, std::unique_ptr<ProgramCache>> bodies;
};

}  // namespace

class SessionImpl {
 public:
  SessionImpl(Model m, SessionOptions o) : SessionImpl(std::move(o)) { begin(std::move(m)); }
  SessionImpl(std::shared_ptr<LiveModel> l, SessionOptions o) : SessionImpl(std::move(o)) {
    live = std::move(l);
    memo = std::make_shared<ConstantMemo>();
    begin(with_symbols(*live->model(version, true)));
  }

  // With the weights of now. A run holds it until it ends, whatever comes after.
  std::shared_ptr<Loaded> current() {
    const std::lock_guard lock(mutex);
    if (live->version() == version) return loaded;
    uint64_t now = 0;
    if (auto m = live->model(now, behind)) {
      behind = true;  // until nothing can fail any more
      memo->begin();
      auto made = std::make_shared<Loaded>(with_symbols(std::move(*m)), options, threads, inputs, loaded.get());
      const std::lock_guard swap(loaded_mutex);
      loaded.swap(made);
      behind = false;
    }
    version = now;
    return loaded;
  }
  // The last that a run had.
  std::shared_ptr<Loaded> latest() const {
    const std::lock_guard lock(loaded_mutex);
    return loaded;
  }

  SessionOptions options;
  const int threads;
  std::shared_ptr<LiveModel> live;       // or null; then `loaded` stays
  std::vector<IoInfo> inputs, outputs, overridable;
  std::shared_ptr<Loaded> loaded;        // changes under both mutexes
  std::shared_ptr<SymbolTable> symbols;  // of inputs and outputs
  std::shared_ptr<ProfileSink> profile;
  mutable ForkSafeMutex loaded_mutex;
  ForkSafeMutex mutex;                   // of the next three, and of Model::again
  bool behind = false;                   // is `loaded` not what `live` gave last?
  uint64_t version = 0;                  // of `loaded`
  std::shared_ptr<ConstantMemo> memo;

 private:
  explicit SessionImpl(SessionOptions o)
      : options(std::move(o)), threads(options.threads > 0 ? std::min(options.threads, Team::max_threads()) : Team::max_threads()) {
    if (options.profile) profile = std::make_shared<ProfileSink>();
  }

  void begin(Model model) {
    if (const auto missing = unsupported(model); !missing.empty()) {
      std::string list;
      for (const std::string& line : missing) list += "\n  " + line;
      fail(Code::kNotImplemented, "the model has operators that this engine does not support:", list);
    }
    describe(*model.graph, model.overridable);
    symbols = model.graph->symbol_table();
    loaded = std::make_shared<Loaded>(std::move(model), options, threads, inputs);
    describe_outputs(*loaded->model.graph);
  }

  // Passes add symbols, while runs of the graph before read those that they have in common.
  Model with_symbols(Model m) {
    m.graph->set_symbols(std::make_shared<SymbolTable>(live->given().graph->symbols()));
    for_each_graph(*m.graph, [&](Graph& g) { g.memo = memo; });
    return m;
  }

  void describe(Graph& graph, const std::vector<std::pair<std::string, Type>>& initializers) {
    for (const auto& [name, type] : initializers) overridable.push_back({name, type});
    for (auto& [name, extent] : options.dimension_overrides) {
      const Dim symbol = graph.symbols().named(name);
      const auto replace = [&](Type& t) { for (int i = 0; i < t.shape.rank(); ++i) if (t.shape[i] == symbol) t.shape[i] = extent; };
      for (Value* v : graph.inputs()) replace(v->type);
      for (IoInfo& i : overridable) replace(i.type);
    }
    for (const Value* v : graph.inputs()) inputs.push_back({v->name, v->type});
    for (const Value* v : graph.outputs()) outputs.push_back({v->name, v->type});
  }
  // What the model declares of its outputs, completed by inference.
  void describe_outputs(const Graph& graph) {
    for (size_t i = 0; i < outputs.size(); ++i) {
      const Type& t = graph.outputs()[i]->type;
      if (outputs[i].type.dtype == DType::kUndefined) outputs[i].type = t;
      else if (!outputs[i].type.ranked && t.ranked) { outputs[i].type.ranked = true; outputs[i].type.shape = t.shape; }
      else if (t.ranked && t.shape.rank() == outputs[i].type.shape.rank())
        for (int axis = 0; axis < t.shape.rank(); ++axis)
          if (!is_symbol(t.shape[axis])) outputs[i].type.shape[axis] = t.shape[axis];
    }
  }
};

namespace {

// Runs bodies of control flow on Programs of their own, with the threads of the run that reached them.
class Bodies final : public BodyRunner {
 public:
  Bodies(Loaded& loaded, const ExecuteContext& context) : loaded_(loaded), context_(context) { context_.bodies = this; }

  std::vector<RuntimeValue> run(const Graph& body, std::vector<RuntimeValue> inputs, Worker& worker) override {
    struct Call { ProgramCache::Lease lease; std::vector<RuntimeValue> outputs; };
    std::unique_ptr<Call> call;  // thread 0's
    auto* frame = reinterpret_cast<Frame*>(worker.agree([&] {
      std::vector<InputKey> keys;
      for (const RuntimeValue& v : inputs) keys.push_back(key_of(v));
      ProgramCache& cache = loaded_.cache_of(body);
      const auto program = cache.find_or_build(keys);
      call = std::make_unique<Call>(Call{cache.lease(program), std::vector<RuntimeValue>(program->outputs.size())});
      bind_frame(*call->lease, inputs, call->outputs);
      return reinterpret_cast<intptr_t>(&*call->lease);
    }));
    execute(*frame, worker, context_);
    if (!call) return {};
    collect_outputs(*call->lease, call->outputs);
    call->lease.done();
    return std::move(call->outputs);
  }

 private:
  Loaded& loaded_;
  ExecuteContext context_;
};

// "tensor(float)[batch,3]", with the names of symbols
std::string describe(const Type& type, const SymbolTable& symbols) {
  if (!type.is_tensor() || !type.ranked) return type.str();
  std::string s = "tensor(" + std::string(dtype_name(type.dtype)) + ")[";
  for (int i = 0; i < type.shape.rank(); ++i) s += (i ? "," : "") + symbols.str(type.shape[i]);
  return s + "]";
}

void check_input(const IoInfo& info, const InputKey& key, const SymbolTable& symbols) {
  if (info.type.kind == Kind::kOptional || info.type.kind == Kind::kOptionalSequence) return;
  if (key.empty) fail(Code::kInvalidArgument, "input \"", info.name, "\" is missing: expected ", describe(info.type, symbols));
  if (key.kind != info.type.kind)
    fail(Code::kInvalidArgument, "input \"", info.name, "\": expected ", describe(info.type, symbols), ", got a ",
         key.kind == Kind::kSequence ? "sequence" : "tensor");
  if (key.kind != Kind::kTensor) return;
  const auto got = [&] { return Type::tensor(key.dtype, key.shape).str(); };
  if (info.type.dtype != DType::kUndefined && key.dtype != info.type.dtype)
    fail(Code::kInvalidArgument, "input \"", info.name, "\": unexpected data type: expected ", describe(info.type, symbols), ", got ", got());
  if (!info.type.ranked) return;
  if (key.shape.rank() != info.type.shape.rank())
    fail(Code::kInvalidArgument, "input \"", info.name, "\": invalid rank: expected ", info.type.shape.rank(), " dimensions, ",
         describe(info.type, symbols), ", got ", key.shape.rank(), ", ", got());
  for (int i = 0; i < key.shape.rank(); ++i)
    if (!is_symbol(info.type.shape[i]) && info.type.shape[i] != key.shape[i])
      fail(Code::kInvalidArgument, "input \"", info.name, "\": invalid dimension ", i, ": expected ", info.type.shape[i], ", got ",
           key.shape[i], " (expected ", describe(info.type, symbols), ", got ", got(), ")");
}

}  // namespace

Session::Session(const std::string& path, const SessionOptions& options) : Session(onnx::load(path), options) {}
Session::Session(const void* data, size_t size, Buffer owner, const std::string& folder, const SessionOptions& options)
    : Session(onnx::parse(data, size, std::move(owner), folder), options) {}
Session::Session(Model model, const SessionOptions& options) : impl_(std::make_unique<SessionImpl>(std::move(model), options)) {}
Session::Session(std::shared_ptr<LiveModel> live, const SessionOptions& options) : impl_(std::make_unique<SessionImpl>(std::move(live), options)) {}
Session::~Session() = default;

const Model& Session::model() const { return impl_->live ? impl_->live->given() : impl_->loaded->model; }
LiveModel* Session::live() const { return impl_->live.get(); }
const SymbolTable& Session::symbols() const { return *impl_->symbols; }
const SessionOptions& Session::options() const { return impl_->options; }
const std::vector<IoInfo>& Session::inputs() const { return impl_->inputs; }
const std::vector<IoInfo>& Session::outputs() const { return impl_->outputs; }

const std::vector<IoInfo>& Session::overridable() const { return impl_->overridable; }

std::unique_ptr<Session> Session::with_inputs(const std::vector<std::string>& initializers) {
  for (const std::string& name : initializers)
    if (std::none_of(impl_->overridable.begin(), impl_->overridable.end(), [&](const IoInfo& i) { return i.name == name; }))
      fail(Code::kInvalidArgument, "\"", name, "\" is no initializer that a run may replace: from IR version 4 on, those among the graph's inputs are");
  SessionOptions options = impl_->options;
  options.optimized_model_path.clear();
  Model m = [&] {
    const std::lock_guard lock(impl_->mutex);
    return impl_->loaded->model.again(initializers);
  }();
  m.again = nullptr;
  m.overridable.clear();
  auto session = std::make_unique<Session>(std::move(m), options);
  session->impl_->profile = impl_->profile;
  return session;
}

int Session::input_index(std::string_view name) const {
  for (size_t i = 0; i < impl_->inputs.size(); ++i) if (impl_->inputs[i].name == name) return static_cast<int>(i);
  return -1;
}
int Session::output_index(std::string_view name) const {
  for (size_t i = 0; i < impl_->outputs.size(); ++i) if (impl_->outputs[i].name == name) return static_cast<int>(i);
  return -1;
}

void Session::output_types(std::span<const Shape> shapes, std::span<Type> outputs) {
  std::vector<InputKey> keys(shapes.size());
  for (size_t i = 0; i < shapes.size(); ++i) {
    const IoInfo& info = impl_->inputs[i];
    keys[i].kind = info.type.kind;
    keys[i].dtype = info.type.dtype;
    keys[i].shape = shapes[i];
    check_input(info, keys[i], symbols());
  }
  // Types are not of the weights; and callers may hold what a training that has the weights waits for.
  const std::shared_ptr<Loaded> held = impl_->live ? impl_->latest() : nullptr;
  const auto program = (held ? *held : *impl_->loaded).main->find_or_build(keys);
  for (size_t i = 0; i < program->outputs.size(); ++i) outputs[i] = program->slots[program->outputs[i].slot].type;
}

void Session::run(std::span<const RuntimeValue> inputs, std::span<RuntimeValue> outputs, std::span<const bool> wanted,
                  RunControl* control) {
  SessionImpl& s = *impl_;
  if (inputs.size() != s.inputs.size() || outputs.size() != s.outputs.size())
    fail(Code::kInvalidArgument, "expected ", s.inputs.size(), " inputs and ", s.outputs.size(), " outputs, got ", inputs.size(),
         " and ", outputs.size());
  InputKey few[8];
  std::vector<InputKey> many(inputs.size() > 8 ? inputs.size() : 0);
  InputKey* keys = many.empty() ? few : many.data();
  for (size_t i = 0; i < inputs.size(); ++i) {
    keys[i] = key_of(inputs[i]);
    if (keys[i].kind == Kind::kSequence && keys[i].dtype == DType::kUndefined) keys[i].dtype = s.inputs[i].type.dtype;
    check_input(s.inputs[i], keys[i], symbols());
  }
  const std::shared_ptr<Loaded> held = s.live ? s.current() : nullptr;
  Loaded& l = held ? *held : *s.loaded;
  const auto program = l.main->find_or_build({keys, inputs.size()});
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (outputs[i].empty()) continue;
    const Type& type = program->slots[program->outputs[i].slot].type;
    const Tensor& given = outputs[i].tensor();
    if (type.static_shape() && (given.dtype() != type.dtype || !(given.shape() == type.shape)))
      fail(Code::kInvalidArgument, "output \"", s.outputs[i].name, "\" is ", type.str(), ", but the memory given for it is ",
           Type::tensor(given.dtype(), given.shape()).str());
  }
  ProgramCache::Lease frame = l.main->lease(program);
  bind_frame(*frame, inputs, outputs);
  ExecuteContext context{nullptr, &l.packs, control ? &control->terminate : nullptr, s.profile.get(), s.threads};
  Bodies bodies(l, context);
  context.bodies = &bodies;
  if (s.profile) ++s.profile->runs;
  auto body = [&](Worker& w) { execute(*frame, w, context); };
  // A run whose cost only time can tell goes on the team when those on one thread were long. Every 64th is on one thread again: times taken while
  // other processes hold the processors would keep a short one on the team for ever.
  constexpr float kTeamRunUs = 100;
  const float known_us = program->alone_us.load(std::memory_order_relaxed);
  const bool team = program->parallel && s.threads > 1 &&
                    (!program->open_cost || (known_us > kTeamRunUs && program->team_runs.fetch_add(1, std::memory_order_relaxed) % 64 != 63));
  const auto begin = program->open_cost ? std::chrono::steady_clock::now() : std::chrono::steady_clock::time_point();
  if (team || program->estimated_us > kTeamRunUs) {  // long runs are counted, on one thread too
    Team::run(team ? s.threads : 1, body);
  } else {
    Worker one;
    body(one);
  }
  if (program->open_cost && !team) {
    const float took = std::chrono::duration<float, std::micro>(std::chrono::steady_clock::now() - begin).count();
    // Shorter is true; longer may be an accident, so it is believed by and by.
    const float us = known_us == 0 || took < known_us ? took : known_us + (std::min(took, 4 * known_us) - known_us) / 8;
    program->alone_us.store(us, std::memory_order_relaxed);
  }
  collect_outputs(*frame, outputs);
  frame.done();
  for (size_t i = 0; i < wanted.size() && i < outputs.size(); ++i) if (!wanted[i]) outputs[i] = RuntimeValue();
}

std::vector<ProfileEvent> Session::take_profile() {
  if (!impl_->profile) return {};
  std::lock_guard lock(impl_->profile->mutex);
  return std::exchange(impl_->profile->events, {});
}

Session::Memory Session::memory() const {
  Memory m;
  const std::shared_ptr<Loaded> held = impl_->latest();
  const Graph& graph = *held->model.graph;
  std::set<const void*> counted;  // values may share memory
  for (int id = 0; id < graph.num_values(); ++id)
    if (const Value* v = graph.value(id); v && v->is_constant() && counted.insert(memory_of(v->constant)).second) m.weights += v->constant.bytes();
  m.packed = held->packs.bytes();
  m.programs = held->main->size();
  m.program_bytes = held->main->bytes();
  m.symbols = graph.symbols().size();
  if (const auto p = held->main->newest()) {
    m.arena = p->arena_bytes;
    m.live_bound = p->live_bound;
    m.instructions = static_cast<int>(p->instructions.size());
    m.barriers = p->barriers;
  }
  return m;
}

std::vector<std::string> unsupported(const Model& model) {
  std::map<std::string, std::vector<std::string>> missing;
  for_each_graph(*model.graph, [&](Graph& g) {
    for (const auto& n : g.nodes())
      if (!find_op(n->op_type, n->domain, n->opset)) {
        std::string name = n->name;
        if (name.empty()) for (const Value* v : n->outputs) if (v) { name = "(output " + v->name + ")"; break; }
        missing[n->op_type + " (" + (n->domain.empty() ? "ai.onnx" : n->domain) + ", opset " + std::to_string(n->opset) + ")"].push_back(name);
      }
  });
  std::vector<std::string> lines;
  for (const auto& [op, nodes] : missing) {
    std::string line = op + ": node" + (nodes.size() > 1 ? "s " : " ");
    for (size_t i = 0; i < nodes.size() && i < 10; ++i) line += (i ? ", " : "") + nodes[i];
    if (nodes.size() > 10) line += " and " + std::to_string(nodes.size() - 10) + " more";
    lines.push_back(line);
  }
  return lines;
}

}  // namespace tiercel

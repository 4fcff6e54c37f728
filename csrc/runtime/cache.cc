#include "runtime/cache.h"

#include <algorithm>

#include "base/available_memory.h"
#include "base/file_map.h"
#include "passes/passes.h"
#include "runtime/team.h"

namespace tiercel {

SessionPacks::Key SessionPacks::key_of(const Tensor& t) { return {memory_of(t), t.dtype(), t.layout(), {t.shape().begin(), t.shape().end()}}; }

Buffer SessionPacks::get(const Value* weight, const std::string& key, const std::function<Buffer()>& pack) {
  std::shared_ptr<Entry> entry;
  {
    std::lock_guard lock(mutex_);
    auto& packings = entries_[key_of(weight->constant)];
    auto it = std::find_if(packings.begin(), packings.end(), [&](const auto& p) { return p.first == key; });
    if (it == packings.end()) it = packings.emplace(packings.end(), key, std::make_shared<Entry>());
    entry = it->second;
  }
  std::call_once(entry->once, [&] {
    entry->buffer = pack();
    release_pages(weight->constant);
    entry->bytes = allocated_bytes(entry->buffer);
    bytes_ += entry->bytes;
  });
  return entry->buffer;
}

void SessionPacks::inherit(SessionPacks& before, Graph& graph) {
  const std::scoped_lock lock(mutex_, before.mutex_);
  for_each_graph(graph, [&](Graph& g) {
    for (int id = 0; id < g.num_values(); ++id) {
      const Value* const v = g.value(id);
      if (!v || !v->is_constant() || !v->constant.count()) continue;
      const auto it = before.entries_.find(key_of(v->constant));
      if (it == before.entries_.end() || !entries_.insert(*it).second) continue;
      for (const auto& p : it->second) bytes_ += p.second->bytes;
    }
  });
}

void SessionPacks::split(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& f) {
  if (n <= grain) return PackCache::split(n, grain, f);
  Team::run(threads_, [&](Worker& worker) { worker.parallel_for(n, grain, f); });
}

std::shared_ptr<const Program> ProgramCache::find_or_build(std::span<const InputKey> keys) {
  const size_t hash = hash_of(keys);
  {
    std::lock_guard lock(mutex_);
    if (const auto it = find(hash, keys); it != entries_.end()) return it->program;
  }
  std::unique_ptr<BuildScratch> scratch;
  {
    std::lock_guard lock(mutex_);
    scratch = std::move(scratch_);
  }
  if (!scratch) scratch = std::make_unique<BuildScratch>();
  std::shared_ptr<const Program> built = build_program(graph_, rows_, keys, options_, *scratch);
  std::list<Entry> gone;  // destroyed after the lock
  std::lock_guard lock(mutex_);
  if (!entries_.empty()) scratch_ = std::move(scratch);  // not for a model whose shapes never change
  if (const auto it = find(hash, keys); it != entries_.end()) return it->program;  // another thread was faster
  check_memory(*built);
  entries_.push_front({hash, built, {}});
  by_hash_.emplace(hash, entries_.begin());
  bytes_ += built->held_bytes;
  evict(gone);
  return built;
}

void ProgramCache::evict(std::list<Entry>& gone) {
  while (static_cast<int>(entries_.size()) > capacity_ || (entries_.size() > kLeast && bytes_ > kProgramBytes)) {
    const auto last = std::prev(entries_.end());
    auto [first, end] = by_hash_.equal_range(last->hash);
    while (first->second != last) ++first;
    by_hash_.erase(first);
    bytes_ -= last->program->held_bytes;
    for (const auto& f : last->frames) bytes_ -= f->late_bytes;
    gone.splice(gone.begin(), entries_, last);
  }
}

// The entry, now the first; end() when there is none.
ProgramCache::Entries::iterator ProgramCache::find(size_t hash, std::span<const InputKey> keys) {
  const auto fits = [&](const Entry& e) {
    return e.hash == hash && std::equal(keys.begin(), keys.end(), e.program->keys.begin(), e.program->keys.end());
  };
  if (!entries_.empty() && fits(entries_.front())) return entries_.begin();
  for (auto [it, end] = by_hash_.equal_range(hash); it != end; ++it)
    if (fits(*it->second)) {
      entries_.splice(entries_.begin(), entries_, it->second);
      return it->second;
    }
  return entries_.end();
}

// Said here, before the caller makes arrays for the outputs. An arena of earlier shapes serves again, or goes (see lease).
void ProgramCache::check_memory(const Program& program) const {
  int64_t arena = program.arena_bytes;
  if (std::any_of(arenas_.begin(), arenas_.end(), [&](const auto& a) { return a.first >= arena; })) arena = 0;
  else if (!arenas_.empty()) arena -= arenas_.back().first;
  auto needed = static_cast<double>(arena);
  for (const Program::Output& o : program.outputs)
    if (const Type& t = program.slots[o.slot].type; t.static_shape())
      needed += static_cast<double>(bytes_of(t.dtype, storage_count(t.shape, t.layout)));
  require_memory(static_cast<size_t>(std::min(needed, 0x1p62)));
}

ProgramCache::Lease ProgramCache::lease(const std::shared_ptr<const Program>& program) {
  std::unique_ptr<Frame> frame;
  Buffer arena;
  const int64_t need = program->arena_bytes;
  int64_t capacity = need;
  SpareMemory spare;
  {
    std::lock_guard lock(mutex_);
    if (program->dynamic) std::swap(spare, spare_);
    for (Entry& e : entries_)
      if (e.program == program) {
        if (!e.frames.empty()) {
          frame = std::move(e.frames.back());
          e.frames.pop_back();
          bytes_ -= frame->late_bytes;
        }
        break;
      }
    if (need) {
      // The arena this frame had last time, else any that is large enough; one too small goes, so that they do not pile up.
      auto best = arenas_.end();
      for (auto it = arenas_.begin(); it != arenas_.end(); ++it)
        if (it->first >= need && (best == arenas_.end() || (frame && it->second.get() == frame->arena_base))) best = it;
      if (best != arenas_.end()) {
        capacity = best->first;
        arena = std::move(best->second);
        arenas_.erase(best);
      } else if (!arenas_.empty()) {  // by a quarter at least: shapes that grow a little each time do not make it anew each time
        const int64_t before = arenas_.back().first;
        capacity = std::max(need, before + before / 4);
        arenas_.pop_back();
      }
    }
  }
  if (!frame) frame = std::make_unique<Frame>(program);
  frame->spare = std::move(spare);
  if (need && !arena) arena = allocate(static_cast<size_t>(capacity));
  bind_arena(*frame, std::move(arena), capacity);
  return Lease(*this, std::move(frame));
}

void ProgramCache::give_back(std::unique_ptr<Frame> frame) {
  std::list<Entry> gone;  // destroyed after the lock
  std::lock_guard lock(mutex_);
  if (frame->program->dynamic) {  // of runs at a time, one's serves again
    frame->spare.end_run();
    std::swap(spare_, frame->spare);
  }
  frame->spare = {};
  if (frame->arena) arenas_.insert(arenas_.begin(), {frame->arena_capacity, std::move(frame->arena)});
  for (Entry& e : entries_)
    if (e.program == frame->program) {
      frame->late_bytes = 0;
      for (const LateState& state : frame->states) frame->late_bytes += state.workspace_bytes;
      bytes_ += frame->late_bytes;
      e.frames.push_back(std::move(frame));
      return evict(gone);
    }
}

void ProgramCache::take_arenas(ProgramCache& before) {
  const std::scoped_lock lock(mutex_, before.mutex_);
  std::move(before.arenas_.begin(), before.arenas_.end(), std::back_inserter(arenas_));
  before.arenas_.clear();
}

int ProgramCache::size() const {
  std::lock_guard lock(mutex_);
  return static_cast<int>(entries_.size());
}

int64_t ProgramCache::bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

std::shared_ptr<const Program> ProgramCache::newest() const {
  std::lock_guard lock(mutex_);
  return entries_.empty() ? nullptr : entries_.front().program;
}

}  // namespace tiercel

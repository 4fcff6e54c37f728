// Worker: one thread's view of the team inside a run.
//
// All threads of a team walk the same instructions (SPMD). Each call below is collective: every thread makes it, in the
// same order with the same arguments. No sum's order depends on the number of threads, so results do not.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>

namespace tiercel {

inline void cpu_relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Pauses of the caller for the others to end a run, before it sleeps: about 50 us. (At a barrier they are more: worker.cc.)
inline constexpr int kSpins = 1000;

// Sleeps while the word holds `value` (or wakes for nothing); wakes all who sleep on it.
void sleep_while(std::atomic<uint32_t>& word, uint32_t value);
void wake_all(std::atomic<uint32_t>& word);

// Thrown out of barrier() in the other threads when one thread of the team has thrown.
struct TeamAborted {};

// What the threads of one run share.
struct TeamState {
  static constexpr int kLoops = 16;  // parallel loops between two barriers, before one is forced
  // How many chunks of its range of each loop a thread has given out: to itself, mostly. Two sets, in turn from barrier to barrier: after
  // one, a thread clears its own counters of the set that nobody reads any more.
  struct alignas(64) Ranges { std::atomic<int64_t> taken[2][kLoops]; };
  std::unique_ptr<Ranges[]> ranges;  // by thread
  int capacity = 0;
  alignas(64) std::atomic<uint32_t> arrived{0};
  alignas(64) std::atomic<uint32_t> phase{0};
  alignas(64) std::atomic<int> sleeping{0};     // at a barrier
  alignas(64) std::atomic<bool> failed{false};  // a thread threw: barrier() throws TeamAborted in the others
  alignas(64) std::atomic<int64_t> agreed{0};   // see Worker::agree
  alignas(64) std::atomic<uint32_t> decided{0};  // twice the number of the last decision, + 1 where it was for the team: see Worker::decide

  // A thread threw: those at a barrier leave it.
  void fail() {
    failed.store(true, std::memory_order_release);
    phase.fetch_add(1, std::memory_order_seq_cst);
    wake_all(phase);
    decided.fetch_or(1u << 31, std::memory_order_seq_cst);
    wake_all(decided);
  }
  void reset(int threads) {
    if (threads > capacity) {
      ranges = std::make_unique<Ranges[]>(static_cast<size_t>(threads));
      capacity = threads;
    }
    for (int t = 0; t < threads; ++t)
      for (auto& set : ranges[static_cast<size_t>(t)].taken)
        for (std::atomic<int64_t>& taken : set) taken.store(0, std::memory_order_relaxed);
    arrived.store(0, std::memory_order_relaxed);
    decided.store(0, std::memory_order_relaxed);
    failed.store(false, std::memory_order_release);
  }
};

class Worker {
 public:
  Worker() = default;  // a team of one
  Worker(int index, int count, TeamState* state) : index_(index), count_(count), state_(state) {}

  int index() const { return index_; }
  int count() const { return count_; }

  // No thread leaves before all have come; what they wrote before is visible after. Throws TeamAborted when a thread failed.
  void barrier() {
    if (count_ > 1) wait_for_all();
  }

  // Calls f(begin, end) on chunks of at most `grain` that cover [0, n), each chunk once. A thread begins with a range of neighbouring chunks
  // of its own, the same for loops of the same shape, so that it meets what it wrote before in its own caches; then it takes from the others'
  // ranges. Returns when no chunk is left to take; another thread may still be at work on its last: barrier() before reading.
  template <class F>
  void parallel_for(int64_t n, int64_t grain, F&& f) {
    if (n <= 0) return;
    if (grain < 1) grain = 1;
    if (count_ == 1) {
      for (int64_t i = 0; i < n; i += grain) f(i, std::min(i + grain, n));
      return;
    }
    if (loops_ == TeamState::kLoops) barrier();
    const int64_t chunks = (n - 1) / grain + 1, loop = loops_++;
    for (int k = 0, owner = index_; k < count_; ++k, owner = owner + 1 == count_ ? 0 : owner + 1) {
      const int64_t first = chunks * owner / count_, size = chunks * (owner + 1) / count_ - first;
      std::atomic<int64_t>& taken = state_->ranges[static_cast<size_t>(owner)].taken[set_][loop];
      if (k > 0 && taken.load(std::memory_order_relaxed) >= size) continue;
      for (int64_t c; (c = taken.fetch_add(1, std::memory_order_relaxed)) < size;) {
        const int64_t i = (first + c) * grain;
        f(i, std::min(i + grain, n));
      }
    }
  }

  // Should the team do what comes? Thread 0 tells, and may be ahead of the others as long as it says no: they do not wait for it to do the thing
  // alone. Before something that the others do as well, a barrier is due.
  bool decide(bool team) { return count_ == 1 ? team : index_ == 0 ? tell(team) : follow(); }

  // Thread 0 computes f(), every thread gets its result (an integer, bool or enum).
  template <class F>
  auto agree(F&& f) {
    using T = decltype(f());
    if (count_ == 1) return f();
    if (index_ == 0) state_->agreed.store(static_cast<int64_t>(f()), std::memory_order_relaxed);
    barrier();
    const T result = static_cast<T>(state_->agreed.load(std::memory_order_relaxed));
    barrier();
    return result;
  }

 private:
  void wait_for_all();
  bool tell(bool team);
  bool follow();

  int index_ = 0, count_ = 1;
  int loops_ = 0;  // parallel loops since the last barrier
  int set_ = 0;    // of counters, see TeamState::Ranges
  uint32_t decisions_ = 0;  // so far, the same for all threads when they have come to the same place
  TeamState* state_ = nullptr;
};

// A worker that stands alone, for one-thread steps inside a collective one.
inline Worker alone() { return Worker(); }

}  // namespace tiercel

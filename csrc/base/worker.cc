#include "base/worker.h"

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tiercel {
namespace {
// About 200 us: chunks differ by that much, and a processor that idles meanwhile is slow to come back (on a virtual machine 10 % of a run of
// many layers at 50 us).
constexpr int kBarrierSpins = 4000;
}  // namespace

void sleep_while(std::atomic<uint32_t>& word, uint32_t value) {
#if defined(__linux__)
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
#else
  word.wait(value);
#endif
}
void wake_all(std::atomic<uint32_t>& word) {
#if defined(__linux__)
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
#else
  word.notify_all();
#endif
}

// Who waits long sleeps, and does not yield: a thread that we wait for may be on this processor, and is then moved or run at once, while
// a yield gives whoever else wants it a whole slice.
void Worker::wait_for_all() {
  TeamState& s = *state_;
  const uint32_t phase = s.phase.load(std::memory_order_acquire);  // before `failed`: fail() changes it after
  if (s.failed.load(std::memory_order_acquire)) throw TeamAborted();
  if (s.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(count_)) {
    s.arrived.store(0, std::memory_order_relaxed);
    s.phase.store(phase + 1, std::memory_order_seq_cst);
    if (s.sleeping.load(std::memory_order_seq_cst)) wake_all(s.phase);
  } else {
    for (int spins = 0; s.phase.load(std::memory_order_acquire) == phase; ++spins) {
      if (spins < kBarrierSpins) {
        cpu_relax();
        continue;
      }
      s.sleeping.fetch_add(1, std::memory_order_seq_cst);
      if (s.phase.load(std::memory_order_seq_cst) == phase) sleep_while(s.phase, phase);
      s.sleeping.fetch_sub(1, std::memory_order_seq_cst);
    }
    if (s.failed.load(std::memory_order_acquire)) throw TeamAborted();
  }
  for (int i = 0; i < loops_; ++i) s.ranges[static_cast<size_t>(index_)].taken[set_][i].store(0, std::memory_order_relaxed);
  loops_ = 0;
  set_ ^= 1;
}

bool Worker::tell(bool team) {
  TeamState& s = *state_;
  s.decided.store(++decisions_ << 1 | static_cast<uint32_t>(team), std::memory_order_seq_cst);
  if (s.sleeping.load(std::memory_order_seq_cst)) wake_all(s.decided);
  return team;
}

// A later decision than this one means that this one was for thread 0 alone: it would have waited for us.
bool Worker::follow() {
  TeamState& s = *state_;
  ++decisions_;
  for (int spins = 0;; ++spins) {
    const uint32_t seen = s.decided.load(std::memory_order_acquire);
    if (s.failed.load(std::memory_order_acquire)) throw TeamAborted();
    if (seen >> 1 >= decisions_) return seen >> 1 == decisions_ && (seen & 1);
    if (spins < kBarrierSpins) {
      cpu_relax();
      continue;
    }
    s.sleeping.fetch_add(1, std::memory_order_seq_cst);
    if (s.decided.load(std::memory_order_seq_cst) == seen) sleep_while(s.decided, seen);
    s.sleeping.fetch_sub(1, std::memory_order_seq_cst);
  }
}

}  // namespace tiercel

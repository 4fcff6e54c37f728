#include "base/worker.h"

#include <sched.h>

namespace tiercel {

void Worker::wait_for_all() {
  TeamState& s = *state_;
  const uint32_t phase = s.phase.load(std::memory_order_relaxed);
  if (s.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == static_cast<uint32_t>(count_)) {
    s.arrived.store(0, std::memory_order_relaxed);
    s.phase.store(phase + 1, std::memory_order_release);
  } else {
    for (int spins = 0; s.phase.load(std::memory_order_acquire) == phase; ++spins) {
      if (s.failed.load(std::memory_order_relaxed)) throw TeamAborted();
      if (spins < kSpins) cpu_relax();
      else sched_yield();  // more threads than processors: let the one we wait for run
    }
  }
  for (int i = 0; i < loops_; ++i) s.ranges[static_cast<size_t>(index_)].taken[set_][i].store(0, std::memory_order_relaxed);
  loops_ = 0;
  set_ ^= 1;
}

}  // namespace tiercel

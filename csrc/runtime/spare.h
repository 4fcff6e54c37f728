// Memory of values whose shapes a run found out, kept for the next ones.
#pragma once
#include <utility>
#include <vector>

#include "base/memory.h"

namespace tiercel {

// What is freed goes back to the system, which gives it again page by page, cleared: some microseconds for each value of a run. Kept is what the last
// run used. One thread at a time.
class SpareMemory {
 public:
  // Memory of `bytes` or more, and not far more; new if there is none.
  Buffer take(int64_t bytes) {
    if (bytes < kLeast) return allocate(static_cast<size_t>(bytes));
    auto best = spares_.end(), smaller = spares_.end();
    for (auto it = spares_.begin(); it != spares_.end(); ++it) {
      const int64_t n = allocated_bytes(it->buffer);
      if (n >= bytes && n <= 2 * bytes && (best == spares_.end() || n < allocated_bytes(best->buffer))) best = it;
      if (n < bytes && (smaller == spares_.end() || n > allocated_bytes(smaller->buffer))) smaller = it;
    }
    if (best == spares_.end()) {
      if (smaller != spares_.end()) spares_.erase(smaller);  // this one takes its place, as shapes grow
      return allocate(static_cast<size_t>(bytes));
    }
    Buffer buffer = std::move(best->buffer);
    spares_.erase(best);
    return buffer;
  }
  // What take() gave, once nobody else holds it.
  void give(Buffer buffer) {
    if (buffer.use_count() != 1 || allocated_bytes(buffer) < kLeast) return;
    if (spares_.size() == kMost) spares_.erase(spares_.begin());
    spares_.push_back({std::move(buffer), true});
  }
  // A run has ended: what it did not use goes.
  void end_run() {
    std::erase_if(spares_, [](Spare& s) { return !std::exchange(s.used, false); });
  }

 private:
  static constexpr int64_t kLeast = 4096;  // less costs little
  static constexpr size_t kMost = 64;
  struct Spare {
    Buffer buffer;
    bool used;  // in this run
  };
  std::vector<Spare> spares_;
};

}  // namespace tiercel

// Memory of values whose shapes a run found out, kept for the next ones.
#pragma once
#include <algorithm>
#include <vector>

#include "base/memory.h"

namespace tiercel {

// What is freed goes back to the system, which gives it again page by page, cleared: some microseconds for each value of a run. One thread at a time.
class SpareMemory {
 public:
  // Memory of `bytes` or more, and not far more; new if there is none.
  Buffer take(int64_t bytes) {
    auto best = buffers_.end();
    for (auto it = buffers_.begin(); bytes >= kLeast && it != buffers_.end(); ++it)
      if (const int64_t n = allocated_bytes(*it); n >= bytes && n <= 2 * bytes && (best == buffers_.end() || n < allocated_bytes(*best))) best = it;
    if (best == buffers_.end()) return allocate(static_cast<size_t>(bytes));
    Buffer buffer = std::move(*best);
    buffers_.erase(best);
    return buffer;
  }
  // What take() gave, once nobody else holds it.
  void give(Buffer buffer) {
    if (buffer.use_count() != 1 || allocated_bytes(buffer) < kLeast) return;
    if (buffers_.size() == kMost) buffers_.erase(buffers_.begin());
    buffers_.push_back(std::move(buffer));
  }

 private:
  static constexpr int64_t kLeast = 4096;  // less costs little
  static constexpr size_t kMost = 64;
  std::vector<Buffer> buffers_;
};

}  // namespace tiercel

// Recording the time of instructions.
#pragma once
#include <chrono>
#include <mutex>
#include <vector>

#include "base/fork.h"
#include "runtime/program.h"
#include "runtime/session.h"

namespace tiercel {

struct ProfileSink {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point origin = Clock::now();
  ForkSafeMutex mutex;
  std::vector<ProfileEvent> events;
  std::atomic<int> runs{0};

  double now_us() const { return std::chrono::duration<double, std::micro>(Clock::now() - origin).count(); }
};

// The time of one instruction on thread 0 (on the others nothing is recorded).
class ProfileScope {
 public:
  ProfileScope(ProfileSink* sink, const Instruction& ins, Worker& worker, const Frame& frame)
      : sink_(sink && worker.index() == 0 ? sink : nullptr), ins_(ins), worker_(worker), frame_(frame) {
    if (sink_) begin_ = sink_->now_us();
  }
  ~ProfileScope() { if (sink_) record(); }

 private:
  void record() const;
  ProfileSink* sink_;
  const Instruction& ins_;
  Worker& worker_;
  const Frame& frame_;
  double begin_ = 0;
};

}  // namespace tiercel

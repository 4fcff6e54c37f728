#include "runtime/team.h"

#include <pthread.h>

#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/cpu.h"

namespace tiercel {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kSpin = std::chrono::microseconds(50);

class Pool {
 public:
  bool try_acquire() { return !busy_.exchange(true, std::memory_order_acquire); }
  void release() { busy_.store(false, std::memory_order_release); }

  // Only between try_acquire() and release().
  void run(int threads, Team::Body body, void* context) {
    while (static_cast<int>(helpers_.size()) < threads - 1) {
      const int index = static_cast<int>(helpers_.size()) + 1;
      helpers_.emplace_back([this, index, epoch = epoch_.load()] { serve(index, epoch); });
      helpers_.back().detach();  // they sleep until the process ends
    }
    body_ = body;
    context_ = context;
    threads_ = threads;
    error_ = nullptr;
    state_.reset(threads);
    remaining_.store(static_cast<uint32_t>(helpers_.size()), std::memory_order_relaxed);
    epoch_.fetch_add(1, std::memory_order_seq_cst);
    if (sleeping_.load(std::memory_order_seq_cst)) wake_all(epoch_);
    work(0);
    for (int spins = 0; remaining_.load(std::memory_order_acquire); ++spins) {
      if (spins < kSpins) {
        cpu_relax();
        continue;
      }
      waits_.store(true, std::memory_order_seq_cst);
      if (const uint32_t n = remaining_.load(std::memory_order_seq_cst)) sleep_while(remaining_, n);
      waits_.store(false, std::memory_order_relaxed);
    }
    if (error_) std::rethrow_exception(error_);
  }

 private:
  void work(int index) {
    Worker worker(index, threads_, &state_);
    try {
      body_(context_, worker);
    } catch (const TeamAborted&) {
    } catch (...) {
      std::lock_guard lock(error_mutex_);
      if (!error_) error_ = std::current_exception();
      state_.fail();
    }
  }

  void serve(int index, uint32_t seen) {
    for (;;) {
      wait_for_change(seen);
      ++seen;
      if (index < threads_) work(index);
      if (remaining_.fetch_sub(1, std::memory_order_seq_cst) == 1 && waits_.load(std::memory_order_seq_cst)) wake_all(remaining_);
    }
  }

  void wait_for_change(uint32_t seen) {
    const auto until = Clock::now() + kSpin;
    for (int i = 1; epoch_.load(std::memory_order_acquire) == seen; ++i) {
      cpu_relax();
      if (i % 64 == 0 && Clock::now() > until) break;
    }
    while (epoch_.load(std::memory_order_acquire) == seen) {
      sleeping_.fetch_add(1, std::memory_order_seq_cst);
      if (epoch_.load(std::memory_order_seq_cst) == seen) sleep_while(epoch_, seen);
      sleeping_.fetch_sub(1, std::memory_order_seq_cst);
    }
  }

  std::vector<std::thread> helpers_;
  TeamState state_;
  std::mutex error_mutex_;
  std::exception_ptr error_;
  Team::Body body_ = nullptr;
  void* context_ = nullptr;
  int threads_ = 1;
  alignas(64) std::atomic<bool> busy_{false};
  alignas(64) std::atomic<uint32_t> epoch_{0};
  alignas(64) std::atomic<int> sleeping_{0};
  alignas(64) std::atomic<uint32_t> remaining_{0};  // helpers in the run
  std::atomic<bool> waits_{false};                  // does the caller sleep until they have ended?
};

// Never destroyed: threads may outlive static objects. The child of a fork has none of the threads, so it drops the pool; nor has it
// the runs of other threads, which would be counted for ever.
std::atomic<Pool*> the_pool{nullptr};
std::atomic<int> the_runs{0};

void forget_in_children() {
  static std::once_flag once;
  std::call_once(once, [] {
    pthread_atfork(nullptr, nullptr, [] {
      the_pool.store(nullptr);
      the_runs.store(0);
    });
  });
}

Pool& pool() {
  Pool* p = the_pool.load(std::memory_order_acquire);
  if (p) return *p;
  auto fresh = std::make_unique<Pool>();
  if (the_pool.compare_exchange_strong(p, fresh.get())) return *fresh.release();
  return *p;
}

}  // namespace

int Team::max_threads() {
  static const int n = available_cpus();
  return n;
}

void Team::run(int threads, Body body, void* context) {
  forget_in_children();
  struct Count {
    int others = the_runs.fetch_add(1, std::memory_order_relaxed);
    ~Count() { the_runs.fetch_sub(1, std::memory_order_relaxed); }
  };
  const Count count;
  threads = std::min(threads, max_threads() - count.others);
  if (threads > 1) {
    Pool& p = pool();
    if (p.try_acquire()) {
      struct Release { Pool& p; ~Release() { p.release(); } } release{p};
      p.run(threads, body, context);
      return;
    }
  }
  Worker worker;
  body(context, worker);
}

}  // namespace tiercel

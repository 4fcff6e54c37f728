#include "base/fork.h"

#include <pthread.h>
#include <sched.h>

namespace tiercel {

// All mutexes of the kind, so that fork() can hold them all. Never destroyed: sessions may outlive static objects.
class ForkRegistry {
 public:
  static ForkRegistry& get() {
    static ForkRegistry* const registry = [] {
      pthread_atfork([] { get().lock_all(); }, [] { get().unlock_all(); }, [] { get().unlock_all(); });
      return new ForkRegistry;
    }();
    return *registry;
  }

  void add(ForkSafeMutex* m) {
    std::lock_guard lock(mutex_);
    m->next_ = first_;
    if (first_) first_->previous_ = m;
    first_ = m;
  }

  void remove(ForkSafeMutex* m) {
    std::lock_guard lock(mutex_);
    (m->previous_ ? m->previous_->next_ : first_) = m->next_;
    if (m->next_) m->next_->previous_ = m->previous_;
  }

 private:
  // Threads may hold one mutex and want another, so no order of locking is safe: take all, or let go of all and try again.
  void lock_all() {
    for (;;) {
      mutex_.lock();
      ForkSafeMutex* m = first_;
      while (m && m->mutex_.try_lock()) m = m->next_;
      if (!m) return;
      for (ForkSafeMutex* taken = first_; taken != m; taken = taken->next_) taken->mutex_.unlock();
      mutex_.unlock();
      sched_yield();
    }
  }

  void unlock_all() {
    for (ForkSafeMutex* m = first_; m; m = m->next_) m->mutex_.unlock();
    mutex_.unlock();
  }

  std::mutex mutex_;
  ForkSafeMutex* first_ = nullptr;
};

ForkSafeMutex::ForkSafeMutex() { ForkRegistry::get().add(this); }
ForkSafeMutex::~ForkSafeMutex() { ForkRegistry::get().remove(this); }

}  // namespace tiercel

// A mutex that fork() never finds locked: a child has only the thread that forked, and nobody to unlock the rest.
#pragma once
#include <mutex>

namespace tiercel {

// As std::mutex. fork() waits until none is held, so hold it briefly.
class ForkSafeMutex {
 public:
  ForkSafeMutex();
  ~ForkSafeMutex();
  ForkSafeMutex(const ForkSafeMutex&) = delete;
  ForkSafeMutex& operator=(const ForkSafeMutex&) = delete;
  void lock() { mutex_.lock(); }
  void unlock() { mutex_.unlock(); }
  bool try_lock() { return mutex_.try_lock(); }

 private:
  friend class ForkRegistry;
  std::mutex mutex_;
  ForkSafeMutex* next_ = nullptr;      // in the registry
  ForkSafeMutex* previous_ = nullptr;
};

}  // namespace tiercel

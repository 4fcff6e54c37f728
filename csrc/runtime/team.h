// The thread team: one pool for the process, entered once a run. The only code that starts threads.
//
// A run that finds the team busy (another session is running) goes on alone, so concurrent runs never have more threads than
// processors. Idle threads spin for about 50 us, then sleep. After fork() the child starts a team of its own when it needs one.
#pragma once
#include "base/worker.h"

namespace tiercel {

class Team {
 public:
  // Calls body(context, worker) on `threads` threads (at most the available processors; the calling one is worker 0) and returns
  // when all have. The first exception that a thread threw is thrown again here.
  using Body = void (*)(void* context, Worker& worker);
  static void run(int threads, Body body, void* context);

  template <class F>
  static void run(int threads, F&& f) {
    run(threads, [](void* c, Worker& w) { (*static_cast<std::remove_reference_t<F>*>(c))(w); }, &f);
  }
  static int max_threads();  // available processors
};

}  // namespace tiercel

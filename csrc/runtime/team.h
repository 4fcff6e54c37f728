// The thread team: one pool for the process, entered once a run. The only code that starts threads.
//
// Runs that find others under way leave them a processor each, and go on alone where the team is busy: after the first moments concurrent
// runs have no more threads than there are processors. Idle threads spin for about 50 us, then sleep. After fork() the child starts a team of its own when it needs one.
#pragma once
#include "base/worker.h"

namespace tiercel {

class Team {
 public:
  // Calls body(context, worker) on `threads` threads (at most the available processors less the other runs; the calling one is worker 0) and returns
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

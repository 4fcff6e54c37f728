#include "base/worker.h"

#include <sched.h>

namespace tiercel {
void Worker::yield_cpu() { sched_yield(); }
}  // namespace tiercel

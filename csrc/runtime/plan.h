// Memory plan: one arena for all intermediates, laid out by liveness.
#pragma once
#include <cstdint>
#include <vector>

namespace tiercel {

// A block that must hold `bytes` from instruction `first` to instruction `last`, both included.
struct PlanBlock {
  int64_t bytes = 0;
  int first = 0, last = 0;
  int64_t offset = 0;  // the answer
};

struct PlanResult {
  int64_t bytes = 0;       // of the arena
  int64_t live_bound = 0;  // most bytes alive at one instruction: no plan can be below
};

// Gives every block an offset such that blocks alive at the same time do not overlap. Greedy by size, best fit
// (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
PlanResult plan_arena(std::vector<PlanBlock>& blocks);

}  // namespace tiercel

#include "runtime/plan.h"

#include <algorithm>
#include <numeric>

#include "base/memory.h"

namespace tiercel {

PlanResult plan_arena(std::vector<PlanBlock>& blocks) {
  std::vector<int> order(blocks.size()), placed;
  std::iota(order.begin(), order.end(), 0);
  int last = 0;
  for (PlanBlock& b : blocks) {
    b.bytes = round_up(b.bytes, kAlignment);
    last = std::max(last, b.last);
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return blocks[a].bytes > blocks[b].bytes; });

  PlanResult result;
  std::vector<int> neighbours;  // placed blocks that are alive together with this one, by offset
  for (int i : order) {
    PlanBlock& b = blocks[i];
    if (!b.bytes) continue;
    neighbours.clear();
    for (int j : placed)
      if (blocks[j].first <= b.last && b.first <= blocks[j].last) neighbours.push_back(j);
    std::sort(neighbours.begin(), neighbours.end(), [&](int x, int y) { return blocks[x].offset < blocks[y].offset; });
    int64_t end = 0, best = -1, best_gap = INT64_MAX;
    for (int j : neighbours) {
      const int64_t gap = blocks[j].offset - end;
      if (gap >= b.bytes && gap < best_gap) { best = end; best_gap = gap; }
      end = std::max(end, blocks[j].offset + blocks[j].bytes);
    }
    b.offset = best >= 0 ? best : end;
    placed.push_back(i);
    result.bytes = std::max(result.bytes, b.offset + b.bytes);
  }

  std::vector<int64_t> change(static_cast<size_t>(last) + 2, 0);
  for (const PlanBlock& b : blocks) { change[b.first] += b.bytes; change[b.last + 1] -= b.bytes; }
  int64_t live = 0;
  for (int64_t c : change) result.live_bound = std::max(result.live_bound, live += c);
  return result;
}

}  // namespace tiercel

// Lists of elements as one range: where each begins, and the end. Work is cut over all of them at once.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

namespace tiercel {

struct Ranges {
  std::vector<int64_t> begin{0};
  int64_t count() const { return begin.back(); }
  // f(k, b, e) for elements [b, e) of list k, which together are [from, to) of the range.
  template <class F> void walk(int64_t from, int64_t to, F&& f) const {
    auto k = std::upper_bound(begin.begin(), begin.end(), from) - begin.begin() - 1;
    for (; from < to; ++k) {
      const int64_t end = std::min(to, begin[static_cast<size_t>(k) + 1]), first = begin[static_cast<size_t>(k)];
      if (end > from) f(k, from - first, end - first);
      from = std::max(from, end);
    }
  }
};

}  // namespace tiercel

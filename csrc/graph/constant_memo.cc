#include "graph/constant_memo.h"

#include <utility>

namespace tiercel {

std::vector<Tensor> ConstantMemo::get(std::string key, const std::vector<Tensor>& from, const Make& make) {
  for (const Tensor& t : from) {
    const void* const memory = memory_of(t);
    const int64_t kind[] = {static_cast<int64_t>(t.dtype()), static_cast<int64_t>(t.layout()), t.shape().rank()};
    key.append(reinterpret_cast<const char*>(&memory), sizeof memory).append(reinterpret_cast<const char*>(kind), sizeof kind);
    for (const Dim d : t.shape()) key.append(reinterpret_cast<const char*>(&d), sizeof d);
  }
  auto [it, fresh] = entries_.try_emplace(std::move(key));
  if (fresh) {
    try {
      it->second.made = make();
      it->second.from = from;
    } catch (...) {
      entries_.erase(it);
      throw;
    }
  }
  it->second.used = true;
  return it->second.made;
}

void ConstantMemo::begin() {
  for (auto it = entries_.begin(); it != entries_.end();) {
    if (std::exchange(it->second.used, false)) ++it;
    else it = entries_.erase(it);
  }
}

}  // namespace tiercel

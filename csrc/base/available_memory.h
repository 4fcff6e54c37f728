// How much memory there is to take. Systems grant more than they have, and kill whoever then uses it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace tiercel {

// Bytes that could be allocated and used now, by this machine's and this cgroup's account.
int64_t available_memory();
// Throws Error(kFail) where that is less than `bytes`. Small requests are not looked at.
void require_memory(size_t bytes);

}  // namespace tiercel

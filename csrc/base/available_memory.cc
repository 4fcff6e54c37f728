#include "base/available_memory.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "base/status.h"

namespace tiercel {
namespace {

// A number in a file that holds nothing else, or -1 (also for cgroup's "max").
int64_t number_in(const char* path) {
  int64_t n;
  std::ifstream file(path);
  return file >> n ? n : -1;
}

// The value of `key` in a file of "key value" lines, or 0.
int64_t value_in(const char* path, const std::string& key) {
  std::ifstream file(path);
  std::string name, rest;
  for (int64_t v; file >> name >> v; std::getline(file, rest)) if (name == key) return v;
  return 0;
}

}  // namespace

int64_t available_memory() {
  int64_t free = value_in("/proc/meminfo", "MemAvailable:");
  free = free > 0 ? free << 10 : INT64_MAX;
  // What the group may still take; pages of files are given back when memory is short.
  const auto group = [&](const char* limit, const char* used, const char* stat) {
    const int64_t most = number_in(limit), now = number_in(used);
    if (most >= 0 && now >= 0) free = std::min(free, most - now + value_in(stat, "inactive_file") + value_in(stat, "active_file"));
  };
  group("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat");
  group("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes", "/sys/fs/cgroup/memory/memory.stat");
  return std::max<int64_t>(free, 0);
}

void require_memory(size_t bytes) {
  constexpr size_t kWorthAsking = size_t{1} << 30;
  if (bytes < kWorthAsking) return;
  if (const int64_t free = available_memory(); bytes > static_cast<size_t>(free))
    fail(Code::kFail, "out of memory: ", bytes, " bytes are needed, ", free, " are available");
}

}  // namespace tiercel

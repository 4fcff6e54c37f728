#include "base/memory.h"

#include <sys/mman.h>

#include <cstdlib>

#include "base/status.h"

namespace tiercel {
namespace {
struct Free {
  int64_t bytes;
  void operator()(void* p) const { std::free(p); }
};
}  // namespace

Buffer allocate(size_t bytes) {
  constexpr size_t kHuge = size_t{2} << 20;
  const bool huge = bytes >= 2 * kHuge;
  const size_t align = huge ? kHuge : kAlignment;
  if (bytes > size_t{1} << 46) fail(Code::kFail, "cannot allocate ", bytes, " bytes");
  void* p = nullptr;
  if (posix_memalign(&p, align, bytes ? bytes : 1) != 0 || !p)
    fail(Code::kFail, "out of memory: cannot allocate ", bytes, " bytes");
#ifdef MADV_HUGEPAGE
  if (huge) madvise(p, bytes / kHuge * kHuge, MADV_HUGEPAGE);
#endif
  return Buffer(p, Free{static_cast<int64_t>(bytes)});
}

int64_t allocated_bytes(const Buffer& buffer) {
  const Free* f = std::get_deleter<Free>(buffer);
  return f ? f->bytes : 0;
}

}  // namespace tiercel

#include "base/memory.h"

#include <sys/mman.h>

#include <cstdlib>
#include <mutex>

#include "base/available_memory.h"
#include "base/status.h"

namespace tiercel {
namespace {

struct Free {
  int64_t bytes;
  void operator()(void* p) const { std::free(p); }
};

struct PartOfSlab {
  Buffer slab;
  int64_t bytes;
  void operator()(void*) const {}
};
}  // namespace

Buffer allocate(size_t bytes) {
  constexpr size_t kHuge = size_t{2} << 20, kSmall = 512;
  if (bytes <= kSmall) {  // the numbers of shapes: one block with its count of owners
    auto block = std::make_shared_for_overwrite<char[]>(bytes + kAlignment);
    char* const p = block.get() + (-reinterpret_cast<uintptr_t>(block.get()) & (kAlignment - 1));
    return Buffer(std::move(block), p);
  }
  const bool huge = bytes >= 2 * kHuge;
  const size_t align = huge ? kHuge : kAlignment;
  require_memory(bytes);
  void* p = nullptr;
  if (posix_memalign(&p, align, bytes ? bytes : 1) != 0 || !p)
    fail(Code::kFail, "out of memory: cannot allocate ", bytes, " bytes");
#ifdef MADV_HUGEPAGE
  if (huge) madvise(p, bytes / kHuge * kHuge, MADV_HUGEPAGE);
#endif
  return Buffer(p, Free{static_cast<int64_t>(bytes)});
}

int64_t allocated_bytes(const Buffer& buffer) {
  if (const Free* f = std::get_deleter<Free>(buffer)) return f->bytes;
  const PartOfSlab* part = std::get_deleter<PartOfSlab>(buffer);
  return part ? part->bytes : 0;
}

Buffer allocate_lasting(size_t bytes) {
  constexpr size_t kSlab = size_t{16} << 20, kLarge = size_t{4} << 20;
  if (bytes >= kLarge) return allocate(bytes);
  static std::mutex mutex;
  static std::weak_ptr<void> current;  // weak: the slab belongs to its blocks
  static size_t used = 0;
  std::lock_guard lock(mutex);
  Buffer slab = current.lock();
  if (!slab || used + bytes > kSlab) {
    slab = allocate(kSlab);
    current = slab;
    used = 0;
  }
  char* const p = static_cast<char*>(slab.get()) + used;
  used += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return Buffer(p, PartOfSlab{std::move(slab), static_cast<int64_t>(bytes)});
}

}  // namespace tiercel

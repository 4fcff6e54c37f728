// Files mapped into memory, read-only, and what tells a Tensor that lies in one from any other.
#pragma once
#include <cstddef>
#include <string>

#include "base/memory.h"
#include "base/tensor.h"

namespace tiercel {

// A file's bytes. `owner` keeps them; copies and aliases of it are recognised by release_pages().
struct FileBytes {
  Buffer owner;
  const unsigned char* data = nullptr;  // 64-byte aligned; never null
  size_t size = 0;
};

// Files up to this size are read instead of mapped: as fast, and safe from a writer that truncates the file while it is in use
// (a truncated map is a SIGBUS).
inline constexpr size_t kReadBelow = size_t{16} << 20;

// Reads or maps a regular file of any size. Errors: kNoSuchFile (missing), kInvalidArgument (a directory, a pipe, a device),
// kFail (no permission, or what the system says).
FileBytes open_file(const std::string& path);

// Does the tensor's memory (or, when it is deferred, the bytes behind it) lie in a mapped file?
bool in_file_map(const Tensor& tensor);
// Gives the physical pages that lie wholly inside the tensor's mapped bytes back to the system. They are read again from
// the file when somebody looks: always safe, worth it after a weight has been packed. No effect on other tensors.
void release_pages(const Tensor& tensor);
void release_pages(const Buffer& owner, const void* data, size_t size);

}  // namespace tiercel

#include "base/file_map.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace tiercel {
namespace {

struct Unmap {
  size_t size;
  void operator()(void* p) const { munmap(p, size); }
};

struct Descriptor {
  int fd;
  ~Descriptor() { if (fd >= 0) ::close(fd); }
};

}  // namespace

FileBytes open_file(const std::string& path) {
  // O_NONBLOCK: opening a pipe that nobody writes must not hang.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) {
    if (errno == ENOENT || errno == ENOTDIR) fail(Code::kNoSuchFile, "Load model ", path, " failed. File doesn't exist");
    fail(Code::kFail, "cannot open ", path, ": ", std::strerror(errno));
  }
  struct stat info {};
  if (fstat(file.fd, &info) != 0) fail(Code::kFail, "cannot read ", path, ": ", std::strerror(errno));
  if (S_ISDIR(info.st_mode)) fail(Code::kInvalidArgument, path, " is a directory, not a file");
  if (!S_ISREG(info.st_mode)) fail(Code::kInvalidArgument, path, " is not a regular file");

  FileBytes bytes;
  bytes.size = static_cast<size_t>(info.st_size);
  if (bytes.size > kReadBelow) {
    void* p = mmap(nullptr, bytes.size, PROT_READ, MAP_PRIVATE, file.fd, 0);
    if (p == MAP_FAILED) fail(Code::kFail, "cannot map ", path, " (", bytes.size, " bytes): ", std::strerror(errno));
    bytes.owner = Buffer(p, Unmap{bytes.size});
  } else {
    bytes.owner = allocate(bytes.size);
    size_t got = 0;
    while (got < bytes.size) {
      const ssize_t n = ::read(file.fd, static_cast<char*>(bytes.owner.get()) + got, bytes.size - got);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(Code::kFail, "cannot read ", path, ": ", std::strerror(errno));
      if (n == 0) break;
      got += static_cast<size_t>(n);
    }
    bytes.size = got;
  }
  bytes.data = static_cast<const unsigned char*>(bytes.owner.get());
  return bytes;
}

bool in_file_map(const Tensor& tensor) {
  return std::get_deleter<Unmap>(tensor.is_deferred() ? tensor.deferred_bytes().owner : tensor.owner()) != nullptr;
}

void release_pages(const Tensor& tensor) {
  if (tensor.dtype() == DType::kString) return;
  if (tensor.is_deferred()) release_pages(tensor.deferred_bytes().owner, tensor.deferred_bytes().data, static_cast<size_t>(tensor.bytes()));
  else release_pages(tensor.owner(), tensor.data(), static_cast<size_t>(tensor.bytes()));
}

void release_pages(const Buffer& owner, const void* data, size_t size) {
  const Unmap* map = std::get_deleter<Unmap>(owner);
  if (!map) return;
  static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + size) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
}

}  // namespace tiercel

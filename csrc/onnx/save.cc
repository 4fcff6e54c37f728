#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "onnx/export.h"
#include "onnx/onnx.h"

namespace tiercel::onnx {
namespace {

constexpr int64_t kProtobufLimit = (int64_t{1} << 31) - 1;  // bytes that other protobuf readers accept

// A file written under another name and moved in place when complete: readers (and maps) of an older one keep theirs.
class NewFile {
 public:
  explicit NewFile(const std::string& path) : path_(path), temporary_(cat(path, ".tmp", ::getpid())) {
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd_ < 0) bad("create");
  }
  ~NewFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!temporary_.empty()) ::unlink(temporary_.c_str());
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  void write(const void* data, size_t size) {
    const char* p = static_cast<const char*>(data);
    while (size) {
      const ssize_t n = ::write(fd_, p, std::min(size, size_t{1} << 30));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) bad("write");
      p += n;
      size -= static_cast<size_t>(n);
      at_ += n;
    }
  }
  void pad_to(int64_t offset) {
    static const char zeros[DataFile::kPage] = {};
    while (at_ < offset) write(zeros, static_cast<size_t>(std::min(offset - at_, DataFile::kPage)));
  }
  void commit() {
    if (::close(fd_) != 0) { fd_ = -1; bad("write"); }
    fd_ = -1;
    if (::rename(temporary_.c_str(), path_.c_str()) != 0) bad("write");
    temporary_.clear();
  }

 private:
  [[noreturn]] void bad(const char* what) const { fail(Code::kFail, "cannot ", what, " ", path_, ": ", std::strerror(errno)); }
  std::string path_, temporary_;
  int fd_ = -1;
  int64_t at_ = 0;
};

}  // namespace

std::string serialize(const Model& model) {
  model.graph->check();
  const Message m = model_message(model, nullptr);
  if (static_cast<int64_t>(m.size()) > kProtobufLimit)
    fail(Code::kInvalidArgument, "the model takes ", m.size(), " bytes, more than a protobuf may have: save it to a file");
  std::string s;
  s.reserve(m.size());
  m.each_piece([&](const void* p, size_t n) { s.append(static_cast<const char*>(p), n); });
  return s;
}

void save(const Model& model, const std::string& path, int64_t external_above) {
  model.graph->check();
  DataFile data(path.substr(path.rfind('/') + 1) + ".data");
  const bool external = constant_bytes(*model.graph) > std::min(external_above, kProtobufLimit - (int64_t{1} << 24));
  const Message m = model_message(model, external ? &data : nullptr);
  if (static_cast<int64_t>(m.size()) > kProtobufLimit)
    fail(Code::kInvalidArgument, "the model takes ", m.size(), " bytes beside its large tensors, more than a protobuf may have");
  NewFile model_file(path);
  m.each_piece([&](const void* p, size_t n) { model_file.write(p, n); });
  if (!data.pieces().empty()) {
    NewFile data_file(path + ".data");
    for (const DataFile::Piece& piece : data.pieces()) {
      data_file.pad_to(piece.offset);
      data_file.write(bytes_of_tensor(piece.tensor).data, static_cast<size_t>(piece.tensor.bytes()));
    }
    data_file.commit();
  }
  model_file.commit();
}

}  // namespace tiercel::onnx

// Writing protobuf: a message grows field by field; the bytes of tensors are referred to, not copied, until the end.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/tensor.h"

namespace tiercel::onnx {

class Message {
 public:
  Message& integer(uint32_t field, int64_t v);
  Message& real(uint32_t field, float v);
  Message& bytes(uint32_t field, std::string_view v);
  Message& text(uint32_t field, std::string_view v) { return v.empty() ? *this : bytes(field, v); }  // left out when empty
  Message& message(uint32_t field, const Message& m);
  Message& blob(uint32_t field, const void* data, size_t size, Buffer owner);

  uint64_t size() const { return small_.size() + blob_bytes_; }
  // The message in pieces, in order.
  void each_piece(const std::function<void(const void*, size_t)>& f) const;

 private:
  void tag(uint32_t field, uint32_t wire) { varint(uint64_t{field} << 3 | wire); }
  void varint(uint64_t v);
  struct Blob { size_t at; const void* data; size_t size; Buffer owner; };  // stands before small_[at]
  std::string small_;
  std::vector<Blob> blobs_;
  uint64_t blob_bytes_ = 0;
};

}  // namespace tiercel::onnx

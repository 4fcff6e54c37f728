#include "onnx/message.h"

namespace tiercel::onnx {

void Message::varint(uint64_t v) {
  for (; v > 127; v >>= 7) small_ += static_cast<char>(v | 128);
  small_ += static_cast<char>(v);
}

Message& Message::integer(uint32_t field, int64_t v) {
  tag(field, 0);
  varint(static_cast<uint64_t>(v));
  return *this;
}

Message& Message::real(uint32_t field, float v) {
  tag(field, 5);
  small_.append(reinterpret_cast<const char*>(&v), sizeof v);
  return *this;
}

Message& Message::bytes(uint32_t field, std::string_view v) {
  tag(field, 2);
  varint(v.size());
  small_ += v;
  return *this;
}

Message& Message::message(uint32_t field, const Message& m) {
  tag(field, 2);
  varint(m.size());
  for (Blob b : m.blobs_) {
    b.at += small_.size();
    blobs_.push_back(std::move(b));
  }
  small_ += m.small_;
  blob_bytes_ += m.blob_bytes_;
  return *this;
}

Message& Message::blob(uint32_t field, const void* data, size_t size, Buffer owner) {
  tag(field, 2);
  varint(size);
  blobs_.push_back({small_.size(), data, size, std::move(owner)});
  blob_bytes_ += size;
  return *this;
}

void Message::each_piece(const std::function<void(const void*, size_t)>& f) const {
  size_t at = 0;
  for (const Blob& b : blobs_) {
    if (b.at > at) f(small_.data() + at, b.at - at);
    at = b.at;
    if (b.size) f(b.data, b.size);
  }
  if (small_.size() > at) f(small_.data() + at, small_.size() - at);
}

}  // namespace tiercel::onnx

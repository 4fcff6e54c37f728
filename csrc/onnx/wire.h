// The protobuf wire format: a bounds-checked cursor over one message that knows where it is.
// Source: https://protobuf.dev/programming-guides/encoding
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace tiercel::onnx {

enum class Wire : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kGroup = 3, kEndGroup = 4, kFixed32 = 5 };

// Reads one message: while (r.next()) switch (r.field()) { case 1: x = r.integer("x"); break; default: r.skip(); }
// Each field must be read or skipped once. Every error is an Error(kInvalidProtobuf) that names the byte offset in the file
// and the path of fields, such as ModelProto.graph.node[12].attribute[1].t.
class Reader {
 public:
  static constexpr int kMaxDepth = 200;  // of nested messages; protobuf's own readers allow 100

  Reader(const uint8_t* data, size_t size, const char* message)
      : base_(data), p_(data), end_(data + size), name_(message) {}
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  // A second reader over what this one has not read yet; for two walks over one message.
  Reader restart() const { return Reader(*this, 0); }

  bool next();
  uint32_t field() const { return field_; }
  size_t offset() const { return static_cast<size_t>(p_ - base_); }
  size_t remaining() const { return static_cast<size_t>(end_ - p_); }
  void skip();

  // The value of the current field; `name` (and `index` when it is repeated) are for errors.
  uint64_t varint(const char* name);
  int64_t integer(const char* name) { return static_cast<int64_t>(varint(name)); }
  int32_t integer32(const char* name) { return static_cast<int32_t>(varint(name)); }
  float fixed_float(const char* name);
  std::string_view bytes(const char* name, int64_t index = -1);
  std::string string(const char* name) { return std::string(bytes(name)); }
  Reader message(const char* name, int64_t index = -1);  // this reader must outlive it

  // A repeated number, packed or not: f(value) for each that this occurrence of the field holds.
  template <class F> void each_varint(const char* name, F f) {
    if (wire_ != Wire::kBytes) return f(varint(name));
    Reader packed = message(name);
    while (packed.p_ != packed.end_) f(packed.raw_varint(name));
  }
  template <class T, class F> void each_fixed(const char* name, F f) {
    constexpr Wire kScalar = sizeof(T) == 4 ? Wire::kFixed32 : Wire::kFixed64;
    if (wire_ == kScalar) {
      T v;
      take(&v, sizeof v);
      return f(v);
    }
    Reader packed = message(name);
    if (packed.remaining() % sizeof(T)) packed.fail("packed length ", packed.remaining(), " is not a multiple of ", sizeof(T));
    while (packed.p_ != packed.end_) {
      T v;
      packed.take(&v, sizeof v);
      f(v);
    }
  }
  void integers(const char* name, std::vector<int64_t>& to) {
    each_varint(name, [&](uint64_t v) { to.push_back(static_cast<int64_t>(v)); });
  }
  // Bytes that this occurrence of a repeated number takes: its payload, without reading it.
  size_t payload_size();

  template <class... A> [[noreturn]] void fail(const A&... a) const { raise(Code::kInvalidProtobuf, cat(a...)); }
  [[noreturn]] void raise(Code code, const std::string& message) const;  // adds offset and path
  std::string path() const;

 private:
  Reader(Reader* parent, const uint8_t* p, const uint8_t* end, const char* name, int64_t index)
      : base_(parent->base_), p_(p), end_(end), parent_(parent), name_(name), index_(index), depth_(parent->depth_ + 1) {}
  Reader(const Reader& r, int) : base_(r.base_), p_(r.p_), end_(r.end_), parent_(r.parent_), name_(r.name_), index_(r.index_), depth_(r.depth_) {}
  uint64_t raw_varint(const char* name);
  void take(void* to, size_t n);
  void expect(Wire wire, const char* name) const;
  void skip_value(Wire wire, uint32_t field, int depth);

  const uint8_t* base_;
  const uint8_t* p_;
  const uint8_t* end_;
  const Reader* parent_ = nullptr;
  const char* name_;
  int64_t index_ = -1;
  int depth_ = 0;
  uint32_t field_ = 0;
  Wire wire_ = Wire::kVarint;
};

}  // namespace tiercel::onnx

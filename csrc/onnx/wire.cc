#include "onnx/wire.h"

#include <cstring>

namespace tiercel::onnx {
namespace {

const char* wire_name(Wire w) {
  switch (w) {
    case Wire::kVarint: return "a varint";
    case Wire::kFixed64: return "8 bytes";
    case Wire::kBytes: return "a length and bytes";
    case Wire::kFixed32: return "4 bytes";
    default: return "a group";
  }
}

}  // namespace

std::string Reader::path() const {
  std::string s = parent_ ? parent_->path() + "." + name_ : name_;
  if (index_ >= 0) s += "[" + std::to_string(index_) + "]";
  return s;
}

void Reader::raise(Code code, const std::string& message) const {
  throw Error(code, cat("at byte ", offset(), ", in ", path(), ": ", message));
}

bool Reader::next() {
  if (p_ == end_) return false;
  const uint64_t tag = raw_varint("field tag");
  if (tag >> 32 || !(tag >> 3)) fail("field tag ", tag, " is out of range");
  if ((tag & 7) > 5) fail("wire type ", tag & 7, " does not exist");
  field_ = static_cast<uint32_t>(tag >> 3);
  wire_ = static_cast<Wire>(tag & 7);
  if (wire_ == Wire::kEndGroup) fail("a group ends that did not begin");
  return true;
}

uint64_t Reader::raw_varint(const char* name) {
  uint64_t value = 0;
  for (int shift = 0; shift < 70; shift += 7) {
    if (p_ == end_) fail(name, ": the data ends inside a number");
    const uint8_t byte = *p_++;
    value |= static_cast<uint64_t>(byte & 127) << shift;
    if (byte < 128) return value;
  }
  fail(name, ": a number of more than 10 bytes");
}

void Reader::expect(Wire wire, const char* name) const {
  if (wire_ != wire) fail(name, ": expected ", wire_name(wire), ", found ", wire_name(wire_));
}

uint64_t Reader::varint(const char* name) {
  expect(Wire::kVarint, name);
  return raw_varint(name);
}

void Reader::take(void* to, size_t n) {
  if (remaining() < n) fail("the data ends inside a number: ", n, " bytes expected, ", remaining(), " left");
  std::memcpy(to, p_, n);
  p_ += n;
}

float Reader::fixed_float(const char* name) {
  expect(Wire::kFixed32, name);
  float v;
  take(&v, sizeof v);
  return v;
}

std::string_view Reader::bytes(const char* name, int64_t index) {
  expect(Wire::kBytes, name);
  const uint64_t size = raw_varint(name);
  if (size > remaining()) {
    const std::string at = index < 0 ? "" : cat("[", index, "]");
    fail(name, at, ": ", size, " bytes expected, but the ", parent_ ? "enclosing message" : "file", " has ", remaining(),
         " left (truncated?)");
  }
  const std::string_view found(reinterpret_cast<const char*>(p_), size);
  p_ += size;
  return found;
}

Reader Reader::message(const char* name, int64_t index) {
  if (depth_ >= kMaxDepth) fail(name, ": messages are nested more than ", kMaxDepth, " deep");
  const std::string_view m = bytes(name, index);
  const auto* begin = reinterpret_cast<const uint8_t*>(m.data());
  return Reader(this, begin, begin + m.size(), name, index);
}

size_t Reader::payload_size() {
  const uint8_t* before = p_;
  if (wire_ == Wire::kBytes) return bytes("packed values").size();
  skip();
  return static_cast<size_t>(p_ - before);
}

void Reader::skip() { skip_value(wire_, field_, depth_); }

void Reader::skip_value(Wire wire, uint32_t field, int depth) {
  const auto drop = [&](uint64_t n) {
    if (n > remaining()) fail("field ", field, ": ", n, " bytes expected, ", remaining(), " left (truncated?)");
    p_ += n;
  };
  switch (wire) {
    case Wire::kVarint: raw_varint("unknown field"); return;
    case Wire::kFixed64: return drop(8);
    case Wire::kFixed32: return drop(4);
    case Wire::kBytes: return drop(raw_varint("unknown field"));
    case Wire::kEndGroup: fail("a group ends that did not begin");
    case Wire::kGroup: break;
  }
  if (depth >= kMaxDepth) fail("groups are nested more than ", kMaxDepth, " deep");
  for (;;) {
    const uint64_t tag = raw_varint("field tag");
    if (tag >> 32 || !(tag >> 3) || (tag & 7) > 5) fail("field tag ", tag, " is out of range");
    if (static_cast<Wire>(tag & 7) == Wire::kEndGroup) {
      if (tag >> 3 != field) fail("group ", field, " is ended by group ", tag >> 3);
      return;
    }
    skip_value(static_cast<Wire>(tag & 7), static_cast<uint32_t>(tag >> 3), depth + 1);
  }
}

}  // namespace tiercel::onnx

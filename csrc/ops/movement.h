// What the operators that only move elements share: copies between strided views, for elements of any type.
#pragma once
#include <array>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "ops/registry.h"

namespace tiercel {

// An element as a mover sees it. Sub-byte types count as one byte: see sub_byte().
struct Element {
  int64_t size = 1;  // bytes
  bool string = false;
  explicit Element(DType t) : size(t == DType::kString ? static_cast<int64_t>(sizeof(std::string)) : std::max<int64_t>(bytes_of(t, 1), 1)),
                              string(t == DType::kString) {}
};

// n contiguous elements; strings are assigned.
inline void copy_elements(Element e, void* to, const void* from, int64_t n) {
  if (e.string) std::copy_n(static_cast<const std::string*>(from), n, static_cast<std::string*>(to));
  else if (n > 0) std::memcpy(to, from, static_cast<size_t>(n * e.size));
}
// n copies of the element at `value`.
void fill_elements(Element e, void* to, const void* value, int64_t n);

inline char* offset(void* p, int64_t elements, Element e) { return static_cast<char*>(p) + elements * e.size; }
inline const char* offset(const void* p, int64_t elements, Element e) { return static_cast<const char*>(p) + elements * e.size; }

// Strides of a row-major shape, in elements.
using Strides = std::array<int64_t, kMaxRank>;
Strides strides_of(const Shape& shape);

// Extents before, at and after an axis: [outer, extent, inner].
struct AxisSplit {
  int64_t outer, extent, inner;
  AxisSplit(const Shape& s, int axis) : outer(s.count(0, axis)), extent(s[axis]), inner(s.count(axis + 1, s.rank())) {}
};

// Bytes that one task of a mover handles, and the grain that makes tasks of `bytes_each` about that big.
inline constexpr int64_t kMoveBytes = 64 << 10;
inline int64_t move_grain(int64_t bytes_each) { return bytes_each >= kMoveBytes ? 1 : kMoveBytes / std::max<int64_t>(bytes_each, 1); }

// out[sum i_k * out_stride_k] = in[sum i_k * in_stride_k] over all 0 <= i_k < extent_k. Built once for a set of shapes: axes
// are merged and ordered, the inner loop is chosen (rows, a transposed plane, or single elements), work is cut into tasks.
class StridedCopy {
 public:
  struct Axis { int64_t extent, in, out; };  // strides in elements, of any sign
  StridedCopy(Element e, std::span<const Axis> axes);
  StridedCopy(Element e, std::initializer_list<Axis> axes) : StridedCopy(e, std::span(axes.begin(), axes.size())) {}

  int64_t tasks() const { return tasks_; }
  int64_t grain() const { return grain_; }
  void run(const void* in, void* out, int64_t first_task, int64_t last_task) const;
  void run(const void* in, void* out, Worker& worker) const {
    worker.parallel_for(tasks_, grain_, [&](int64_t b, int64_t e) { run(in, out, b, e); });
  }

 private:
  enum class Mode { kRows, kPlane, kElements };
  void block(const char* in, char* out, int64_t rows, int64_t cols) const;

  Element element_;
  Mode mode_ = Mode::kElements;
  std::vector<Axis> outer_;     // walked task by task
  Axis a_{1, 0, 0}, b_{1, 0, 0};  // the inner plane: b innermost in the output
  int64_t block_a_ = 1, block_b_ = 1, tasks_ = 0, grain_ = 1;
};

// Several copies as one parallel loop: the parts of a Concat or a Split.
class CopyList {
 public:
  void add(StridedCopy copy, int in, int64_t in_offset, int out, int64_t out_offset, Element e);
  void run(const Args& args, Worker& worker) const;

 private:
  struct Part { StridedCopy copy; int in, out; int64_t in_bytes, out_bytes, first_task; };
  std::vector<Part> parts_;
  int64_t tasks_ = 0, grain_ = 1;
};

// Copies of parts of rows that lie at equal distances, the same number in every input and output. A task is some rows of every part: parts share
// the cache lines of an output, and a thread meets rows that it wrote before.
class RowCopies {
 public:
  RowCopies(int64_t images, int64_t rows) : images_(images), rows_(rows) {}
  // Of blocked f32 tensors: rows are pixels.
  explicit RowCopies(const Shape& blocked) : RowCopies(blocked[0], blocked.count(2, blocked.rank())) {}

  struct Place { int64_t at, row, image; };  // bytes: of the first row's part, from row to row, and from image to image
  void add(int in, Place from, int out, Place to, int64_t bytes) { parts_.push_back({in, out, from, to, bytes}); }
  // Channels [from, from + n) of a blocked input become [to, to + n) of an output; the last ones bring the zeros of channels that do not exist.
  void add_channels(int in, const Shape& in_shape, int64_t from, int out, const Shape& out_shape, int64_t to, int64_t n);
  void run(const Args& args, Worker& worker) const;

 private:
  static constexpr int kZeros = -1;                                // in place of an input
  static constexpr int64_t kTaskBytes = 16 << 10, kFewRows = 8;    // of a task, at least
  struct Part { int in, out; Place from, to; int64_t bytes; };
  std::vector<Part> parts_;
  int64_t images_, rows_;
};

// A prepare function for elements below a byte too: `prepare` sees them as bytes; they are unpacked before its kernel runs and
// packed after.
void wrap_sub_byte(PrepareContext& ctx);
template <PrepareFn prepare> void sub_byte(PrepareContext& ctx) {
  prepare(ctx);
  wrap_sub_byte(ctx);
}

// Fails when a tensor of this (known) shape could not lie in this machine's memory.
void check_fits(const InferContext& ctx, DType dtype, const Shape& shape);

// The elements of input i when they are known and few; as InferContext::ints, without copying a large constant.
std::optional<std::vector<Dim>> small_ints(const InferContext& ctx, int i);
// The same, when every element is a number.
std::optional<std::vector<int64_t>> known_ints(const InferContext& ctx, int i);
std::optional<std::vector<int64_t>> known_ints(const PrepareContext& ctx, int i);
// The number of elements of input i, a 1-D tensor, when known.
std::optional<int64_t> length_of(const InferContext& ctx, int i);

// A shape of `rank` fresh symbols.
Shape fresh_shape(const InferContext& ctx, int rank);

// Traffic of an operator that reads and writes every output element once.
void move_cost(PrepareContext& ctx);

}  // namespace tiercel

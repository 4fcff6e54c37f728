// Tensor: a typed, shaped, contiguous (row-major) block of shared memory.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/memory.h"
#include "base/shape.h"

namespace tiercel {

// How the elements of a logical [N,C,spatial...] shape lie in memory.
enum class Layout : uint8_t {
  kPlain,    // row-major in the order of the shape
  kBlocked,  // NCHW16c: [N, ceil(C/16), spatial..., 16], channels past C are zero
};
inline constexpr int kChannelBlock = 16;

// Elements that a logical shape occupies in a layout (padding channels included).
int64_t storage_count(const Shape& shape, Layout layout);
// A logical shape as it lies in memory: [N, C, spatial...] in NCHW16c is [N, ceil(C/16), spatial..., 16]. An operator that is given this
// shape in place of the logical one, and leaves axis 1 in whole blocks, works on both layouts.
Shape storage_shape(const Shape& shape, Layout layout);

class Tensor {
 public:
  Tensor() = default;  // empty: defined() is false
  // Uninitialised memory of its own (strings are constructed empty).
  Tensor(DType dtype, const Shape& shape, Layout layout = Layout::kPlain);
  // Memory of somebody else, kept alive by `owner`.
  Tensor(DType dtype, const Shape& shape, void* data, Buffer owner, Layout layout = Layout::kPlain)
      : dtype_(dtype), layout_(layout), shape_(shape), data_(data), owner_(std::move(owner)) {}

  // Bytes that are not aligned for their type (weights inside a file): copied to aligned memory when data() is first
  // asked for, by whichever thread comes first; all copies of this Tensor share the result.
  static Tensor deferred(DType dtype, const Shape& shape, const void* bytes, Buffer owner);

  bool defined() const { return dtype_ != DType::kUndefined; }
  DType dtype() const { return dtype_; }
  Layout layout() const { return layout_; }
  const Shape& shape() const { return shape_; }
  int64_t count() const { return shape_.count(); }
  int64_t bytes() const { return bytes_of(dtype_, storage_count(shape_, layout_)); }
  void* data() const { return deferred_ ? materialise() : data_; }
  template <class T> T* as() const { return static_cast<T*>(data()); }
  const Buffer& owner() const { return owner_; }
  // The same memory under another shape of equal element count.
  Tensor reshaped(const Shape& shape) const { return viewed(shape, layout_); }
  // The same memory as another shape and layout that take as many bytes.
  Tensor viewed(const Shape& shape, Layout layout) const {
    Tensor t = *this;
    t.shape_ = shape;
    t.layout_ = layout;
    return t;
  }
  // This tensor, or an aligned copy of a deferred one that is not kept: for reading the data once. `split` runs f(begin, end) on chunks that
  // cover [0, n), on several threads maybe.
  using Split = std::function<void(int64_t n, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& f)>;
  Tensor transient(const Split& split = {}) const;
  // Copies `size` bytes from byte `begin` on, of a deferred tensor too, which stays one.
  void read(int64_t begin, int64_t size, void* to) const;
  // Where a deferred tensor's bytes come from.
  struct Source { const void* data; Buffer owner; };
  bool is_deferred() const { return deferred_; }
  const Source& deferred_bytes() const { return *static_cast<const Source*>(data_); }

  // The elements of an integer or bool tensor as int64.
  std::vector<int64_t> ints() const;
  // The elements of any real numeric tensor as double.
  std::vector<double> doubles() const;

  template <class T>
  static Tensor of(const Shape& shape, std::initializer_list<T> values) {
    Tensor t(dtype_of<T>, shape);
    std::copy(values.begin(), values.end(), t.as<T>());
    return t;
  }
  static Tensor from_ints(DType dtype, const Shape& shape, const int64_t* values);  // integer, bool or f32/f64 dtypes

 private:
  void* materialise() const;

  DType dtype_ = DType::kUndefined;
  Layout layout_ = Layout::kPlain;
  bool deferred_ = false;  // data_ and owner_ are a Deferred
  Shape shape_;
  void* data_ = nullptr;
  Buffer owner_;
};

}  // namespace tiercel

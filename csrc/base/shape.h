// Shape: up to kMaxRank extents held in place, so that shape arithmetic allocates nothing.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "base/status.h"

namespace tiercel {

inline constexpr int kMaxRank = 16;

// An extent that is known, or a symbol: kSymbolBase + id, where the Graph's SymbolTable keeps the names. Two equal symbols
// are equal extents; a fresh unknown gets a symbol of its own. Symbols lie far below any number that a model computes
// with, so the same type carries known integer values (which may be negative) through shape arithmetic.
using Dim = int64_t;
inline constexpr Dim kSymbolBase = INT64_MIN;
constexpr bool is_symbol(Dim d) { return d < INT64_MIN / 2; }

class Shape {
 public:
  Shape() = default;
  Shape(std::initializer_list<Dim> dims) { assign(dims.begin(), dims.size()); }
  explicit Shape(std::span<const Dim> dims) { assign(dims.data(), dims.size()); }

  int rank() const { return rank_; }
  Dim operator[](int i) const { return dims_[i]; }
  Dim& operator[](int i) { return dims_[i]; }
  Dim back() const { return dims_[rank_ - 1]; }
  const Dim* begin() const { return dims_.data(); }
  const Dim* end() const { return dims_.data() + rank_; }
  const Dim* data() const { return dims_.data(); }
  std::span<const Dim> span() const { return {dims_.data(), static_cast<size_t>(rank_)}; }
  void push_back(Dim d) {
    if (rank_ == kMaxRank) fail(Code::kNotImplemented, "a tensor of rank above ", kMaxRank, " is not supported");
    dims_[rank_++] = d;
  }
  void insert(int at, Dim d) {
    push_back(d);
    for (int i = rank_ - 1; i > at; --i) dims_[i] = dims_[i - 1];
    dims_[at] = d;
  }
  void erase(int at) {
    for (int i = at; i + 1 < rank_; ++i) dims_[i] = dims_[i + 1];
    --rank_;
  }
  void resize(int rank, Dim fill = 0) {
    if (rank < 0 || rank > kMaxRank) fail(Code::kNotImplemented, "a tensor of rank ", rank, " is not supported");
    for (int i = rank_; i < rank; ++i) dims_[i] = fill;
    rank_ = static_cast<int8_t>(rank);
  }
  bool known() const {
    for (Dim d : *this) if (d < 0) return false;
    return true;
  }
  // Product of the extents in [first, last); all must be known. Throws where it does not fit int64.
  int64_t count(int first, int last) const;
  int64_t count() const { return count(0, rank_); }
  bool operator==(const Shape& o) const {
    if (rank_ != o.rank_) return false;
    for (int i = 0; i < rank_; ++i) if (dims_[i] != o.dims_[i]) return false;
    return true;
  }
  std::string str() const;  // "[1,3,?]"

 private:
  void assign(const Dim* d, size_t n) {
    resize(n > kMaxRank ? kMaxRank + 1 : static_cast<int>(n));
    for (size_t i = 0; i < n; ++i) dims_[i] = d[i];
  }
  std::array<Dim, kMaxRank> dims_;
  int8_t rank_ = 0;
};


// axis in [-rank, rank) as [0, rank), or -1 when it is outside.
inline int normalize_axis(int64_t axis, int rank) {
  if (axis < -rank || axis >= rank) return -1;
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

}  // namespace tiercel

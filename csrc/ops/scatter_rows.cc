#include "ops/scatter_rows.h"

#include <algorithm>
#include <bit>
#include <numeric>

namespace tiercel {
namespace {

void copy_strings(const void* px, const int64_t* from, void* py, const int64_t* to, int64_t n, int64_t width) {
  const auto* x = static_cast<const std::string*>(px);
  auto* y = static_cast<std::string*>(py);
  for (int64_t i = 0; i < n; ++i) std::copy_n(x + from[i], width, y + to[i]);
}

}  // namespace

// Rows on their way to the kernel, in their order.
class ScatterRows::Batch {
 public:
  Batch(ScatterFn f, const void* x, void* y) : f_(f), x_(x), y_(y) {}
  // For how many more rows of this width there is room: one at least.
  int64_t room(int64_t width) {
    if (width != width_ || n_ == kRows) {
      flush();
      width_ = width;
    }
    return kRows - n_;
  }
  void add(int64_t to, int64_t from, bool wanted) {  // without a branch, which would be as good as random
    to_[n_] = to;
    from_[n_] = from;
    n_ += wanted;
  }
  int64_t* to() { return to_ + n_; }
  int64_t* from() { return from_ + n_; }
  void added(int64_t n) { n_ += n; }
  void flush() {
    if (n_) f_(x_, from_, y_, to_, n_, width_);
    n_ = 0;
  }

 private:
  static constexpr int64_t kRows = 256;
  ScatterFn f_;
  const void* x_;
  void* y_;
  int64_t width_ = 0, n_ = 0, to_[kRows], from_[kRows];
};

// Where a lane begins.
struct ScatterRows::Position {
  Position(std::span<const Axis> lanes, int64_t lane) : axes(lanes) {
    for (size_t k = lanes.size(); k-- > 0; lane /= lanes[k].extent) move(k, at[k] = lane % lanes[k].extent);
  }
  void next() {
    for (size_t k = axes.size(); k-- > 0;) {
      move(k, 1);
      if (++at[k] < axes[k].extent) return;
      move(k, -at[k]);
      at[k] = 0;
    }
  }
  void move(size_t k, int64_t by) {
    data += by * axes[k].data;
    updates += by * axes[k].updates;
    row += by * axes[k].rows;
  }
  std::span<const Axis> axes;
  int64_t at[kMaxRank] = {}, data = 0, updates = 0, row = 0;
};

ScatterRows::ScatterRows(Element e, ScatterFn combine, int64_t width, int64_t extent, int64_t stride, Axis steps, std::span<const Axis> lanes)
    : f_(combine), size_(e.size), width_(width), extent_(extent), stride_(stride), steps_(steps) {
  if (!f_) f_ = e.string ? copy_strings : scatter_kernels().copy[std::countr_zero(static_cast<uint64_t>(e.size))];
  for (const Axis& a : lanes) {  // outermost first
    if (a.extent == 1) continue;
    count_ *= a.extent;
    if (!lanes_.empty()) {
      Axis& o = lanes_.back();
      if (o.data == a.extent * a.data && o.updates == a.extent * a.updates && o.rows == a.extent * a.rows) {
        o = {o.extent * a.extent, a.data, a.updates, a.rows};
        continue;
      }
    }
    lanes_.push_back(a);
  }
}

template <class Index>
void ScatterRows::look_up(const Index* index, int64_t rows, int64_t width, int64_t* table, const std::string& label, Worker& w) const {
  const IndexKernels<Index>& k = index_kernels<Index>(scatter_kernels());
  w.parallel_for(rows, move_grain(width * static_cast<int64_t>(sizeof(Index) + (width == 1 && table ? sizeof(int64_t) : 0))), [&](int64_t b, int64_t e) {
    const Index* const first = index + b * width;
    const bool good = table ? k.rows(first, e - b, width, extent_, table + b) : !k.outside(first, (e - b) * width, extent_);
    if (good) [[likely]] return;
    for (const Index* i = first; i < index + e * width; ++i) place(*i, extent_, label);
  });
}

template <class Index>
void ScatterRows::elements(Batch& batch, const Index* index, int64_t n, int64_t data, int64_t step, int64_t updates, const Part& part) const {
  const IndexKernels<Index>& k = index_kernels<Index>(scatter_kernels());
  constexpr int64_t kFew = 8;
  const bool all = part.last - part.first == extent_;
  for (int64_t i = 0; i < n;) {
    const int64_t m = std::min(batch.room(1), n - i);
    if (all && m >= kFew) {
      k.places(index + i, m, extent_, stride_, data + i * step, step, batch.to());
      std::iota(batch.from(), batch.from() + m, updates + i);
      batch.added(m);
      i += m;
    } else {
      for (const int64_t end = i + m; i < end; ++i) {
        const int64_t given = index[i], p = given + (given < 0 ? extent_ : 0);
        batch.add(data + i * step + p * stride_, updates + i, (p >= part.first) & (p < part.last));
      }
    }
  }
}

template <class Index>
void ScatterRows::run_lane(Batch& batch, const Position& at, const int64_t* table, const Index* index, const Part& part) const {
  if (by_elements()) return elements(batch, index + at.row, steps_.extent, at.data, 0, at.updates, part);
  const int64_t* const row = table + at.row;
  const int64_t data = at.data + part.col, updates = at.updates + part.col;
  for (int64_t i = 0; i < steps_.extent; ++i) {
    const int64_t p = row[i * steps_.rows], from = updates + i * steps_.updates;
    if (p == kMixedRow) [[unlikely]] {
      elements(batch, index + (at.row + i * steps_.rows) * width_ + part.col, part.cols, data, 1, from, part);
      continue;
    }
    batch.room(part.cols);
    batch.add(data + p * stride_, from, (p >= part.first) & (p < part.last));
  }
}

// Threads share the lanes; where there are few, the columns of their rows too; where those are narrow, the places, and each thread walks all rows:
// that pays for many threads, wide rows, or a table that no cache holds.
template <class Index>
void ScatterRows::apply(const void* updates, void* data, const int64_t* table, const Index* index, Worker& w) const {
  constexpr double kAloneNs = 4000, kTaskNs = 2000, kWalkNs = 1.5;
  constexpr int64_t kStripBytes = 128, kLine = 64, kOwnCache = 1 << 20;
  const bool far = extent_ * stride_ * size_ > kOwnCache;
  const double row_ns = (width_ == 1 ? 1.0 : 3 + static_cast<double>(width_ * size_) / 20) + (far ? 8 : 0);
  const double ns = static_cast<double>(count_ * steps_.extent) * row_ns;
  const int64_t team = ns < kAloneNs ? 1 : w.count();
  int64_t strips = 1, ranges = 1, grain = count_;
  if (team > 1) {
    grain = std::max<int64_t>(1, static_cast<int64_t>(static_cast<double>(count_) * kTaskNs / ns));
    const int64_t most = std::max<int64_t>(1, width_ * size_ / kStripBytes), few = ceil_div(team, count_);
    while (count_ * strips < 4 * team && count_ * strips % team != 0 && strips < most) ++strips;
    if (count_ * strips < team && strips < few && 1.5 * (kWalkNs + row_ns / static_cast<double>(few)) < row_ns / static_cast<double>(strips)) {
      strips = 1;
      ranges = std::min(extent_, few);
    }
  }
  const int64_t parts = strips * ranges, strip = round_up(ceil_div(width_, strips), std::max<int64_t>(1, kLine / size_));
  w.parallel_for(count_ * parts, parts > 1 ? 1 : grain, [&](int64_t b, int64_t e) {
    Batch batch(f_, updates, data);
    Part part{0, width_, 0, extent_};
    if (parts == 1) {
      Position at(lanes_, b);
      for (; b < e; ++b, at.next()) run_lane(batch, at, table, index, part);
      return batch.flush();
    }
    for (; b < e; ++b) {
      const int64_t k = b % parts;
      if (strips > 1) {
        part.col = std::min(k * strip, width_);
        part.cols = std::min(strip, width_ - part.col);
        if (part.cols == 0) continue;
      } else {
        part.first = extent_ * k / ranges;
        part.last = extent_ * (k + 1) / ranges;
      }
      run_lane(batch, Position(lanes_, b / parts), table, index, part);
      batch.flush();
    }
  });
}

template void ScatterRows::look_up(const int32_t*, int64_t, int64_t, int64_t*, const std::string&, Worker&) const;
template void ScatterRows::look_up(const int64_t*, int64_t, int64_t, int64_t*, const std::string&, Worker&) const;
template void ScatterRows::apply(const void*, void*, const int64_t*, const int32_t*, Worker&) const;
template void ScatterRows::apply(const void*, void*, const int64_t*, const int64_t*, Worker&) const;

}  // namespace tiercel

#include <cmath>

#include "ops/reduce.h"

namespace tiercel {
namespace {

using Axis = ReduceView::Axis;

// Row-major position i of the axes, as an offset in elements.
int64_t offset_of(std::span<const Axis> axes, int64_t i) {
  int64_t at = 0;
  for (size_t k = axes.size(); k-- > 0;) {
    at += i % axes[k].extent * axes[k].stride;
    i /= axes[k].extent;
  }
  return at;
}

ReduceMap map_of(Reduction kind) {
  switch (kind) {
    case Reduction::kMax: return ReduceMap::kMax;
    case Reduction::kMin: return ReduceMap::kMin;
    case Reduction::kProd: return ReduceMap::kProd;
    case Reduction::kL1: return ReduceMap::kSumAbs;
    case Reduction::kL2: case Reduction::kSumSquare: return ReduceMap::kSumSquare;
    case Reduction::kLogSumExp: return ReduceMap::kSumExp;
    default: return ReduceMap::kSum;
  }
}

constexpr int64_t kRowPart = 32768;     // elements of a row that one task sums
constexpr int64_t kColumnPart = 512;    // rows that one task adds up
constexpr int64_t kColumnBlock = 512;   // columns of a task

}  // namespace

ReduceView::ReduceView(const Shape& shape, const bool* reduce) {
  int64_t stride = 1;
  bool last = false, any = false;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    const int64_t extent = shape[i];
    if (extent == 1) continue;
    std::vector<Axis>& axes = reduce[i] ? reduced : kept;
    if (any && last == reduce[i]) axes.back().extent *= extent;
    else axes.push_back({extent, stride});
    if (!any) inner_reduced = reduce[i];
    any = true;
    last = reduce[i];
    stride *= extent;
    (reduce[i] ? count : outputs) *= extent;
  }
  std::reverse(kept.begin(), kept.end());
  std::reverse(reduced.begin(), reduced.end());
}

FloatReduction::FloatReduction(Reduction kind, const Shape& shape, const bool* reduce) : kind_(kind), view_(shape, reduce) {
  if (view_.count < 2 || !view_.outputs) return;
  if (view_.inner_reduced) {
    const int64_t units = view_.count / view_.reduced.back().extent;
    if (view_.count > 2 * kRowPart) parts_ = ceil_div(view_.count, kRowPart);
    if (units > 1) parts_ = std::min(parts_, units);
  } else if (view_.count > 2 * kColumnPart) {
    parts_ = ceil_div(view_.count, kColumnPart);
  }
}

int64_t FloatReduction::workspace() const {
  const int64_t partials = parts_ > 1 ? parts_ * view_.outputs : 0;
  return 4 * (partials + (kind_ == Reduction::kLogSumExp ? view_.outputs : 0));
}

void FloatReduction::run(const float* x, float* y, void* workspace, Worker& worker) const {
  float* scratch = static_cast<float*>(workspace);
  if (kind_ != Reduction::kLogSumExp) return pass(map_of(kind_), x, nullptr, y, scratch, kind_, worker);
  // log sum e^x = m + log sum e^(x - m): m the largest x, or 0 where that is infinite or NaN
  float* shift = scratch + (parts_ > 1 ? parts_ * view_.outputs : 0);
  pass(ReduceMap::kMax, x, nullptr, shift, scratch, Reduction::kMax, worker);
  worker.barrier();
  worker.parallel_for(view_.outputs, 4096, [&](int64_t b, int64_t e) {
    for (int64_t i = b; i < e; ++i) if (!std::isfinite(shift[i])) shift[i] = 0;
  });
  worker.barrier();
  pass(ReduceMap::kSumExp, x, shift, y, scratch, kind_, worker);
}

void FloatReduction::finish(Reduction kind, float* y, int64_t n, const float* shift) const {
  const ReduceKernels& k = reduce();
  switch (kind) {
    case Reduction::kMean: return k.divide(y, n, static_cast<float>(view_.count));
    case Reduction::kL2: return k.sqrt(y, n);
    case Reduction::kLogSum: return k.log(y, n, nullptr);
    case Reduction::kLogSumExp: return k.log(y, n, shift);
    default: return;
  }
}

void FloatReduction::pass(ReduceMap map, const float* x, const float* shift, float* y, float* partial, Reduction last,
                          Worker& worker) const {
  if (!view_.outputs) return;
  if (!view_.count) {  // nothing to reduce: the kernels give what that is
    worker.parallel_for(view_.outputs, 16384, [&](int64_t b, int64_t e) {
      reduce().columns[static_cast<int>(map)](x, 0, 0, e - b, nullptr, false, y + b);
      finish(last, y + b, e - b, shift ? shift + b : nullptr);
    });
  } else if (view_.inner_reduced) {
    reduce_inner(map, x, shift, y, partial, last, worker);
  } else {
    reduce_outer(map, x, shift, y, partial, last, worker);
  }
}

void FloatReduction::reduce_inner(ReduceMap map, const float* x, const float* shift, float* y, float* partial, Reduction last,
                                  Worker& worker) const {
  const auto rows = reduce().rows[static_cast<int>(map)], merge = reduce().rows[static_cast<int>(merge_of(map))];
  const int64_t n = view_.reduced.back().extent, units = view_.count / n;
  const std::span<const Axis> kept = view_.kept, outer = std::span(view_.reduced).first(view_.reduced.size() - 1);
  if (parts_ == 1 && units == 1 && kept.size() <= 1) {
    const int64_t stride = kept.empty() ? 0 : kept[0].stride;
    worker.parallel_for(view_.outputs, grain_for(n), [&](int64_t b, int64_t e) {
      rows(x + b * stride, e - b, stride, n, shift ? shift + b : nullptr, y + b);
      finish(last, y + b, e - b, shift ? shift + b : nullptr);
    });
    return;
  }
  float* to = parts_ > 1 ? partial : y;
  const int64_t step = units > 1 ? ceil_div(units, parts_) : round_up(ceil_div(n, parts_), 64);
  worker.parallel_for(view_.outputs * parts_, grain_for(view_.count / parts_), [&](int64_t begin, int64_t end) {
    constexpr int64_t kTogether = 64;
    float buffer[kTogether];
    for (int64_t t = begin; t < end; ++t) {
      const int64_t o = t / parts_, first = t % parts_ * step;
      const float* base = x + offset_of(kept, o);
      const float* s = shift ? shift + o : nullptr;
      if (units == 1) {
        rows(base + std::min(first, n), 1, 0, std::max<int64_t>(std::min(step, n - first), 0), s, &to[t]);
      } else {  // rows of n: 64 results are merged at a time
        int64_t filled = 0;
        buffer[0] = 0;
        for (int64_t u = first; u < std::min(first + step, units); ++u) {
          rows(base + offset_of(outer, u), 1, 0, n, s, &buffer[filled++]);
          if (filled == kTogether) {
            merge(buffer, 1, 0, filled, nullptr, buffer);
            filled = 1;
          }
        }
        merge(buffer, 1, 0, filled, nullptr, &to[t]);
      }
      if (parts_ == 1) finish(last, &y[o], 1, s);
    }
  });
  if (parts_ == 1) return;
  worker.barrier();
  worker.parallel_for(view_.outputs, grain_for(parts_), [&](int64_t b, int64_t e) {
    merge(partial + b * parts_, e - b, parts_, parts_, nullptr, y + b);
    finish(last, y + b, e - b, shift ? shift + b : nullptr);
  });
}

void FloatReduction::reduce_outer(ReduceMap map, const float* x, const float* shift, float* y, float* partial, Reduction last,
                                  Worker& worker) const {
  const auto columns = reduce().columns[static_cast<int>(map)], merge = reduce().columns[static_cast<int>(merge_of(map))];
  const std::span<const Axis> kept = std::span(view_.kept).first(view_.kept.empty() ? 0 : view_.kept.size() - 1);
  const int64_t cols = view_.kept.empty() ? 1 : view_.kept.back().extent;
  const Axis row = view_.reduced.empty() ? Axis{1, 0} : view_.reduced.back();
  const std::span<const Axis> outer = std::span(view_.reduced).first(view_.reduced.empty() ? 0 : view_.reduced.size() - 1);
  const int64_t blocks = ceil_div(cols, kColumnBlock), step = ceil_div(view_.count, parts_);
  float* to = parts_ > 1 ? partial : y;
  const int64_t tasks = view_.outputs / cols * blocks * parts_;
  worker.parallel_for(tasks, grain_for(std::min(cols, kColumnBlock) * step), [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t part = t % parts_, block = t / parts_ % blocks, o = t / parts_ / blocks;
      const int64_t c = block * kColumnBlock, n = std::min(kColumnBlock, cols - c);
      const float* base = x + offset_of(kept, o) + c;
      const float* s = shift ? shift + o * cols + c : nullptr;
      float* out = to + part * view_.outputs + o * cols + c;
      const int64_t stop = std::min((part + 1) * step, view_.count);
      bool accumulate = false;
      for (int64_t u = part * step; u < stop || !accumulate; accumulate = true) {
        const int64_t run = std::max<int64_t>(0, std::min(row.extent - u % row.extent, stop - u));
        columns(base + offset_of(outer, u / row.extent) + u % row.extent * row.stride, run, row.stride, n, s, accumulate, out);
        u += run;
      }
      if (parts_ == 1) finish(last, out, n, s);
    }
  });
  if (parts_ == 1) return;
  worker.barrier();
  worker.parallel_for(view_.outputs, grain_for(parts_), [&](int64_t b, int64_t e) {
    merge(partial + b, parts_, view_.outputs, e - b, nullptr, false, y + b);
    finish(last, y + b, e - b, shift ? shift + b : nullptr);
  });
}

}  // namespace tiercel

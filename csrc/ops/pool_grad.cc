// What goes back through a pool, from the attributes of the forward; up to three spatial axes. A plane of an image is one thread's.
//   ai.tiercel.MaxPoolGrad (dy, x)            to the first of the largest pixels of each window
//   ai.tiercel.AveragePoolGrad (dy, shape)    to all pixels of each window alike; `shape` is that of x; attribute sum = 1: not divided by their number
#include "ops/numeric.h"
#include "ops/window.h"

namespace tiercel {
namespace {

struct Extents {
  int64_t in[3], out[3], kernel[3], stride[3], dilation[3], begin[3], end[3];
  int64_t planes, in_plane, out_plane;
  bool count_padding, sum;

  Extents(PrepareContext& ctx, const Shape& x, const Shape& dy) {
    if (x.rank() < 3 || x.rank() > 5 || dy.rank() != x.rank()) ctx.fail("pools of one to three spatial axes have gradients, x has rank ", x.rank());
    Window w = window_of(ctx.node, x.rank() - 2);
    for (int to = 0; to < 3; ++to) {
      const int a = to - (3 - w.rank);
      const size_t i = static_cast<size_t>(std::max(a, 0));
      if (a >= 0 && w.slide(a, x[2 + a]) != dy[2 + a]) ctx.fail("dy ", dy.str(), " is not of this pool");
      in[to] = a < 0 ? 1 : x[2 + a];
      out[to] = a < 0 ? 1 : dy[2 + a];
      kernel[to] = a < 0 ? 1 : w.kernel[i];
      stride[to] = a < 0 ? 1 : w.stride[i];
      dilation[to] = a < 0 ? 1 : w.dilation[i];
      begin[to] = a < 0 ? 0 : w.begin[i];
      end[to] = a < 0 ? 0 : w.end[i];
    }
    planes = x[0] * x[1];
    in_plane = in[0] * in[1] * in[2];
    out_plane = out[0] * out[1] * out[2];
    count_padding = ctx.node.attr_int("count_include_pad", 0) != 0;
    sum = ctx.node.attr_int("sum", 0) != 0;
  }

  // Taps [first, last) of axis a at output pixel o lie inside; `counted`: those that a mean with padding counts.
  struct Taps { int64_t from, first, last, counted; };
  Taps taps(int a, int64_t o) const {
    Taps t;
    t.from = o * stride[a] - begin[a];
    const auto below = [&](int64_t limit) { return limit <= t.from ? 0 : std::min(ceil_div(limit - t.from, dilation[a]), kernel[a]); };
    t.first = t.from >= 0 ? 0 : ceil_div(-t.from, dilation[a]);
    t.last = std::max(below(in[a]), t.first);
    t.counted = below(in[a] + end[a]);
    return t;
  }

  // f(output pixel, the taps of the three axes)
  template <class F> void for_windows(F f) const {
    int64_t i = 0;
    for (int64_t d = 0; d < out[0]; ++d) {
      const Taps a = taps(0, d);
      for (int64_t h = 0; h < out[1]; ++h) {
        const Taps b = taps(1, h);
        for (int64_t w = 0; w < out[2]; ++w) f(i++, a, b, taps(2, w));
      }
    }
  }
  // f(input pixel)
  template <class F> void for_pixels(const Taps& a, const Taps& b, const Taps& c, F f) const {
    for (int64_t i = a.first; i < a.last; ++i)
      for (int64_t j = b.first; j < b.last; ++j) {
        const int64_t row = ((a.from + i * dilation[0]) * in[1] + b.from + j * dilation[1]) * in[2] + c.from;
        for (int64_t k = c.first; k < c.last; ++k) f(row + k * dilation[2]);
      }
  }
};

// n windows of kh by kw pixels, without a branch that the data decide.
template <class T> void max_row(const T* dy, int64_t n, const T* x, int64_t width, int64_t kh, int64_t kw, int64_t stride, T* dx) {
  for (int64_t o = 0; o < n; ++o, x += stride, dx += stride) {
    T best = x[0];
    int64_t at = 0;
    for (int64_t i = 0; i < kh; ++i)
      for (int64_t j = 0; j < kw; ++j) {
        const T v = x[i * width + j];
        const bool more = !(v <= best);
        at = more ? i * width + j : at;
        best = more ? v : best;
      }
    dx[at] += dy[o];
  }
}

// Two axes without dilation: the windows between the borders of a row together, those at its ends one by one.
template <class T> void max_row_of(const Extents& e, int64_t h, const T* dy, const T* x, T* dx) {
  const auto rows = e.taps(1, h);
  const int64_t stride = e.stride[2], width = e.in[2], kw = e.kernel[2], kh = rows.last - rows.first, top = (rows.from + rows.first) * width;
  if (kh <= 0) return;
  const int64_t low = std::clamp<int64_t>(ceil_div(e.begin[2], stride), 0, e.out[2]);
  const int64_t room = width + e.begin[2] - kw;
  const int64_t high = std::clamp<int64_t>(room >= 0 ? room / stride + 1 : 0, low, e.out[2]);
  const int64_t at = top + low * stride - e.begin[2];
  if (kh == 2 && kw == 2) max_row(dy + low, high - low, x + at, width, 2, 2, stride, dx + at);
  else if (kh == 3 && kw == 3) max_row(dy + low, high - low, x + at, width, 3, 3, stride, dx + at);
  else max_row(dy + low, high - low, x + at, width, kh, kw, stride, dx + at);
  for (int64_t w = 0; w < e.out[2]; ++w) {
    if (w >= low && w < high) {
      w = high - 1;
      continue;
    }
    const auto columns = e.taps(2, w);
    const int64_t from = top + columns.from + columns.first;
    if (columns.first < columns.last) max_row(dy + w, 1, x + from, width, kh, columns.last - columns.first, stride, dx + from);
  }
}

template <class T> void max_plane(const Extents& e, const T* dy, const T* x, T* dx) {
  std::fill_n(dx, e.in_plane, T(0));
  if (e.in[0] == 1 && e.kernel[0] == 1 && e.begin[0] == 0 && e.dilation[1] == 1 && e.dilation[2] == 1) {
    for (int64_t h = 0; h < e.out[1]; ++h) max_row_of(e, h, dy + h * e.out[2], x, dx);
    return;
  }
  e.for_windows([&](int64_t o, const auto& a, const auto& b, const auto& c) {
    int64_t best = -1;
    e.for_pixels(a, b, c, [&](int64_t i) {
      if (best < 0 || x[i] > x[best] || (std::isnan(x[i]) && !std::isnan(x[best]))) best = i;
    });
    if (best >= 0) dx[best] += dy[o];
  });
}

// A row of windows at a time: what each gives (`row`, as long), to its taps one after the other.
template <class T> void mean_plane(const Extents& e, const T* dy, T* dx, T* row) {
  std::fill_n(dx, e.in_plane, T(0));
  const int64_t width = e.out[2], step = e.stride[2], left = (width - 1) * step - e.begin[2];  // of tap 0 of the last window
  const int64_t from = left >= 0 ? 0 : ceil_div(-left, e.dilation[2]);                            // a window may be far larger than the image
  for (int64_t r = 0; r < e.out[0] * e.out[1]; ++r, dy += width) {
    const auto a = e.taps(0, r / e.out[1]), b = e.taps(1, r % e.out[1]);
    for (int64_t o = 0; o < width; ++o) {
      const auto c = e.taps(2, o);
      const int64_t count = e.count_padding ? a.counted * b.counted * c.counted : (a.last - a.first) * (b.last - b.first) * (c.last - c.first);
      row[o] = e.sum ? dy[o] : dy[o] / static_cast<T>(count);
    }
    for (int64_t i = a.first; i < a.last; ++i)
      for (int64_t j = b.first; j < b.last; ++j) {
        T* const line = dx + ((a.from + i * e.dilation[0]) * e.in[1] + b.from + j * e.dilation[1]) * e.in[2];
        for (int64_t k = from; k < e.kernel[2]; ++k) {
          const int64_t at = k * e.dilation[2] - e.begin[2];  // of window 0
          if (at >= e.in[2]) break;
          const int64_t begin = at >= 0 ? 0 : std::min(ceil_div(-at, step), width), end = std::min(ceil_div(e.in[2] - at, step), width);
          if (step == 1)
            for (int64_t o = begin; o < end; ++o) line[at + o] += row[o];
          else
            for (int64_t o = begin; o < end; ++o) line[at + o * step] += row[o];
        }
      }
  }
}

template <bool kMax> void infer(InferContext& ctx) {
  check_real(ctx, 0);
  if (kMax) {
    ctx.check(ctx.dtype(1) == ctx.dtype(0), "dy and x should have one type");
    return ctx.set_output(0, ctx.type(1));
  }
  ctx.check(ctx.dtype(1) == DType::kInt64, "the shape should be int64");
  const auto ints = ctx.ints(1);
  ctx.set_output(0, ints ? Type::tensor(ctx.dtype(0), Shape{std::span<const Dim>(*ints)}) : Type::tensor(ctx.dtype(0)));
}

template <class T, bool kMax> void make(PrepareContext& ctx) {
  const Extents e(ctx, ctx.out_shape(0), ctx.shape(0));
  const int64_t line = round_up(e.out[2], 16);
  if (!kMax) ctx.workspace(ctx.threads() * line * static_cast<int64_t>(sizeof(T)));
  ctx.run([=](const Args& a, Worker& w) {
    w.parallel_for(e.planes, grain_for(4 * e.in_plane), [&](int64_t b, int64_t end) {
      for (int64_t p = b; p < end; ++p) {
        const T* dy = a.in<T>(0) + p * e.out_plane;
        T* dx = a.out<T>(0) + p * e.in_plane;
        if constexpr (kMax) max_plane(e, dy, a.in<T>(1) + p * e.in_plane, dx);
        else mean_plane(e, dy, dx, a.workspace<T>() + w.index() * line);
      }
    });
  });
  ctx.cost(10 * static_cast<double>(e.planes * (e.in_plane + e.out_plane)), 12 * static_cast<double>(e.planes * e.in_plane));
}

template <bool kMax> void prepare(PrepareContext& ctx) {
  if (ctx.dtype(0) == DType::kDouble) make<double, kMax>(ctx);
  else make<float, kMax>(ctx);
}

const OpRegistration rows({
    {"MaxPoolGrad", kTiercelDomain, 1, infer<true>, half_as_float<prepare<true>>},
    {"AveragePoolGrad", kTiercelDomain, 1, infer<false>, half_as_float<prepare<false>>},
});

}  // namespace
}  // namespace tiercel

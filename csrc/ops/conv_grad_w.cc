// ai.tiercel.ConvGradW (dy, x, shape): the gradient of a convolution's weights, of that shape, from the attributes of the convolution.
#include <cstring>
#include <memory>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "ops/numeric.h"
#include "ops/window.h"

namespace tiercel {
namespace {

constexpr int64_t kTasks = 24, kSmallPlane = 64;

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.check(ctx.dtype(1) == ctx.dtype(0), "dy and x should have one type");
  ctx.check(ctx.dtype(2) == DType::kInt64, "the shape should be int64");
  const auto ints = ctx.ints(2);
  ctx.set_output(0, ints ? Type::tensor(ctx.dtype(0), Shape{std::span<const Dim>(*ints)}) : Type::tensor(ctx.dtype(0)));
}

// The problem as three spatial axes (or as many as there are, in double).
struct Problem {
  int64_t batch, groups, outputs, channels, taps, in_plane, out_plane;  // outputs, channels: of a group
  int rank;
  std::array<int64_t, kMaxRank> in{}, out{}, kernel{}, stride{}, dilation{}, pad{};

  Problem(const Node& node, const Shape& dy, const Shape& x, const Shape& w) : rank(x.rank() - 2) {
    Window window = window_of(node, rank, w.span().subspan(2));
    groups = node.attr_int("group", 1);
    batch = x[0];
    outputs = w[0] / groups;
    channels = w[1];
    taps = window.taps();
    in_plane = x.count(2, x.rank());
    out_plane = dy.count(2, dy.rank());
    for (int a = 0; a < rank; ++a) {
      const size_t i = static_cast<size_t>(a);
      if (window.slide(a, x[2 + a]) != dy[2 + a]) fail(Code::kRuntimeException, node.label(), ": dy ", dy.str(), " is not of this convolution");
      in[i] = x[2 + a], out[i] = dy[2 + a], kernel[i] = window.kernel[i], stride[i] = window.stride[i], dilation[i] = window.dilation[i];
      pad[i] = window.begin[i];
    }
  }

  // Where tap t looked in a plane at each output pixel, [taps, P]; -1: at padding.
  std::vector<int32_t> places() const {
    std::vector<float> index(static_cast<size_t>(in_plane)), seen(static_cast<size_t>(out_plane));
    for (int64_t i = 0; i < in_plane; ++i) index[static_cast<size_t>(i)] = static_cast<float>(i + 1);  // exact: planes are small here
    std::vector<int32_t> all;
    for (int64_t t = 0; t < taps; ++t) {
      gather(index.data(), t, 0, out_plane, seen.data());
      for (const float v : seen) all.push_back(static_cast<int32_t>(v) - 1);
    }
    return all;
  }

  // What tap t of the plane x saw at output pixels [first, first + n).
  template <class T> void gather(const T* x, int64_t tap, int64_t first, int64_t n, T* to) const {
    std::array<int64_t, kMaxRank> k{};
    for (int a = rank - 1; a >= 0; --a) {
      const size_t i = static_cast<size_t>(a);
      k[i] = tap % kernel[i];
      tap /= kernel[i];
    }
    const size_t last = static_cast<size_t>(rank) - 1;
    while (n > 0) {
      const int64_t row = first / out[last], column = first % out[last], m = std::min(n, out[last] - column);
      int64_t at = 0, step = in_plane / in[last], r = row;  // the input row that this one sees
      bool inside = true;
      std::array<int64_t, kMaxRank> place{};
      for (int a = rank - 2; a >= 0; --a) {
        const size_t i = static_cast<size_t>(a);
        place[i] = r % out[i] * stride[i] + k[i] * dilation[i] - pad[i];
        inside = inside && place[i] >= 0 && place[i] < in[i];
        r /= out[i];
      }
      step = in[last];
      for (int a = rank - 2; a >= 0; --a) {
        at += place[static_cast<size_t>(a)] * step;
        step *= in[static_cast<size_t>(a)];
      }
      copy_row(x, inside, at, column, m, k[last], to);
      first += m, to += m, n -= m;
    }
  }

 private:
  template <class T> void copy_row(const T* x, bool inside, int64_t at, int64_t column, int64_t m, int64_t k, T* to) const {
    const size_t last = static_cast<size_t>(rank) - 1;
    const int64_t s = stride[last], from = column * s + k * dilation[last] - pad[last], width = in[last];
    if (!inside) return std::fill_n(to, m, T(0)), void();
    const int64_t low = std::clamp<int64_t>(from >= 0 ? 0 : ceil_div(-from, s), 0, m);
    const int64_t high = std::clamp<int64_t>(from < width ? ceil_div(width - from, s) : 0, low, m);
    std::fill_n(to, low, T(0));
    const T* const source = x + at + from;
    if (s == 1) std::copy_n(source + low, high - low, to + low);
    else for (int64_t i = low; i < high; ++i) to[i] = source[i * s];
    std::fill(to + high, to + m, T(0));
  }
};

void prepare_double(PrepareContext& ctx, const Problem& p) {
  ctx.workspace(ctx.threads() * p.out_plane * 8);
  ctx.run([=](const Args& a, Worker& w) {
    double* const seen = a.workspace<double>() + w.index() * p.out_plane;
    const int64_t columns = p.channels * p.taps;
    w.parallel_for(p.groups * columns, 1, [&](int64_t b, int64_t e) {
      for (int64_t t = b; t < e; ++t) {
        const int64_t g = t / columns, column = t % columns;
        double* const to = a.out<double>(0) + g * p.outputs * columns + column;
        for (int64_t o = 0; o < p.outputs; ++o) to[o * columns] = 0;
        for (int64_t n = 0; n < p.batch; ++n) {
          p.gather(a.in<double>(1) + ((n * p.groups + g) * p.channels + column / p.taps) * p.in_plane, column % p.taps, 0, p.out_plane, seen);
          for (int64_t o = 0; o < p.outputs; ++o) {
            const double* dy = a.in<double>(0) + ((n * p.groups + g) * p.outputs + o) * p.out_plane;
            double sum = 0;
            for (int64_t i = 0; i < p.out_plane; ++i) sum += dy[i] * seen[i];
            to[o * columns] += sum;
          }
        }
      }
    });
  });
}

// In float, the product is dW' [C, O] = X [C, Q] dY' [Q, O] for each tap. Images are laid out with their padding, one plane for each phase of the
// strides, and dY with as many columns: then what a tap saw is the plane from some offset on, read in place, and dY is packed once for all taps.
// Few channels: rows are what each channel and tap saw, gathered.
class FloatGrad {
 public:
  FloatGrad(const Problem& p, int threads) : p_(p), shifted_(p.channels >= kFewChannels) {
    for (int a = 0; a < p.rank; ++a) {
      const size_t i = static_cast<size_t>(a);
      plane_[i] = p.out[i] + (shifted_ ? (p.kernel[i] - 1) * p.dilation[i] / p.stride[i] : 0);
      phases_ *= shifted_ ? std::min(p.stride[i], (p.kernel[i] - 1) * p.dilation[i] + 1) : 1;
      plane_size_ *= plane_[i];
      depth_ = depth_ * plane_[i] + p.out[i] - 1;
    }
    ++depth_;  // of the product: from the first output pixel to the last, with the columns of padding between
    rows_ = shifted_ ? p.channels : p.channels * p.taps;
    x_floats_ = round_up(shifted_ ? p.groups * p.channels * phases_ * plane_size_ : p.groups * rows_ * depth_, 16);
    dy_floats_ = round_up(p.groups * gemm_packed_floats(gemm(), depth_, p.outputs), 16);
    slab_ = std::clamp<int64_t>(kSlabFloats / (x_floats_ + dy_floats_), 1, std::max<int64_t>(p.batch, 1));
    products_ = shifted_ ? p.groups * p.taps : p.groups;
    const int64_t wanted = std::clamp<int64_t>(ceil_div(kTasks, products_), 1, ceil_div(rows_, 12));
    block_ = round_up(ceil_div(rows_, wanted), 6);
    blocks_ = ceil_div(rows_, block_);
    line_ = round_up(p.outputs * depth_, 16);
    threads_ = threads;
    sums_ = round_up(products_ * rows_ * p.outputs, 16);
  }

  int64_t workspace() const { return 4 * (slab_ * (x_floats_ + dy_floats_) + threads_ * line_ + sums_); }

  void run(const Args& args, Worker& w) const {
    float *const x = args.workspace<float>(), *const dy = x + slab_ * x_floats_, *const lines = dy + slab_ * dy_floats_, *const sums = lines + threads_ * line_;
    for (int64_t first = 0; first < p_.batch; first += slab_) {
      const int64_t images = std::min(slab_, p_.batch - first);
      if (first) w.barrier();
      w.parallel_for(images * p_.groups, 1, [&](int64_t b, int64_t e) {
        for (int64_t t = b; t < e; ++t) pack_dy(args.in<float>(0) + (first * p_.groups + t) * p_.outputs * p_.out_plane, lines + w.index() * line_,
                                                dy + t / p_.groups * dy_floats_ + t % p_.groups * gemm_packed_floats(gemm(), depth_, p_.outputs));
      });
      const int64_t planes = p_.groups * p_.channels;
      w.parallel_for(images * planes, std::max<int64_t>(1, 16384 / std::max<int64_t>(x_floats_ / planes, 1)), [&](int64_t b, int64_t e) {
        for (int64_t t = b; t < e; ++t) lay_out(args.in<float>(1) + (first * planes + t) * p_.in_plane, x + t / planes * x_floats_, t % planes);
      });
      w.barrier();
      w.parallel_for(products_ * blocks_, 1, [&](int64_t b, int64_t e) {
        for (int64_t t = b; t < e; ++t) multiply(t / blocks_, t % blocks_ * block_, images, x, dy, sums, first > 0);
      });
    }
    w.barrier();
    w.parallel_for(p_.groups * p_.outputs, grain_for(p_.channels * p_.taps), [&](int64_t b, int64_t e) {
      for (int64_t o = b; o < e; ++o) collect(o, sums, args.out<float>(0) + o * p_.channels * p_.taps);
    });
  }

 private:
  static constexpr int64_t kFewChannels = 8, kSlabFloats = 1 << 20;

  // dY of an image and group, [O, P], with the columns that the planes have, packed.
  void pack_dy(const float* from, float* line, float* packed) const {
    for (int64_t o = 0; o < p_.outputs; ++o, from += p_.out_plane) {
      float* const to = line + o * depth_;
      if (depth_ == p_.out_plane) {
        std::copy_n(from, depth_, to);
        continue;
      }
      std::fill_n(to, depth_, 0.0f);
      const int64_t width = p_.out[static_cast<size_t>(p_.rank) - 1];
      for (int64_t row = 0; row < p_.out_plane / width; ++row) std::copy_n(from + row * width, width, to + place(row));
    }
    gemm().pack_b(line, 1, depth_, depth_, p_.outputs, 0, p_.outputs, packed);
  }
  // Where the output row `row` (of all axes but the last) begins in a plane.
  int64_t place(int64_t row) const {
    int64_t at = 0, step = plane_[static_cast<size_t>(p_.rank) - 1];
    for (int a = p_.rank - 2; a >= 0; --a) {
      const size_t i = static_cast<size_t>(a);
      at += row % p_.out[i] * step;
      row /= p_.out[i];
      step *= plane_[i];
    }
    return at;
  }

  // The plane of channel c (of all groups), by phases; or what its taps saw.
  void lay_out(const float* from, float* image, int64_t c) const {
    if (!shifted_) {
      float* const to = image + c * p_.taps * depth_;
      for (int64_t tap = 0; tap < p_.taps; ++tap) p_.gather(from, tap, 0, p_.out_plane, to + tap * depth_);
      return;
    }
    float* const to = image + c * phases_ * plane_size_;
    const size_t last = static_cast<size_t>(p_.rank) - 1;
    for (int64_t phase = 0; phase < phases_; ++phase)
      for (int64_t row = 0; row < plane_size_ / plane_[last]; ++row) {
        int64_t at = 0, step = p_.in[last], r = row, f = phase;
        const int64_t column = f % phase_count(p_.rank - 1) - p_.pad[last];
        f /= phase_count(p_.rank - 1);
        bool inside = true;
        for (int a = p_.rank - 2; a >= 0; --a) {
          const size_t i = static_cast<size_t>(a);
          const int64_t h = r % plane_[i] * p_.stride[i] + f % phase_count(a) - p_.pad[i];
          inside = inside && h >= 0 && h < p_.in[i];
          at += h * step;
          step *= p_.in[i];
          r /= plane_[i];
          f /= phase_count(a);
        }
        copy_row(from + at, inside, column, to + (phase * (plane_size_ / plane_[last]) + row) * plane_[last]);
      }
  }
  int64_t phase_count(int a) const {
    const size_t i = static_cast<size_t>(a);
    return std::min(p_.stride[i], (p_.kernel[i] - 1) * p_.dilation[i] + 1);
  }
  // Every stride-th pixel of a row, from `column` on (which may be negative), with zeros beyond its ends.
  void copy_row(const float* row, bool inside, int64_t column, float* to) const {
    const size_t last = static_cast<size_t>(p_.rank) - 1;
    const int64_t n = plane_[last], s = p_.stride[last], width = p_.in[last];
    if (!inside) return std::fill_n(to, n, 0.0f), void();
    const int64_t low = std::clamp<int64_t>(column >= 0 ? 0 : ceil_div(-column, s), 0, n);
    const int64_t high = std::clamp<int64_t>(column < width ? ceil_div(width - column, s) : 0, low, n);
    std::fill_n(to, low, 0.0f);
    if (s == 1) std::copy_n(row + column + low, high - low, to + low);
    else for (int64_t i = low; i < high; ++i) to[i] = row[column + i * s];
    std::fill(to + high, to + n, 0.0f);
  }

  // Rows [row, row + block) of a product, over the images of a slab.
  void multiply(int64_t product, int64_t row, int64_t images, const float* x, const float* dy, float* sums, bool accumulate) const {
    const int64_t g = shifted_ ? product / p_.taps : product, tap = shifted_ ? product % p_.taps : 0;
    int64_t offset = g * rows_ * depth_ + row * depth_;
    if (shifted_) {
      int64_t shift = 0, phase = 0, t = tap, step = 1, many = 1;
      for (int a = p_.rank - 1; a >= 0; --a) {
        const size_t i = static_cast<size_t>(a);
        const int64_t reach = t % p_.kernel[i] * p_.dilation[i];
        shift += reach / p_.stride[i] * step;
        phase += reach % p_.stride[i] * many;
        step *= plane_[i];
        many *= phase_count(a);
        t /= p_.kernel[i];
      }
      offset = ((g * rows_ + row) * phases_ + phase) * plane_size_ + shift;
    }
    constexpr int64_t kMost = 64;
    const float *a[kMost], *b[kMost];
    GemmArgs args;
    args.m = std::min(block_, rows_ - row), args.n = p_.outputs, args.k = depth_;
    args.a = a, args.b = b;
    args.a_row = shifted_ ? phases_ * plane_size_ : depth_;
    args.c = sums + (product * rows_ + row) * p_.outputs;
    args.c_row = p_.outputs;
    args.accumulate = accumulate;
    for (int64_t first = 0; first < images; first += kMost) {
      args.count = std::min(kMost, images - first);
      for (int64_t r = 0; r < args.count; ++r) {
        a[r] = x + (first + r) * x_floats_ + offset;
        b[r] = dy + (first + r) * dy_floats_ + g * gemm_packed_floats(gemm(), depth_, p_.outputs);
      }
      gemm().gemm(args);
      args.accumulate = true;
    }
  }

  // The weights of output channel o (of all groups), [C, taps].
  void collect(int64_t o, const float* sums, float* to) const {
    const int64_t g = o / p_.outputs, own = o % p_.outputs;
    for (int64_t c = 0; c < p_.channels; ++c)
      for (int64_t tap = 0; tap < p_.taps; ++tap)
        *to++ = shifted_ ? sums[((g * p_.taps + tap) * rows_ + c) * p_.outputs + own] : sums[(g * rows_ + c * p_.taps + tap) * p_.outputs + own];
  }

  Problem p_;
  bool shifted_;
  std::array<int64_t, kMaxRank> plane_{};  // extents of a laid out plane
  int64_t phases_ = 1, plane_size_ = 1, depth_ = 0, rows_ = 0, products_ = 0, block_ = 0, blocks_ = 0, slab_ = 1;
  int64_t x_floats_ = 0, dy_floats_ = 0, line_ = 0, sums_ = 0, threads_ = 1;
};

// Small images: dW [O, C taps] = dY [O, N P] times what the taps saw, [N P, C taps], gathered for some columns at a time.
void prepare_small(PrepareContext& ctx, const Problem& p) {
  constexpr int64_t kColumns = 64, kDepth = 512;
  const int64_t columns = p.channels * p.taps, blocks = ceil_div(columns, kColumns), plane = p.out_plane, all = p.batch * plane;
  const int64_t images = std::clamp<int64_t>(kDepth / plane, 1, p.batch), scratch = round_up(images * plane * kColumns, 16);
  const int64_t rows = p.groups * p.outputs, lines = round_up(rows * all, 16);
  const auto places = std::make_shared<const std::vector<int32_t>>(p.places());
  ctx.workspace(4 * (lines + 2 * ctx.threads() * scratch));
  ctx.run([=](const Args& a, Worker& w) {
    float *const line = a.workspace<float>(), *const seen = line + lines + 2 * w.index() * scratch, *const packed = seen + scratch;
    w.parallel_for(rows, grain_for(all), [&](int64_t b, int64_t e) {
      for (int64_t o = b; o < e; ++o)
        for (int64_t n = 0; n < p.batch; ++n) std::copy_n(a.in<float>(0) + (n * rows + o) * plane, plane, line + o * all + n * plane);
    });
    w.barrier();
    w.parallel_for(p.groups * blocks, 1, [&](int64_t b, int64_t e) {
      for (int64_t t = b; t < e; ++t) {
        const int64_t g = t / blocks, j0 = t % blocks * kColumns, n = std::min(kColumns, columns - j0);
        GemmArgs args;
        args.m = p.outputs, args.n = n, args.a_row = all;
        args.c = a.out<float>(0) + g * p.outputs * columns + j0;
        args.c_row = columns;
        for (int64_t first = 0; first < p.batch; first += images) {
          const int64_t many = std::min(images, p.batch - first);
          args.k = many * plane;
          for (int64_t j = 0; j < n; ++j) {
            const int32_t* const place = places->data() + (j0 + j) % p.taps * plane;
            for (int64_t i = 0; i < many; ++i) {
              const float* const x = a.in<float>(1) + (((first + i) * p.groups + g) * p.channels + (j0 + j) / p.taps) * p.in_plane;
              float* const to = seen + j * args.k + i * plane;
              for (int64_t k = 0; k < plane; ++k) {
                const float v = x[std::max(place[k], 0)];
                to[k] = place[k] >= 0 ? v : 0.0f;
              }
            }
          }
          gemm().pack_b(seen, 1, args.k, args.k, n, 0, n, packed);
          const float *left = line + g * p.outputs * all + first * plane, *right = packed;
          args.a = &left, args.b = &right;
          gemm().gemm(args);
          args.accumulate = true;
        }
      }
    });
  });
}

void prepare_float(PrepareContext& ctx, const Problem& p) {
  if (p.out_plane <= kSmallPlane && p.in_plane <= 1 << 20 && p.channels * p.taps * p.groups > 128) return prepare_small(ctx, p);
  const FloatGrad grad(p, ctx.threads());
  ctx.workspace(grad.workspace());
  ctx.run([=](const Args& a, Worker& w) { grad.run(a, w); });
}

void prepare(PrepareContext& ctx) {
  const Shape &dy = ctx.shape(0), &x = ctx.shape(1), &w = ctx.out_shape(0);
  if (x.rank() < 3 || dy.rank() != x.rank() || w.rank() != x.rank()) ctx.fail("dy, x and the weights should have one rank, 3 at least");
  if (w.count() == 0) return ctx.run([](const Args&, Worker&) {});
  if (dy.count() == 0 || x.count() == 0)
    return ctx.run([bytes = bytes_of(ctx.dtype(0), w.count())](const Args& a, Worker& worker) {
      if (worker.index() == 0) std::memset(a.out(0), 0, static_cast<size_t>(bytes));
    });
  const Problem p(ctx.node, dy, x, w);
  if (p.groups < 1 || x[1] != p.groups * p.channels || dy[1] != p.groups * p.outputs || dy[0] != x[0]) ctx.fail("dy, x and the weights do not fit");
  ctx.cost(2.0 * static_cast<double>(dy.count()) * static_cast<double>(p.channels * p.taps), 4.0 * static_cast<double>(x.count() + dy.count()));
  if (ctx.dtype(0) == DType::kDouble) prepare_double(ctx, p);
  else prepare_float(ctx, p);
}

const OpRegistration rows({{"ConvGradW", kTiercelDomain, 1, infer, half_as_float<prepare>}});

}  // namespace
}  // namespace tiercel

// ai.tiercel.ConvGradW (dy, x, shape): the gradient of a convolution's weights, of that shape, from the attributes of the convolution.
//
// For each image dW += dY [O, P] times the pixels that each tap saw, [P, C taps]. A task has some columns of dW and some images; it brings the
// pixels of a run of P into a panel and multiplies. Images are cut into parts by shape, whose sums are added in order at the end.
#include <cstring>

#include "kernels/gemm/gemm.h"
#include "ops/numeric.h"
#include "ops/window.h"

namespace tiercel {
namespace {

constexpr int64_t kColumns = 64, kDepth = 512, kTasks = 16;

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

void prepare_float(PrepareContext& ctx, const Problem& p) {
  const int64_t columns = p.channels * p.taps, blocks = ceil_div(columns, kColumns), tasks = p.groups * blocks;
  const int64_t parts = std::clamp<int64_t>(kTasks / tasks, 1, std::max<int64_t>(p.batch, 1)), weights = p.groups * p.outputs * columns;
  const int64_t depth = std::min(kDepth, p.out_plane), scratch = 2 * round_up(depth * kColumns, 16);
  const int64_t sums = parts > 1 ? round_up(parts * weights, 16) : 0;
  ctx.workspace((sums + ctx.threads() * scratch) * 4);
  ctx.run([=](const Args& a, Worker& w) {
    float *const partial = parts > 1 ? a.workspace<float>() : a.out<float>(0), *const seen = a.workspace<float>() + sums + w.index() * scratch;
    float* const packed = seen + scratch / 2;
    w.parallel_for(tasks * parts, 1, [&](int64_t b, int64_t e) {
      for (int64_t t = b; t < e; ++t) {
        const int64_t part = t % parts, g = t / parts / blocks, j0 = t / parts % blocks * kColumns, n = std::min(kColumns, columns - j0);
        GemmArgs args;
        args.m = p.outputs, args.n = n, args.a_row = p.out_plane;
        args.c = partial + part * weights + g * p.outputs * columns + j0;
        args.c_row = columns;
        for (int64_t image = p.batch * part / parts; image < p.batch * (part + 1) / parts; ++image) {
          const float* const x = a.in<float>(1) + (image * p.groups + g) * p.channels * p.in_plane;
          const float* const dy = a.in<float>(0) + (image * p.groups + g) * p.outputs * p.out_plane;
          for (int64_t first = 0; first < p.out_plane; first += depth) {
            args.k = std::min(depth, p.out_plane - first);
            for (int64_t j = 0; j < n; ++j) p.gather(x + (j0 + j) / p.taps * p.in_plane, (j0 + j) % p.taps, first, args.k, seen + j * args.k);
            gemm().pack_b(seen, 1, args.k, args.k, n, 0, n, packed);
            const float *left = dy + first, *right = packed;
            args.a = &left, args.b = &right;
            gemm().gemm(args);
            args.accumulate = true;
          }
        }
        if (!args.accumulate)
          for (int64_t o = 0; o < p.outputs; ++o) std::fill_n(args.c + o * columns, n, 0.0f);
      }
    });
    if (parts == 1) return;
    w.barrier();
    w.parallel_for(weights, 8192, [&](int64_t b, int64_t e) {
      float* const y = a.out<float>(0);
      std::copy(partial + b, partial + e, y + b);
      for (int64_t part = 1; part < parts; ++part)
        for (int64_t i = b; i < e; ++i) y[i] += partial[part * weights + i];
    });
  });
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

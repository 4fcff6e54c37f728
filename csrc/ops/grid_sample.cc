// GridSample: the input read at given normalised coordinates, any number of spatial axes; AffineGrid: such coordinates.
// Jaderberg et al., Spatial Transformer Networks, 2015; boundary rules as in PyTorch's grid_sample.
#include <cmath>

#include "kernels/resize/resize.h"
#include "ops/grad_tools.h"
#include "ops/grid_sample.h"
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

// ---- GridSample

void infer_grid_sample(InferContext& ctx) {
  ctx.input(0);
  ctx.input(1);
  sampling_of(ctx.node);
  ctx.check(is_real(ctx.dtype(1)), "the grid should be real");
  if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  const Shape &x = ctx.shape(0), &grid = ctx.shape(1);
  ctx.check(x.rank() >= 3 && x.rank() <= 8 && grid.rank() == x.rank(), "input and grid should have one rank, 3 to 8");
  unify(ctx, grid.back(), x.rank() - 2, "the length of a coordinate and the number of spatial axes");
  for (int i = 2; i < x.rank(); ++i) ctx.check(x[i] <= INT32_MAX && x[i] != 0, "spatial extent ", x[i], " cannot be sampled");
  Shape r{unify(ctx, x[0], grid[0], "batch extents"), x[1]};
  for (int i = 1; i + 1 < grid.rank(); ++i) r.push_back(grid[i]);
  ctx.set_output(0, ctx.dtype(0), r);
}

// Tasks are runs of samples: their taps are found once and serve every channel.
template <class T, class G> void make_grid_sample(PrepareContext& ctx, const Sampling& s) {
  using C = std::conditional_t<std::is_same_v<T, float>, float, double>;
  constexpr int64_t kRun = 256;
  const Shape &x = ctx.shape(0), &out = ctx.out_shape(0);
  const int rank = x.rank() - 2;
  int64_t total = 1;
  for (int i = 0; i < rank; ++i) total *= s.taps();
  const int64_t channels = x[1], plane = x.count(2, x.rank()), samples = out.count(2, out.rank()), runs = ceil_div(samples, kRun);
  if (plane > INT32_MAX) ctx.fail("the image is too large");
  std::vector<int64_t> extents(x.begin() + 2, x.end());
  const int64_t scratch = round_up(total * kRun * static_cast<int64_t>(sizeof(int32_t) + sizeof(C)), 64);
  ctx.workspace(scratch * ctx.threads());
  ctx.cost(2.0 * static_cast<double>(total * out.count()), static_cast<double>((x.count() + out.count()) * static_cast<int64_t>(sizeof(T))));
  ctx.run([=, batch = x[0]](const Args& a, Worker& w) {
    char* mine = a.workspace<char>() + w.index() * scratch;
    C* weights = reinterpret_cast<C*>(mine);
    auto* indices = reinterpret_cast<int32_t*>(mine + total * kRun * static_cast<int64_t>(sizeof(C)));
    const int taps = s.taps();
    w.parallel_for(batch * runs, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t n = task / runs, first = task % runs * kRun, count = std::min(kRun, samples - first);
        const G* grid = a.in<G>(1) + (n * samples + first) * rank;
        for (int64_t i = 0; i < count; ++i) {
          int64_t index[8][4];
          C weight[8][4];
          for (int k = 0; k < rank; ++k)  // coordinates stand innermost axis first
            axis_taps(s, static_cast<C>(grid[i * rank + rank - 1 - k]), extents[static_cast<size_t>(k)], index[k], weight[k]);
          for (int64_t t = 0; t < total; ++t) {
            int64_t at = 0, rest = t, stride = 1;
            C value = 1;
            bool inside = true;
            for (int k = rank - 1; k >= 0; --k) {
              const int64_t j = index[k][rest % taps];
              value *= weight[k][rest % taps];
              rest /= taps;
              inside = inside && j >= 0;
              if (inside) at += j * stride;
              stride *= extents[static_cast<size_t>(k)];
            }
            indices[t * count + i] = static_cast<int32_t>(inside ? at : 0);
            weights[t * count + i] = inside ? value : C(0);
          }
        }
        for (int64_t c = 0; c < channels; ++c) {
          const T* in = a.in<T>(0) + (n * channels + c) * plane;
          T* to = a.out<T>(0) + (n * channels + c) * samples + first;
          if constexpr (std::is_same_v<T, float>) {
            resize_kernels().gather_f32(in, indices, weights, total, to, count);
          } else {
            for (int64_t i = 0; i < count; ++i) {
              C sum = 0;
              for (int64_t t = 0; t < total; ++t) sum += weights[t * count + i] * static_cast<C>(in[indices[t * count + i]]);
              to[i] = saturate<T>(sum);
            }
          }
        }
      }
    });
  });
}

void prepare_grid_sample(PrepareContext& ctx) {
  const Sampling s = sampling_of(ctx.node);
  if (s.mode == Sampling::Mode::kCubic && ctx.shape(0).rank() > 6) ctx.fail("cubic sampling of more than 4 spatial axes is not supported");
  auto make = [&]<class T>(T) {
    if (ctx.dtype(1) == DType::kDouble) make_grid_sample<T, double>(ctx, s);
    else make_grid_sample<T, float>(ctx, s);
  };
  if (ctx.dtype(0) == DType::kFloat) return make(float{});
  if (ctx.dtype(0) == DType::kBool) return make(uint8_t{});
  if (!with_plain_type(ctx.dtype(0), [&](auto tag) { make(typename decltype(tag)::type{}); }))
    ctx.fail("elements of this type cannot be interpolated");
}

// ---- AffineGrid: theta applied to the centres (or corners) of the cells of [-1, 1]^n

void infer_affine_grid(InferContext& ctx) {
  ctx.input(0);
  ctx.input(1);
  const auto size = small_ints(ctx, 1);
  const auto n = length_of(ctx, 1);
  if (!n) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  ctx.check(*n == 4 || *n == 5, "size should be [N, C, H, W] or [N, C, D, H, W]");
  const int rank = static_cast<int>(*n) - 2;
  Shape r = fresh_shape(ctx, rank + 2);
  if (size)
    for (int i = 0; i < rank + 2; ++i) {
      const Dim d = (*size)[static_cast<size_t>(i)];
      ctx.check(is_symbol(d) || d >= 0, "extent ", d, " is negative");
      if (i != 1) r[i == 0 ? 0 : i - 1] = d;
    }
  if (ctx.ranked(0)) {
    const Shape& theta = ctx.shape(0);
    ctx.check(theta.rank() == 3, "theta should be [N, ", rank, ", ", rank + 1, "]");
    r[0] = unify(ctx, r[0], theta[0], "batch extents");
    unify(ctx, theta[1], rank, "the rows of theta and the spatial axes");
    unify(ctx, theta[2], rank + 1, "the columns of theta and the spatial axes plus one");
  }
  r[rank + 1] = rank;
  if (r.known()) check_fits(ctx, ctx.dtype(0), r);
  ctx.set_output(0, ctx.dtype(0), r);
}

template <class T> void make_affine_grid(PrepareContext& ctx) {
  const Shape out = ctx.out_shape(0);
  const int rank = static_cast<int>(out.back());
  const bool corners = ctx.node.attr_int("align_corners", 0) != 0;
  std::vector<std::vector<double>> at(static_cast<size_t>(rank));  // coordinates along each axis
  for (int k = 0; k < rank; ++k) {
    const int64_t n = out[k + 1];
    const double step = corners ? n > 1 ? 2.0 / static_cast<double>(n - 1) : 0 : 2.0 / static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) at[static_cast<size_t>(k)].push_back((corners ? -1 : -1 + step / 2) + static_cast<double>(i) * step);
  }
  const int64_t points = out.count(1, rank + 1);
  ctx.cost(2.0 * rank * rank * static_cast<double>(out[0] * points), static_cast<double>(out.count()) * sizeof(T));
  ctx.run([=, batch = out[0]](const Args& a, Worker& w) {
    w.parallel_for(batch * points, 1024, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const T* theta = a.in<T>(0) + i / points * rank * (rank + 1);
        double x[4] = {};
        int64_t rest = i % points;
        for (int k = rank - 1; k >= 0; --k) {
          x[rank - 1 - k] = at[static_cast<size_t>(k)][static_cast<size_t>(rest % out[k + 1])];
          rest /= out[k + 1];
        }
        for (int k = 0; k < rank; ++k) {
          double s = static_cast<double>(theta[k * (rank + 1) + rank]);
          for (int j = 0; j < rank; ++j) s += static_cast<double>(theta[k * (rank + 1) + j]) * x[j];
          a.out<T>(0)[i * rank + k] = static_cast<T>(s);
        }
      }
    });
  });
}

void prepare_affine_grid(PrepareContext& ctx) {
  if (ctx.dtype(0) == DType::kFloat) make_affine_grid<float>(ctx);
  else if (ctx.dtype(0) == DType::kDouble) make_affine_grid<double>(ctx);
  else ctx.fail("theta should be real");
}

const OpRegistration rows({
    {"GridSample", "", 16, infer_grid_sample, half_as_float<prepare_grid_sample>},
    {"AffineGrid", "", 20, infer_affine_grid, half_as_float<prepare_affine_grid>},
});

// The grid is theta times the grid of the identity, with a one behind each coordinate.
void grad_affine_grid(GradContext& c) {
  using namespace grad_tools;
  GraphWriter& w = c.w;
  const int64_t rank = c.rank(c.y()) - 2;
  const DType t = w.dtype(c.x(0));
  std::vector<double> identity(static_cast<size_t>(rank * (rank + 1)), 0);
  for (int64_t k = 0; k < rank; ++k) identity[static_cast<size_t>(k * (rank + 2))] = 1;
  Tensor one(DType::kDouble, Shape{1, rank, rank + 1});
  std::copy(identity.begin(), identity.end(), one.as<double>());
  Value* const size = w.op("Concat", {w.ints({1, 1}), extents(w, c.y(), 1, rank + 1)}, {{"axis", int64_t{0}}});
  Value* grid = w.op("AffineGrid", {cast(w, w.constant(one), t), size}, {{"align_corners", c.node.attr_int("align_corners", 0)}});
  grid = w.op("Reshape", {grid, w.ints({-1, rank})});
  Value* const ones = w.op("Expand", {w.scalar(1, t), w.op("Concat", {extents(w, grid, 0, 1), w.ints({1})}, {{"axis", int64_t{0}}})});
  grid = w.op("Concat", {grid, ones}, {{"axis", int64_t{1}}});
  Value* const dy = w.op("Transpose", {w.op("Reshape", {c.dy(), w.ints({0, -1, rank})})}, {{"perm", std::vector<int64_t>{0, 2, 1}}});
  c.set(0, w.op("MatMul", {dy, grid}));
}
const GradRegistration grads({{"AffineGrid", "", grad_affine_grid}});

}  // namespace
}  // namespace tiercel

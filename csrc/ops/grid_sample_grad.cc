// ai.tiercel.GridSampleGrad (dy, x, grid) -> (dx, dgrid), from the attributes of GridSample; either output may be left out.
// dx is a sum over the samples in their order, a task to some channels of an image; where these are few, to a part of the samples too: each part has
// sums of its own, which are added in order. dgrid is a sum over the channels, a task to a run of samples.
#include "ops/grad.h"
#include "ops/grid_sample.h"
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  check_real(ctx, 1);
  check_real(ctx, 2);
  ctx.check(ctx.dtype(0) == ctx.dtype(1), "dy and x should have one type");
  sampling_of(ctx.node);
  ctx.set_output(0, ctx.type(1));
  ctx.set_output(1, ctx.type(2));
}

constexpr int kAxes = 6, kTaps = 4;

// The taps of one sample: place in the plane (-1: outside), weight, and how the weight changes with each coordinate.
template <class C> struct Sample {
  std::vector<int64_t> at;
  std::vector<C> weight, slope;  // slope: [axes, taps]

  template <class G> void find(const Sampling& s, const G* grid, const std::vector<int64_t>& extents, bool slopes) {
    const int rank = static_cast<int>(extents.size()), taps = s.taps();
    int64_t index[kAxes][kTaps], total = 1;
    C w[kAxes][kTaps], d[kAxes][kTaps];
    for (int k = 0; k < rank; ++k) {  // coordinates stand innermost axis first
      axis_taps(s, static_cast<C>(grid[rank - 1 - k]), extents[static_cast<size_t>(k)], index[k], w[k], slopes ? d[k] : nullptr);
      total *= taps;
    }
    at.resize(static_cast<size_t>(total));
    weight.resize(static_cast<size_t>(total));
    slope.resize(slopes ? static_cast<size_t>(total * rank) : 0);
    for (int64_t t = 0; t < total; ++t) {
      int64_t to = 0, rest = t, stride = 1;
      int which[kAxes];
      C value = 1;
      for (int k = rank - 1; k >= 0; --k) {
        which[k] = static_cast<int>(rest % taps);
        rest /= taps;
        const int64_t i = index[k][which[k]];
        value *= w[k][which[k]];
        to = i < 0 || to < 0 ? -1 : to + i * stride;
        stride *= extents[static_cast<size_t>(k)];
      }
      at[static_cast<size_t>(t)] = to;
      weight[static_cast<size_t>(t)] = value;
      for (int a = 0; slopes && a < rank; ++a) {
        C v = d[a][which[a]];
        for (int k = 0; k < rank; ++k) if (k != a) v *= w[k][which[k]];
        slope[static_cast<size_t>(a * total + t)] = v;
      }
    }
  }
};

template <class T, class G> void make(PrepareContext& ctx) {
  using C = std::conditional_t<std::is_same_v<T, float> && std::is_same_v<G, float>, float, double>;
  const Sampling s = sampling_of(ctx.node);
  const Shape &x = ctx.shape(1), &dy = ctx.shape(0), &grid = ctx.shape(2);
  const int rank = x.rank() - 2;
  bool fits = x.rank() >= 3 && rank <= kAxes && dy.rank() == x.rank() && grid.rank() == x.rank() && grid.back() == rank && dy[0] == x[0] &&
              dy[1] == x[1] && grid[0] == x[0];
  for (int k = 0; fits && k < rank; ++k) fits = grid[k + 1] == dy[k + 2] && x[k + 2] > 0 && x[k + 2] <= INT32_MAX;
  if (!fits)
    ctx.fail("shapes ", dy.str(), ", ", x.str(), ", ", grid.str(), " are not of one GridSample of one to six spatial axes");
  const std::vector<int64_t> extents(x.begin() + 2, x.end());
  const int64_t batch = x[0], channels = x[1], plane = x.count(2, x.rank()), samples = dy.count(2, dy.rank());
  const int64_t some = std::min<int64_t>(std::max<int64_t>(channels, 1), 8), groups = ceil_div(channels, some), run = 256, runs = ceil_div(samples, run);
  const bool wants_x = ctx.has_output(0), wants_grid = ctx.has_output(1);
  const int64_t tasks = batch * groups, total = x.count();
  int64_t parts = 1;  // by shape alone, and no more than what adding them up is little beside
  if (wants_x && tasks > 0 && tasks < 8) parts = std::clamp<int64_t>(std::min(samples / 1024, 4 * samples / plane), 1, ceil_div(8, tasks));
  ctx.workspace((parts - 1) * total * static_cast<int64_t>(sizeof(T)));
  ctx.cost(40 * static_cast<double>(dy.count()) * (1 << rank), static_cast<double>((2 * x.count() + dy.count()) * static_cast<int64_t>(sizeof(T))));
  ctx.run([=](const Args& a, Worker& w) {
    if (wants_x) {
      w.parallel_for(tasks * parts, 1, [&](int64_t begin, int64_t end) {
        Sample<C> at;
        for (int64_t task = begin; task < end; ++task) {
          const int64_t part = task % parts, n = task / parts / groups, first = task / parts % groups * some, count = std::min(some, channels - first);
          T* const dx = (part ? a.workspace<T>() + (part - 1) * total : a.out<T>(0)) + (n * channels + first) * plane;
          const T* const from = a.in<T>(0) + (n * channels + first) * samples;
          std::fill_n(dx, count * plane, T(0));
          for (int64_t i = samples * part / parts; i < samples * (part + 1) / parts; ++i) {
            at.find(s, a.in<G>(2) + (n * samples + i) * rank, extents, false);
            for (int64_t c = 0; c < count; ++c) {
              const T d = from[c * samples + i];
              for (size_t t = 0; t < at.at.size(); ++t)
                if (at.at[t] >= 0) dx[c * plane + at.at[t]] += static_cast<T>(at.weight[t]) * d;
            }
          }
        }
      });
      if (parts > 1) {
        w.barrier();
        w.parallel_for(total, 4096, [&](int64_t begin, int64_t end) {
          for (int64_t part = 1; part < parts; ++part) {
            const T* const more = a.workspace<T>() + (part - 1) * total;
            for (int64_t i = begin; i < end; ++i) a.out<T>(0)[i] += more[i];
          }
        });
      }
    }
    if (wants_grid)
      w.parallel_for(batch * runs, 1, [&](int64_t begin, int64_t end) {
        Sample<C> at;
        for (int64_t task = begin; task < end; ++task) {
          const int64_t n = task / runs;
          for (int64_t i = task % runs * run; i < std::min(samples, (task % runs + 1) * run); ++i) {
            const int64_t place = (n * samples + i) * rank;
            at.find(s, a.in<G>(2) + place, extents, true);
            double sum[kAxes] = {};
            const size_t total = at.at.size();
            for (int64_t c = 0; c < channels; ++c) {
              const T* const in = a.in<T>(1) + (n * channels + c) * plane;
              const double d = static_cast<double>(a.in<T>(0)[(n * channels + c) * samples + i]);
              for (size_t t = 0; t < total; ++t) {
                if (at.at[t] < 0) continue;
                const double v = d * static_cast<double>(in[at.at[t]]);
                for (int k = 0; k < rank; ++k) sum[k] += v * static_cast<double>(at.slope[static_cast<size_t>(k) * total + t]);
              }
            }
            for (int k = 0; k < rank; ++k) a.out<G>(1)[place + rank - 1 - k] = static_cast<G>(sum[k]);
          }
        }
      });
  });
}

void prepare(PrepareContext& ctx) {
  const bool wide = ctx.dtype(0) == DType::kDouble, wide_grid = ctx.dtype(2) == DType::kDouble;
  if (wide) wide_grid ? make<double, double>(ctx) : make<double, float>(ctx);
  else wide_grid ? make<float, double>(ctx) : make<float, float>(ctx);
}

const OpRegistration rows({{"GridSampleGrad", kTiercelDomain, 1, infer, half_as_float<prepare>}});

void grad(GradContext& c) {
  const Sampling s = sampling_of(c.node);
  const bool flat = s.mode == Sampling::Mode::kNearest;  // which does not move with the grid
  AttributeList list{{"align_corners", c.node.attr_int("align_corners", 0)}};
  for (const char* key : {"mode", "padding_mode"})
    if (c.node.has(key)) list.emplace_back(key, c.node.attr_string(key, ""));
  Graph& g = c.w.graph();
  Value *const dx = c.wants(0) ? g.add_value("") : nullptr, *const dgrid = c.wants(1) && !flat ? g.add_value("") : nullptr;
  if (c.wants(1) && flat) c.set(1, c.w.expand_like(c.w.scalar_like(0, c.x(1)), c.x(1)));
  if (!dx && !dgrid) return;
  c.w.ops_into("GridSampleGrad", {c.dy(), c.x(0), c.x(1)}, {dx, dgrid}, list, kTiercelDomain);
  c.set(0, dx);
  if (dgrid) c.set(1, dgrid);
}
const GradRegistration grads({{"GridSample", "", grad}});

}  // namespace
}  // namespace tiercel

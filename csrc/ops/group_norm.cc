// GroupNormalization (opset 18: scale and bias per group; 21: per channel), InstanceNormalization, and
// ai.tiercel GroupNormalization (x, scale?, bias?): per channel, num_groups (0: one a channel), epsilon, then an activation.
#include "ops/activation.h"
#include "ops/grad.h"
#include "ops/image_norm.h"

namespace tiercel {
namespace {

enum class Kind { kPerGroup, kPerChannel, kInstance, kFused };

template <Kind kind> void infer(InferContext& ctx) {
  check_real(ctx, 0);
  const Type& x = ctx.type(0);
  ctx.set_output(0, x);
  const int64_t groups = ctx.node.attr_int("num_groups", 0);
  if (kind == Kind::kPerGroup || kind == Kind::kPerChannel) ctx.check(groups > 0, "num_groups should be positive, got ", groups);
  ctx.check(groups >= 0, "num_groups should not be negative, got ", groups);
  if (kind != Kind::kFused) ctx.check(ctx.has_input(1) && ctx.has_input(2), "takes x, scale and bias");
  if (kind == Kind::kFused) (void)activation_of(ctx.node);
  for (int i : {1, 2}) if (ctx.has_input(i)) check_real(ctx, i);
  if (!x.ranked) return;
  ctx.check(x.shape.rank() >= 2, "x should have the axes N, C and more");
  const Dim channels = x.shape[1];
  if (groups && channels >= 0) ctx.check(channels % groups == 0, channels, " channels do not divide into ", groups, " groups");
  Dim operands = kind == Kind::kPerGroup ? groups : channels;
  for (int i : {1, 2}) {
    if (!ctx.has_input(i) || !ctx.ranked(i)) continue;
    const Shape& s = ctx.shape(i);
    ctx.check(s.rank() == 1, "input ", i, " should be 1-D, got ", s);
    operands = unify(ctx, operands, s[0], "the channels (or groups) and the length of scale and bias");
  }
}

struct Statistic {
  float mean, rstd;
};

struct Plan {
  ChannelView view;
  int64_t groups, per_group;      // channels of a group
  int64_t parts, part;            // pieces of a group's elements (plain layout), elements of each
  bool per_group_operands;
  float epsilon;
  Activation act;
  int scale, bias;                // input indices or -1

  int64_t operand(int64_t c) const { return per_group_operands ? c / per_group : c; }
  int64_t length() const { return per_group * view.space; }
};

constexpr int64_t kPart = 65536;  // elements whose moments one task computes

// Statistics of the groups of all images. Collective; ends with a barrier.
void statistics(const Plan& p, const float* x, Moments* each, Statistic* to, Worker& w) {
  const ChannelView& v = p.view;
  if (v.blocked) {
    channel_moments(v, x, each, w);
  } else {
    w.parallel_for(v.batch * p.groups * p.parts, grain_for(p.part), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const int64_t first = i % p.parts * p.part, n = std::min(p.part, p.length() - first);
        each[i] = {};
        each[i].count = static_cast<double>(n);
        norm().moments(x + i / p.parts * p.length() + first, n, &each[i].mean, &each[i].m2);
      }
    });
  }
  w.barrier();
  const int64_t pieces = v.blocked ? p.per_group : p.parts;
  w.parallel_for(v.batch * p.groups, grain_for(pieces, 256), [&](int64_t b, int64_t e) {
    for (int64_t g = b; g < e; ++g) {
      Moments all;
      for (int64_t i = 0; i < pieces; ++i) all.add(each[g * pieces + i]);
      to[g] = {static_cast<float>(all.mean), static_cast<float>(1 / std::sqrt(all.variance() + p.epsilon))};
    }
  });
  w.barrier();
}

void run_float(const Plan& p, const Args& a, Worker& w) {
  const float *x = a.in<float>(0), *scale = p.scale < 0 ? nullptr : a.in<float>(p.scale), *bias = p.bias < 0 ? nullptr : a.in<float>(p.bias);
  float* y = a.out<float>(0);
  const ChannelView& v = p.view;
  const auto map_of = [&](const Statistic& s, int64_t c) {
    const int64_t o = p.operand(c);
    return ChannelMap{s.mean, scale ? scale[o] * s.rstd : s.rstd, bias ? bias[o] : 0.0f};
  };
  if (v.blocked || p.parts > 1 || v.space < 8) {
    Statistic* stats = a.workspace<Statistic>();
    Moments* each = reinterpret_cast<Moments*>(a.workspace<char>() + round_up(static_cast<int64_t>(sizeof(Statistic)) * v.batch * p.groups, 64));
    statistics(p, x, each, stats, w);
    return map_channels(v, x, y, p.act, w, [&](int64_t n, int64_t c) { return map_of(stats[n * p.groups + c / p.per_group], c); });
  }
  // a group fits in cache: its moments, then its channels
  w.parallel_for(v.batch * p.groups, grain_for(p.length()), [&](int64_t b, int64_t e) {
    for (int64_t g = b; g < e; ++g) {
      const float* from = x + g * p.length();
      double mean, m2;
      norm().moments(from, p.length(), &mean, &m2);
      const Statistic s{static_cast<float>(mean), static_cast<float>(1 / std::sqrt(m2 / static_cast<double>(p.length()) + p.epsilon))};
      for (int64_t i = 0; i < p.per_group; ++i) {
        const ChannelMap k = map_of(s, g % p.groups * p.per_group + i);
        norm().affine(from + i * v.space, v.space, k.center, k.scale, k.shift, p.act, y + g * p.length() + i * v.space);
      }
    }
  });
}

void run_double(const Plan& p, const bool* single, const Args& a, Worker& w) {
  const double* x = a.in<double>(0);
  double* y = a.out<double>(0);
  w.parallel_for(p.view.batch * p.groups, grain_for(p.length()), [&](int64_t b, int64_t e) {
    for (int64_t g = b; g < e; ++g) {
      Moments all;
      for (int64_t i = g * p.length(); i < (g + 1) * p.length(); ++i) all.add(1, x[i], 0);
      const double rstd = 1 / std::sqrt(all.variance() + p.epsilon);
      for (int64_t i = g * p.length(); i < (g + 1) * p.length(); ++i) {
        const int64_t o = p.operand(i / p.view.space % p.view.channels);
        double v = (x[i] - all.mean) * rstd;
        if (p.scale >= 0) v *= value_at(a.in(p.scale), single[1], o);
        if (p.bias >= 0) v += value_at(a.in(p.bias), single[2], o);
        y[i] = v;
      }
    }
  });
}

template <Kind kind> void prepare(PrepareContext& ctx) {
  const Shape& shape = ctx.shape(0);
  Plan p{ChannelView(shape, ctx.layout(0)), 0, 0, 1, 0, kind == Kind::kPerGroup, ctx.node.attr_float("epsilon", 1e-5f),
         kind == Kind::kFused ? activation_of(ctx.node) : Activation{}, ctx.has_input(1) ? 1 : -1, ctx.has_input(2) ? 2 : -1};
  p.groups = kind == Kind::kInstance ? 0 : ctx.node.attr_int("num_groups", 0);
  if (!p.groups) p.groups = p.view.channels;
  p.per_group = p.groups ? p.view.channels / p.groups : 0;
  p.parts = p.length() > 2 * kPart && !p.view.blocked ? ceil_div(p.length(), kPart) : 1;
  p.part = p.parts > 1 ? kPart : p.length();
  const double count = static_cast<double>(shape.count());
  ctx.cost(8 * count, static_cast<double>(bytes_of(ctx.dtype(0), 1)) * count * 3);
  ctx.inplace(0, 0);
  if (!shape.count()) return ctx.run([](const Args&, Worker&) {});
  if (ctx.dtype(0) == DType::kFloat) {
    for (int i : {1, 2}) if (ctx.has_input(i) && ctx.dtype(i) != DType::kFloat) ctx.fail("scale and bias should have the type of x");
    const int64_t groups = p.view.batch * p.groups, moments = p.view.blocked ? p.view.batch * p.view.channels : groups * p.parts;
    ctx.workspace(round_up(static_cast<int64_t>(sizeof(Statistic)) * groups, 64) + static_cast<int64_t>(sizeof(Moments)) * moments);
    return ctx.run([p](const Args& a, Worker& w) { run_float(p, a, w); });
  }
  if (p.view.blocked || p.act) ctx.fail("the blocked layout and activations are for float only");
  bool single[3] = {};
  for (int i : {1, 2}) single[i] = ctx.has_input(i) && ctx.dtype(i) == DType::kFloat;
  ctx.run([p, a0 = single[1], a1 = single[2]](const Args& a, Worker& w) {
    const bool s[3] = {false, a0, a1};
    run_double(p, s, a, w);
  });
}

const OpRegistration rows({
    {"GroupNormalization", "", 1, infer<Kind::kPerGroup>, half_as_float<prepare<Kind::kPerGroup>>, nullptr, kAnyLayout},
    {"GroupNormalization", "", 21, infer<Kind::kPerChannel>, half_as_float<prepare<Kind::kPerChannel>>, nullptr, kAnyLayout},
    {"InstanceNormalization", "", 1, infer<Kind::kInstance>, half_as_float<prepare<Kind::kInstance>>, nullptr, kAnyLayout},
    {"GroupNormalization", kTiercelDomain, 1, infer<Kind::kFused>, half_as_float<prepare<Kind::kFused>>, nullptr, kAnyLayout},
});

// ---- Gradient: x as rows of a group each; scale and bias work on channels, or (opset below 21) on groups ---------------------

template <Kind kind> void grad(GradContext& c) {
  GraphWriter& w = c.w;
  const bool per_group = c.node.op_type == "GroupNormalization" && c.node.opset < 21, instance = kind == Kind::kInstance;
  const auto view = [&](Value* v, int64_t rows) { return w.op("Reshape", {v, w.ints({0, rows, -1})}); };
  const int64_t groups = instance ? 0 : c.node.attr_int("num_groups", 1);
  const float epsilon = c.node.attr_float("epsilon", 1e-5f);
  Value *const x = view(c.x(0), groups), *const dy = view(c.dy(), per_group ? groups : 0);
  Value* const scale = w.op("Unsqueeze", {c.x(1), w.ints({1})});  // [C, 1] or [G, 1]
  if (c.wants(0)) {
    Value* const g = w.reshape_like(w.mul(dy, scale), x);
    c.set(0, w.reshape_like(w.ops("LayerNormGrad", {g, x}, 1, {{"epsilon", epsilon}}, kTiercelDomain)[0], c.x(0)));
  }
  const auto summed = [&](Value* v) { return w.reshape_like(w.sum_to(v, scale), c.x(1)); };
  if (c.wants(1)) {
    Value* const normal = w.op("LayerNormalization", {x}, {{"epsilon", epsilon}}, kTiercelDomain);
    c.set(1, summed(w.mul(dy, w.reshape_like(normal, dy))));
  }
  if (c.wants(2)) c.set(2, summed(dy));
}

const GradRegistration grads({{"GroupNormalization", "", grad<Kind::kPerChannel>}, {"InstanceNormalization", "", grad<Kind::kInstance>}});

}  // namespace
}  // namespace tiercel

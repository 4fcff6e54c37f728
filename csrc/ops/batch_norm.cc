// BatchNormalization, every opset: inference, and training (opset 14 on: training_mode; before: more than one output).
#include "ops/activation.h"
#include "ops/grad.h"
#include "ops/image_norm.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

bool is_training(const Node& node) {
  if (node.opset >= 14 || node.domain == kTiercelDomain) return node.attr_int("training_mode", 0) != 0;
  if (node.opset < 7) return node.attr_int("is_test", 0) == 0;
  int outputs = 0;
  for (const Value* v : node.outputs) outputs += v != nullptr;
  return outputs > 1;
}

// Below opset 9 spatial = 0 normalises every element on its own statistics.
bool is_spatial(const Node& node) { return node.opset >= 9 || node.domain == kTiercelDomain || node.attr_int("spatial", 1) != 0; }

void infer(InferContext& ctx) {
  ctx.check(ctx.num_inputs() >= 5, "takes 5 inputs");
  for (int i = 0; i < 5; ++i) check_real(ctx, i);
  const Type& x = ctx.type(0);
  ctx.set_output(0, x);
  const bool spatial = is_spatial(ctx.node);
  ctx.check(spatial || !is_training(ctx.node), "training with spatial = 0 is not supported");
  Shape stat{ctx.fresh()};
  if (x.ranked && spatial) {
    ctx.check(x.shape.rank() >= 1, "a scalar has no channels");
    stat[0] = x.shape.rank() > 1 ? x.shape[1] : 1;
  } else if (x.ranked) {
    ctx.check(x.shape.rank() >= 2, "spatial = 0 takes at least two axes");
    stat = Shape(x.shape.span().subspan(1));
  }
  for (int i = 1; i < 5; ++i) {
    if (!ctx.ranked(i)) continue;
    const Shape& s = ctx.shape(i);
    ctx.check(s.rank() == stat.rank(), "input ", i, " of shape ", s, " should have the shape ", stat);
    for (int k = 0; k < s.rank(); ++k) stat[k] = unify(ctx, stat[k], s[k], "the channels and the extents of the statistics");
  }
  for (int i = 1; i < ctx.num_outputs(); ++i) ctx.set_output(i, ctx.dtype(i == 1 || i == 3 ? 3 : 4), stat);
}

struct Params {
  const void* data[5];
  bool single[5];
  double at(int i, int64_t c) const { return value_at(data[i], single[i], c); }
};

void prepare(PrepareContext& ctx) {
  const Node& node = ctx.node;
  const Shape& shape = ctx.shape(0);
  ChannelView view(shape, ctx.layout(0));
  const bool training = is_training(node), f32 = ctx.dtype(0) == DType::kFloat;
  if (!is_spatial(node)) {  // every element is a channel
    view.channels = shape.count(1, shape.rank());
    view.space = 1;
    view.blocked = false;
  }
  const double epsilon = node.attr_float("epsilon", 1e-5f), momentum = node.attr_float("momentum", 0.9f);
  const bool unbiased = node.attr_int("unbiased", 0) != 0;  // only in a training session: what the running variance estimates is that of all data
  const Activation act = activation_of(node);
  const double count = static_cast<double>(shape.count());
  ctx.cost((training ? 8 : 2) * count, static_cast<double>(bytes_of(ctx.dtype(0), 1)) * count * (training ? 4 : 2));
  ctx.inplace(0, 0);
  bool single[5];
  for (int i = 0; i < 5; ++i) single[i] = ctx.dtype(i) == DType::kFloat;
  std::vector<int> outs;  // running mean and variance, then (below opset 14) the batch's
  std::vector<bool> single_out;
  for (int i = 0; i < 5; ++i) {
    outs.push_back(i > 0 && i < ctx.num_outputs() && ctx.has_output(i) ? i : -1);
    single_out.push_back(outs.back() > 0 && ctx.out_dtype(i) == DType::kFloat);
  }
  const int64_t channels = view.channels, moments = training ? view.batch * channels : 0;
  const int64_t map_bytes = round_up(static_cast<int64_t>(sizeof(ChannelMap)) * channels, 64);
  ctx.workspace(map_bytes + static_cast<int64_t>(sizeof(Moments)) * moments);
  if (!f32 && view.blocked) ctx.fail("the blocked layout holds float only");

  ctx.run([=](const Args& a, Worker& w) {
    const Params p{{nullptr, a.in(1), a.in(2), a.in(3), a.in(4)}, {single[0], single[1], single[2], single[3], single[4]}};
    ChannelMap* map = a.workspace<ChannelMap>();
    Moments* each = reinterpret_cast<Moments*>(a.workspace<char>() + map_bytes);
    const auto put = [&](int i, int64_t c, double v) {
      if (outs[static_cast<size_t>(i)] < 0) return;
      if (single_out[static_cast<size_t>(i)]) a.out<float>(i)[c] = static_cast<float>(v);
      else a.out<double>(i)[c] = v;
    };
    if (training && view.space > 0) {
      if (f32) {
        channel_moments(view, a.in<float>(0), each, w);
      } else {
        w.parallel_for(moments, grain_for(view.space), [&](int64_t b, int64_t e) {
          for (int64_t i = b; i < e; ++i) {
            each[i] = {};
            for (int64_t k = 0; k < view.space; ++k) each[i].add(1, a.in<double>(0)[i * view.space + k], 0);
          }
        });
      }
      w.barrier();
    }
    w.parallel_for(channels, 256, [&](int64_t b, int64_t e) {
      for (int64_t c = b; c < e; ++c) {
        double mean = p.at(3, c), var = p.at(4, c);
        if (training) {
          Moments all;
          if (view.space > 0) for (int64_t n = 0; n < view.batch; ++n) all.add(each[n * channels + c]);
          const double m = all.count ? all.mean : NAN, v = all.count ? all.variance() : NAN;
          put(1, c, mean * momentum + m * (1 - momentum));
          const double n = static_cast<double>(all.count);
          put(2, c, var * momentum + v * (unbiased && n > 1 ? n / (n - 1) : 1) * (1 - momentum));
          put(3, c, m);
          put(4, c, v);
          mean = m;
          var = v;
        }
        map[c] = {static_cast<float>(mean), static_cast<float>(p.at(1, c) / std::sqrt(var + epsilon)), static_cast<float>(p.at(2, c))};
      }
    });
    w.barrier();
    if (f32) return map_channels(view, a.in<float>(0), a.out<float>(0), act, w, [&](int64_t, int64_t c) { return map[c]; });
    const double *x = a.in<double>(0);
    double* y = a.out<double>(0);
    w.parallel_for(view.batch * channels, grain_for(view.space), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const int64_t c = i % channels;
        double mean = p.at(3, c), var = p.at(4, c);
        if (training) {
          Moments all;
          for (int64_t n = 0; n < view.batch; ++n) all.add(each[n * channels + c]);
          mean = all.mean;
          var = all.variance();
        }
        const double scale = p.at(1, c) / std::sqrt(var + epsilon), shift = p.at(2, c);
        for (int64_t k = i * view.space; k < (i + 1) * view.space; ++k) y[k] = (x[k] - mean) * scale + shift;
      }
    });
  });
}

const OpRegistration rows({
    {"BatchNormalization", "", 1, infer, half_as_float<prepare>, nullptr, kAnyLayout},
    {"BatchNormalization", kTiercelDomain, 1, infer, half_as_float<prepare>, nullptr, kAnyLayout},  // with an activation
});

void grad(GradContext& c) {
  c.check(is_spatial(c.node), "spatial = 0 has none");
  c.check(is_training(c.node) || (!c.wants(3) && !c.wants(4)), "that of the statistics is not there");  // in training the result does not vary with them
  c.check(c.dy() && !c.dy(1) && !c.dy(2), "that of the running statistics is not there");
  std::vector<Value*> in{c.dy(), c.x(0), c.x(1)};
  if (!is_training(c.node)) in.insert(in.end(), {c.x(3), c.x(4)});
  const std::vector<Value*> d = c.w.ops("BatchNormGrad", in, 3, {{"epsilon", c.node.attr_float("epsilon", 1e-5f)}}, kTiercelDomain);
  for (int i = 0; i < 3; ++i) c.set(i, d[static_cast<size_t>(i)]);
}

const GradRegistration grads({{"BatchNormalization", "", grad}});

}  // namespace
}  // namespace tiercel

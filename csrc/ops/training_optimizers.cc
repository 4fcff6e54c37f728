// Adagrad, Adam and Momentum of ai.onnx.preview.training: R (rate), T (updates so far), then the parameters X, their gradients G and their
// moments, each a group of n. Outputs: the new parameters, then the new moments.
#include <cmath>

#include "ops/elementwise.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

constexpr const char* kDomain = "ai.onnx.preview.training";
enum class Method { kAdagrad, kAdam, kMomentum };

constexpr int groups_of(Method m) { return m == Method::kAdam ? 4 : 3; }

template <Method method> void infer(InferContext& ctx) {
  constexpr int groups = groups_of(method);
  const int given = ctx.num_inputs() - 2, n = given / groups;
  ctx.check(given > 0 && given % groups == 0, "after R and T should stand ", groups, " inputs for each parameter, got ", given);
  for (const int i : {0, 1}) if (ctx.ranked(i)) ctx.check(ctx.shape(i).rank() == 0 || ctx.shape(i) == Shape{1}, "R and T should be scalars");
  const auto real = [](DType t) { return t == DType::kFloat || t == DType::kDouble; };
  ctx.check(real(ctx.dtype(0)), "R should be float or double");
  ctx.check(ctx.dtype(1) == DType::kInt64, "T should be int64");
  for (int i = 0; i < n; ++i)
    for (int k = 0; k < groups; ++k) {
      ctx.check(real(ctx.dtype(2 + i)), "input ", 2 + i, " should be float or double");
      ctx.check(ctx.dtype(2 + k * n + i) == ctx.dtype(2 + i), "input ", 2 + k * n + i, " should have the type of its parameter, input ", 2 + i);
      if (k != 1 && ctx.num_outputs() > (k ? k - 1 : 0) * n + i) ctx.set_output((k ? k - 1 : 0) * n + i, ctx.type(2 + i));
    }
  if constexpr (method == Method::kMomentum) {
    const std::string mode = ctx.node.attr_string("mode", "standard");
    ctx.check(mode == "standard" || mode == "nesterov", "mode \"", mode, "\" is neither standard nor nesterov");
  }
}

struct Settings {
  double decay, after, alpha, beta, epsilon, rate_decay;
  bool nesterov;
  explicit Settings(const Node& n)
      : decay(n.attr_float("norm_coefficient", 0)), after(n.attr_float("norm_coefficient_post", 0)), alpha(n.attr_float("alpha", 0.9f)),
        beta(n.attr_float("beta", 0.999f)), epsilon(n.attr_float("epsilon", 1e-6f)), rate_decay(n.attr_float("decay_factor", 0)),
        nesterov(n.attr_string("mode", "standard") == "nesterov") {}
};

template <Method method, class T> void step(const Settings& s, double rate, int64_t t, int64_t n, const T* x, const T* g, const T* v, const T* h,
                                            T* x1, T* v1, T* h1) {
  if (method == Method::kAdagrad) rate /= 1 + static_cast<double>(t) * s.rate_decay;
  if (method == Method::kAdam && t > 0)
    rate *= std::sqrt(1 - std::pow(s.beta, static_cast<double>(t))) / (1 - std::pow(s.alpha, static_cast<double>(t)));
  const T r = static_cast<T>(rate), decay = static_cast<T>(s.decay), alpha = static_cast<T>(s.alpha), beta = static_cast<T>(s.beta);
  const T epsilon = static_cast<T>(s.epsilon), share = t > 0 ? beta : T(1), keep = static_cast<T>(1 - s.after);
  for (int64_t i = 0; i < n; ++i) {
    const T grad = decay * x[i] + g[i];
    T moment = 0, square = 0, to;
    if constexpr (method == Method::kAdagrad) {
      moment = v[i] + grad * grad;
      to = x[i] - r * grad / (std::sqrt(moment) + epsilon);
    } else if constexpr (method == Method::kAdam) {
      moment = alpha * v[i] + (1 - alpha) * grad;
      square = beta * h[i] + (1 - beta) * grad * grad;
      to = keep * (x[i] - r * moment / (std::sqrt(square) + epsilon));
    } else {
      moment = alpha * v[i] + share * grad;
      to = x[i] - r * (s.nesterov ? grad + alpha * moment : moment);
    }
    if (x1) x1[i] = to;
    if (v1) v1[i] = moment;
    if (h1) h1[i] = square;
  }
}

template <Method method> void prepare(PrepareContext& ctx) {
  constexpr int groups = groups_of(method);
  const int n = (ctx.num_inputs() - 2) / groups;
  struct Parameter { int64_t count; bool wide; };
  std::vector<Parameter> parameters;
  double total = 0;
  for (int i = 0; i < n; ++i) {
    for (int k = 1; k < groups; ++k)
      if (!(ctx.shape(2 + k * n + i) == ctx.shape(2 + i))) ctx.fail("input ", 2 + k * n + i, " should have the shape of its parameter, input ", 2 + i);
    parameters.push_back({ctx.shape(2 + i).count(), ctx.dtype(2 + i) == DType::kDouble});
    total += static_cast<double>(parameters.back().count);
  }
  ctx.cost(12 * total, 28 * total);
  ctx.run([=, s = Settings(ctx.node), wide = ctx.dtype(0) == DType::kDouble, outputs = ctx.num_outputs()](const Args& a, Worker& w) {
    const double rate = wide ? *a.in<double>(0) : static_cast<double>(*a.in<float>(0));
    const int64_t t = *a.in<int64_t>(1);
    for (int i = 0; i < n; ++i) {
      const auto run = [&]<class T>(T) {
        const auto in = [&](int k) { return k < groups ? a.in<T>(2 + k * n + i) : nullptr; };
        const auto out = [&](int k) { return k * n + i < outputs ? a.out<T>(k * n + i) : nullptr; };
        const auto at = [](auto* p, int64_t b) { return p ? p + b : p; };
        w.parallel_for(parameters[static_cast<size_t>(i)].count, 16384, [&](int64_t b, int64_t e) {
          step<method, T>(s, rate, t, e - b, in(0) + b, in(1) + b, in(2) + b, at(in(3), b), at(out(0), b), at(out(1), b),
                          groups == 4 ? at(out(2), b) : nullptr);
        });
      };
      if (parameters[static_cast<size_t>(i)].wide) run(0.0);
      else run(0.0f);
    }
  });
}

const OpRegistration rows({
    {"Adagrad", kDomain, 1, infer<Method::kAdagrad>, prepare<Method::kAdagrad>},
    {"Adam", kDomain, 1, infer<Method::kAdam>, prepare<Method::kAdam>},
    {"Momentum", kDomain, 1, infer<Method::kMomentum>, prepare<Method::kMomentum>},
});

}  // namespace
}  // namespace tiercel

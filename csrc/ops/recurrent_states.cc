// Values of recurrent networks that their gradients need again. "Rows" are those of X: time and batch, or batch and time where layout = 1.
//   ai.tiercel.RecurrentPrevious (Y, initial_h?, lengths?) -> [directions, rows.., hidden]   the state that each step began from
//   ai.tiercel.GruReset (xr, hr, previous) -> s h    of a GRU that resets before its product; xr and hr are the two products of all gates
#include "ops/numeric.h"
#include "ops/recurrent.h"
#include "ops/recurrent_cells.h"

namespace tiercel {
namespace {

using namespace recurrent_op;

void infer_previous(InferContext& ctx) {
  check_real(ctx, 0);
  if (ctx.has_input(1)) ctx.check(ctx.dtype(1) == ctx.dtype(0), "all inputs should have one type");
  if (ctx.has_input(2)) ctx.check(ctx.dtype(2) == DType::kInt32, "the lengths should be int32");
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  const Shape& y = ctx.shape(0);
  ctx.check(y.rank() == 4, "Y should have 4 axes, got ", y);
  const bool batch_first = ctx.node.attr_int("layout", 0) == 1;
  if (batch_first) ctx.set_output(0, ctx.dtype(0), {y[2], y[0], y[1], y[3]});
  else ctx.set_output(0, ctx.dtype(0), {y[1], y[0], y[2], y[3]});
}

template <class T> void make_previous(PrepareContext& ctx) {
  const Shape& y = ctx.shape(0);
  const bool batch_first = ctx.node.attr_int("layout", 0) == 1;
  const Extents e{y[batch_first ? 1 : 0], y[batch_first ? 0 : 2], y[3], y[batch_first ? 2 : 1], batch_first, ctx.node.attr_string("direction", "forward") == "reverse"};
  if (ctx.has_input(1) && ctx.shape(1).count() != e.directions * e.batch * e.hidden) ctx.fail("initial_h ", ctx.shape(1), " does not fit Y ", y);
  if (ctx.has_input(2) && ctx.shape(2).count() != e.batch) ctx.fail("the lengths ", ctx.shape(2), " do not fit Y ", y);
  ctx.cost(static_cast<double>(y.count()), 2.0 * sizeof(T) * static_cast<double>(y.count()));
  ctx.run([e](const Args& a, Worker& w) {
    const int32_t* lengths = a.in<int32_t>(2);
    w.parallel_for(e.directions * e.rows(), grain_for(e.hidden), [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const int64_t d = i / e.rows(), at = i % e.rows(), t = e.batch_first ? at % e.steps : at / e.batch, b = e.batch_first ? at / e.steps : at % e.batch;
        const int64_t n = e.length(lengths, b), before = e.backwards(d) ? t + 1 : t - 1;
        T* to = a.out<T>(0) + i * e.hidden;
        const T* from = nullptr;
        if (t < n && before >= 0 && before < n) from = a.in<T>(0) + e.y_row(before, b, d) * e.hidden;
        else if (t < n && a.in<T>(1)) from = a.in<T>(1) + e.state_row(b, d) * e.hidden;
        if (from) std::copy_n(from, e.hidden, to);
        else std::fill_n(to, e.hidden, T(0));
      }
    });
  });
}

void prepare_previous(PrepareContext& ctx) { ctx.dtype(0) == DType::kDouble ? make_previous<double>(ctx) : make_previous<float>(ctx); }

void infer_reset(InferContext& ctx) {
  check_real(ctx, 0);
  for (int i : {1, 2}) ctx.check(ctx.dtype(i) == ctx.dtype(0), "all inputs should have one type");
  ctx.set_output(0, ctx.type(2));
}

template <class T> void make_reset(PrepareContext& ctx) {
  const Shape& h = ctx.shape(2);
  if (h.rank() != 3 || !(ctx.shape(0) == Shape{h[0], h[1], 3 * h[2]}) || !(ctx.shape(1) == ctx.shape(0))) ctx.fail("the products do not fit the state ", h);
  const int64_t rows = h[1], H = h[2];
  std::vector<Activation> f;
  const float clip = ctx.node.attr_float("clip", 0);
  for (int d = 0; d < h[0]; ++d) f.push_back(cell_of(ctx.node, RecurrentKind::kGru, d).f);
  ctx.cost(30.0 * static_cast<double>(h.count()), 4.0 * sizeof(T) * static_cast<double>(h.count()));
  ctx.run([=](const Args& a, Worker& w) {
    w.parallel_for(static_cast<int64_t>(f.size()) * rows, grain_for(4 * H), [&](int64_t first, int64_t last) {
      Gate<T> s;
      for (int64_t i = first; i < last; ++i)
        for (int64_t u = 0; u < H; u += kChunk) {
          const int64_t n = std::min(kChunk, H - u);
          const T *x = a.in<T>(0) + (3 * i + 1) * H + u, *r = a.in<T>(1) + (3 * i + 1) * H + u, *before = a.in<T>(2) + i * H + u;
          for (int64_t j = 0; j < n; ++j) s.v[j] = x[j] + r[j];
          s.run(f[static_cast<size_t>(i / rows)], clip, n, false);
          for (int64_t j = 0; j < n; ++j) a.out<T>(0)[i * H + u + j] = s.v[j] * before[j];
        }
    });
  });
}

void prepare_reset(PrepareContext& ctx) { ctx.dtype(0) == DType::kDouble ? make_reset<double>(ctx) : make_reset<float>(ctx); }

const OpRegistration rows({
    {"RecurrentPrevious", kTiercelDomain, 1, infer_previous, half_as_float<prepare_previous>},
    {"GruReset", kTiercelDomain, 1, infer_reset, half_as_float<prepare_reset>},
});

}  // namespace
}  // namespace tiercel

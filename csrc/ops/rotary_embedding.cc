// RotaryEmbedding ("RoFormer", Su et al. 2021): pairs of features turned by angles that grow with the position.
#include "ops/grad.h"
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

// Extents of X as [batch, rows, heads, size], and the features that turn.
struct Form {
  Dim batch, rows, heads, size, turned;
  bool heads_first;  // X is [batch, heads, rows, size]; else [batch, rows, heads * size]
};

template <class Ctx> Form form_of(const Ctx& ctx) {
  const Shape& x = ctx.shape(0);
  const int64_t heads = ctx.node.attr_int("num_heads", 0);
  Form f;
  f.heads_first = x.rank() == 4;
  if (x.rank() == 4) {
    f = {x[0], x[2], x[1], x[3], 0, true};
  } else {
    if (x.rank() != 3) ctx.fail("X should be [batch, heads, rows, size] or [batch, rows, heads * size], got ", x.str());
    if (heads < 1) ctx.fail("num_heads is required where X has three axes");
    if (!is_symbol(x[2]) && x[2] % heads) ctx.fail("the hidden size ", x[2], " is not a multiple of num_heads ", heads);
    f = {x[0], x[1], heads, is_symbol(x[2]) ? x[2] : x[2] / heads, 0, false};
  }
  const int64_t turned = ctx.node.attr_int("rotary_embedding_dim", 0);
  f.turned = turned ? turned : f.size;
  if (!is_symbol(f.turned) && (f.turned < 0 || f.turned % 2 || (!is_symbol(f.size) && f.turned > f.size)))
    ctx.fail("rotary_embedding_dim ", f.turned, " should be even and at most the head size");
  return f;
}

void infer(InferContext& ctx) {
  check_real(ctx, 0);
  for (int i : {1, 2}) ctx.check(ctx.dtype(i) == ctx.dtype(0), "X and the caches should have one type");
  if (ctx.has_input(3)) ctx.check(ctx.dtype(3) == DType::kInt64, "position_ids should be int64");
  ctx.set_output(0, ctx.type(0));
  if (!ctx.ranked(0)) return;
  const Form f = form_of(ctx);
  const bool by_position = ctx.has_input(3);
  for (int i : {1, 2}) {
    if (!ctx.ranked(i)) continue;
    const Shape& c = ctx.shape(i);
    ctx.check(c.rank() == (by_position ? 2 : 3), "the caches should have ", by_position ? 2 : 3, " axes, got ", c);
    if (!is_symbol(f.turned)) unify(ctx, c.back(), f.turned / 2, "half of the turned features and the caches' last extent");
    if (by_position) continue;
    unify(ctx, c[0], f.batch, "batches of X and the caches");
    unify(ctx, c[1], f.rows, "rows of X and the caches");
  }
  if (by_position && ctx.ranked(3)) {
    ctx.check(ctx.shape(3).rank() == 2, "position_ids should be [batch, rows], got ", ctx.shape(3));
    unify(ctx, ctx.shape(3)[0], f.batch, "batches of X and position_ids");
    unify(ctx, ctx.shape(3)[1], f.rows, "rows of X and position_ids");
  }
}

template <class T> void make(PrepareContext& ctx) {
  const Form f = form_of(ctx);
  const bool interleaved = ctx.node.attr_int("interleaved", 0) != 0;
  const int64_t half = f.turned / 2, positions = ctx.has_input(3) ? ctx.shape(1)[0] : 0;
  if (ctx.has_input(3) && ctx.shape(1)[0] != ctx.shape(2)[0]) ctx.fail("the caches should have as many rows");
  const double count = static_cast<double>(ctx.shape(0).count());
  ctx.cost(4 * count, 2 * sizeof(T) * count);
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    w.parallel_for(f.batch * f.rows * f.heads, grain_for(f.size), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) {
        const int64_t batch = i / (f.rows * f.heads), within = i % (f.rows * f.heads);
        int64_t at = batch * f.rows + (f.heads_first ? within % f.rows : within / f.heads);
        if (const int64_t* ids = a.in<int64_t>(3)) {
          at = ids[at];
          if (at < 0 || at >= positions) fail(Code::kInvalidArgument, label, ": position ", at, " is outside [0, ", positions - 1, "]");
        }
        const T *x = a.in<T>(0) + i * f.size, *cos = a.in<T>(1) + at * half, *sin = a.in<T>(2) + at * half;
        T* y = a.out<T>(0) + i * f.size;
        for (int64_t k = 0; k < half; ++k) {
          const int64_t p = interleaved ? 2 * k : k, q = interleaved ? 2 * k + 1 : k + half;
          const T u = x[p], v = x[q];
          y[p] = cos[k] * u - sin[k] * v;
          y[q] = sin[k] * u + cos[k] * v;
        }
        std::copy(x + f.turned, x + f.size, y + f.turned);
      }
    });
  });
}

void prepare(PrepareContext& ctx) { ctx.dtype(0) == DType::kDouble ? make<double>(ctx) : make<float>(ctx); }

const OpRegistration rows({{"RotaryEmbedding", "", 23, infer, half_as_float<prepare>}});

const GradRegistration grads({{"RotaryEmbedding", "", grad_rewritten}});

}  // namespace
}  // namespace tiercel

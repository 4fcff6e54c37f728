// MatMulInteger, QLinearMatMul: products of 8-bit integers less their zero points, summed in int32.
#include "kernels/quantize/quantize.h"
#include "ops/gemm_run.h"
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

bool is_byte(DType t) { return t == DType::kInt8 || t == DType::kUInt8; }

int32_t byte_at(const void* p, DType t, int64_t i) {
  return t == DType::kInt8 ? static_cast<const int8_t*>(p)[i] : static_cast<const uint8_t*>(p)[i];
}

// A parameter of the rows of A or the columns of B: one number, a vector, or one for each row (column) of each matrix.
struct Param {
  int input = -1;
  bool single = true, batched = false;
  Param() = default;
  Param(const PrepareContext& ctx, int i, int64_t extent) : input(ctx.has_input(i) ? i : -1) {
    if (input < 0) return;
    const int64_t n = ctx.shape(i).count();
    single = n == 1;
    batched = !single && n != extent;
  }
  int64_t at(int64_t matrix, int64_t extent, int64_t i) const { return single ? 0 : batched ? matrix * extent + i : i; }
};

void check_param(const InferContext& ctx, int i, bool left, int operand) {
  if (!ctx.has_input(i) || !ctx.ranked(i) || !ctx.ranked(operand)) return;
  const Shape &s = ctx.shape(i), &x = ctx.shape(operand);
  if (!s.known() || s.count() == 1) return;
  ctx.check(x.rank() >= 2, "input ", i, " should be one number for a vector operand");
  const Dim extent = left ? x[x.rank() - 2] : x.back();
  if (is_symbol(extent) || !x.known()) return;
  const bool vector = s.rank() == 1 && s[0] == extent;
  const bool each = s.rank() == x.rank() && s.count() == x.count() / std::max<int64_t>(left ? x.back() : x[x.rank() - 2], 1);
  ctx.check(vector || each, "input ", i, " of shape ", s, " should be one number or ", extent, " (one for each ", left ? "row" : "column", ")");
}

struct Form {
  int a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero;
};
constexpr Form kInteger{0, -1, 2, 1, -1, 3, -1, -1};
constexpr Form kLinear{0, 1, 2, 3, 4, 5, 6, 7};

template <Form form> void infer(InferContext& ctx) {
  for (int i : {form.a, form.b}) ctx.check(is_byte(ctx.dtype(i)), "input ", i, " should be int8 or uint8, got ", dtype_name(ctx.dtype(i)));
  DType y = DType::kInt32;
  if (form.y_zero >= 0) {
    for (int i : {form.a_scale, form.b_scale, form.y_scale}) ctx.check(is_real(ctx.dtype(i)) && ctx.dtype(i) != DType::kDouble, "input ", i, " should be a float type");
    y = ctx.dtype(form.y_zero);
    ctx.check(is_byte(y), "the zero point of the result should be int8 or uint8, got ", dtype_name(y));
    for (int i : {form.y_scale, form.y_zero})
      if (ctx.ranked(i) && ctx.shape(i).known()) ctx.check(ctx.shape(i).count() == 1, "input ", i, " should be one number, got ", ctx.shape(i));
  }
  for (auto [zero, operand] : {std::pair{form.a_zero, form.a}, {form.b_zero, form.b}})
    if (ctx.has_input(zero)) ctx.check(ctx.dtype(zero) == ctx.dtype(operand), "a zero point should have the type of its operand");
  check_param(ctx, form.a_zero, true, form.a);
  check_param(ctx, form.b_zero, false, form.b);
  if (form.a_scale >= 0) check_param(ctx, form.a_scale, true, form.a);
  if (form.b_scale >= 0) check_param(ctx, form.b_scale, false, form.b);
  if (!ctx.ranked(form.a) || !ctx.ranked(form.b)) return ctx.set_output(0, Type::tensor(y));
  ctx.set_output(0, y, matmul_shape(ctx, ctx.shape(form.a), ctx.shape(form.b)));
}

template <Form form> void prepare(PrepareContext& ctx) {
  const GemmProblem p = matmul_problem(ctx.shape(form.a), ctx.shape(form.b), {}, false);
  const DType ta = ctx.dtype(form.a), tb = ctx.dtype(form.b), ty = ctx.out_dtype(0);
  const bool linear = form.y_zero >= 0;
  const Param a_zero(ctx, form.a_zero, p.m), b_zero(ctx, form.b_zero, p.n);
  const Param a_scale = linear ? Param(ctx, form.a_scale, p.m) : Param(), b_scale = linear ? Param(ctx, form.b_scale, p.n) : Param();
  const int64_t b_matrices = ctx.shape(form.b).count() / std::max<int64_t>(p.k * p.n, 1);
  const int64_t b_count = b_matrices * p.k * p.n, rows = static_cast<int64_t>(p.batches.size()) * p.m;
  ctx.workspace(round_up(2 * b_count, 64) + static_cast<int64_t>(ctx.threads()) * (round_up(2 * p.k, 64) + round_up(4 * p.n, 64)));
  ctx.cost(2.0 * static_cast<double>(rows) * static_cast<double>(p.n) * static_cast<double>(p.k), static_cast<double>(3 * b_count + rows * (p.k + 4 * p.n)));
  ctx.run([=](const Args& a, Worker& w) {
    // B less its zero points, as int16
    int16_t* b16 = a.workspace<int16_t>();
    const void* zb = b_zero.input < 0 ? nullptr : a.in(b_zero.input);
    w.parallel_for(b_matrices * p.k, grain_for(p.n), [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r)
        for (int64_t j = 0; j < p.n; ++j) {
          const int32_t zero = zb ? byte_at(zb, tb, b_zero.at(r / p.k, p.n, j)) : 0;
          b16[r * p.n + j] = static_cast<int16_t>(byte_at(a.in(form.b), tb, r * p.n + j) - zero);
        }
    });
    w.barrier();
    const void* za = a_zero.input < 0 ? nullptr : a.in(a_zero.input);
    char* scratch = a.workspace<char>() + round_up(2 * b_count, 64) + w.index() * (round_up(2 * p.k, 64) + round_up(4 * p.n, 64));
    int16_t* row = reinterpret_cast<int16_t*>(scratch);
    int32_t* sums = reinterpret_cast<int32_t*>(scratch + round_up(2 * p.k, 64));
    w.parallel_for(rows, grain_for(p.n * p.k, 65536), [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r) {
        const GemmBatch& batch = p.batches[static_cast<size_t>(r / p.m)];
        const int64_t i = r % p.m, from = batch.a + i * p.k, matrix_a = p.k ? batch.a / (p.m * p.k) : 0, matrix_b = p.k && p.n ? batch.b / (p.k * p.n) : 0;
        const int32_t zero = za ? byte_at(za, ta, a_zero.at(matrix_a, p.m, i)) : 0;
        for (int64_t k = 0; k < p.k; ++k) row[k] = static_cast<int16_t>(byte_at(a.in(form.a), ta, from + k) - zero);
        int32_t* c = linear ? sums : a.out<int32_t>(0) + batch.c + i * p.n;
        std::fill_n(c, p.n, 0);
        quantize().add_products(row, b16 + batch.b, p.k, p.n, p.n, c);
        if (!linear) continue;
        const double y_zero = byte_at(a.in(form.y_zero), ty, 0), low = ty == DType::kInt8 ? -128 : 0, high = low + 255;
        const float scale_a = a.in<float>(form.a_scale)[a_scale.at(matrix_a, p.m, i)], scale_y = *a.in<float>(form.y_scale);
        for (int64_t j = 0; j < p.n; ++j) {
          const float scale = scale_a * a.in<float>(form.b_scale)[b_scale.at(matrix_b, p.n, j)] / scale_y;
          const double v = std::nearbyint(static_cast<double>(c[j]) * static_cast<double>(scale) + y_zero);
          a.out<uint8_t>(0)[batch.c + i * p.n + j] = static_cast<uint8_t>(static_cast<int32_t>(std::isnan(v) ? low : std::clamp(v, low, high)));
        }
      }
    });
  });
}

const OpRegistration rows({
    {"MatMulInteger", "", 10, infer<kInteger>, prepare<kInteger>},
    {"QLinearMatMul", "", 10, infer<kLinear>, half_as_float<prepare<kLinear>>},
});

}  // namespace
}  // namespace tiercel

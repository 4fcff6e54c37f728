// Shape, Size, ConstantOfShape, Range, EyeLike: tensors made out of shapes.
#include <cmath>

#include "base/float_formats.h"
#include "ops/grad.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

// ---- Shape: extents [start, end) of the input's shape

std::pair<int, int> shape_range(const Node& node, int rank) {
  auto clamp = [&](int64_t a) { return static_cast<int>(std::clamp<int64_t>(a < 0 ? a + rank : a, 0, rank)); };
  const int start = clamp(node.attr_int("start", 0)), end = node.has("end") ? clamp(node.attr_int("end", rank)) : rank;
  return {start, std::max(start, end)};
}

void infer_shape(InferContext& ctx) {
  ctx.input(0);
  if (!ctx.ranked(0)) return ctx.set_output(0, DType::kInt64, {ctx.fresh()});
  const auto [start, end] = shape_range(ctx.node, ctx.shape(0).rank());
  ctx.set_output(0, DType::kInt64, {end - start});
  for (Dim d : ctx.shape(0)) ctx.symbols().note_extent(d);
  ctx.set_ints(0, {ctx.shape(0).begin() + start, ctx.shape(0).begin() + end});
}

void prepare_shape(PrepareContext& ctx) {
  const auto [start, end] = shape_range(ctx.node, ctx.shape(0).rank());
  ctx.run([values = std::vector<int64_t>(ctx.shape(0).begin() + start, ctx.shape(0).begin() + end)](const Args& a, Worker& w) {
    if (w.index() == 0) std::copy(values.begin(), values.end(), a.out<int64_t>(0));
  });
}

// ---- Size: the number of elements

void infer_size(InferContext& ctx) {
  ctx.input(0);
  ctx.set_output(0, DType::kInt64, {});
  if (!ctx.ranked(0)) return;
  Shape symbols;
  int64_t n = 1;
  for (Dim d : ctx.shape(0)) {
    if (d < 0) symbols.push_back(d);
    else if (__builtin_mul_overflow(n, d, &n)) return;
  }
  if (symbols.rank() == 0 || n == 0) ctx.set_ints(0, {n});
  else if (symbols.rank() == 1 && n == 1) ctx.set_ints(0, {symbols[0]});
}

void prepare_size(PrepareContext& ctx) {
  ctx.run([n = ctx.shape(0).count()](const Args& a, Worker& w) { if (w.index() == 0) *a.out<int64_t>(0) = n; });
}

// ---- ConstantOfShape: a tensor full of `value`

void infer_constant_of_shape(InferContext& ctx) {
  const Tensor* value = ctx.node.attr_tensor("value");
  const DType dtype = value ? value->dtype() : DType::kFloat;
  ctx.check(!value || value->count() == 1, "attribute 'value' should hold one element, not ", value ? value->count() : 0);
  ctx.check(!ctx.ranked(0) || ctx.shape(0).rank() == 1, "the shape should be a 1-D tensor");
  const auto dims = small_ints(ctx, 0);
  if (!dims) {
    const auto rank = length_of(ctx, 0);
    if (!rank) return ctx.set_output(0, Type::tensor(dtype));
    ctx.check(*rank <= kMaxRank, "a tensor of rank ", *rank, " is not supported");
    return ctx.set_output(0, dtype, fresh_shape(ctx, static_cast<int>(*rank)));
  }
  const Shape shape(*dims);
  for (Dim d : shape) ctx.check(is_symbol(d) || d >= 0, "extent ", d, " in shape ", shape, " is negative");
  check_fits(ctx, dtype, shape);
  ctx.set_output(0, dtype, shape);
  if (shape.rank() <= 1 && shape.known() && shape.count() <= kMaxKnownInts && is_integer(dtype) && bits_of(dtype) >= 8)
    ctx.set_ints(0, std::vector<Dim>(static_cast<size_t>(shape.count()), value->ints()[0]));
}

void prepare_constant_of_shape(PrepareContext& ctx) {
  const Tensor* given = ctx.node.attr_tensor("value");
  const Tensor value = given ? *given : Tensor::of<float>({}, {0.0f});
  const Element e(value.dtype());
  const int64_t n = ctx.out_shape(0).count();
  ctx.cost(0, static_cast<double>(n * e.size));
  ctx.run([=](const Args& a, Worker& w) {
    w.parallel_for(n, move_grain(e.size), [&](int64_t b, int64_t end) {
      fill_elements(e, offset(a.out(0), b, e), value.data(), end - b);
    });
  });
}

// ---- Range: start, start + delta, ... below limit

std::optional<int64_t> range_count(const InferContext& ctx, const Tensor& start, const Tensor& limit, const Tensor& delta) {
  if (is_integer(start.dtype())) {
    const __int128 s = start.ints()[0], l = limit.ints()[0], d = delta.ints()[0];
    ctx.check(d != 0, "delta should not be 0");
    const __int128 n = d > 0 ? (l - s + d - 1) / d : (s - l - d - 1) / -d;
    return static_cast<int64_t>(std::clamp<__int128>(n, 0, INT64_MAX));
  }
  const double s = start.doubles()[0], l = limit.doubles()[0], d = delta.doubles()[0];
  ctx.check(d != 0 && std::isfinite(s) && std::isfinite(l) && std::isfinite(d), "start, limit and delta should be finite and delta not 0");
  return static_cast<int64_t>(std::clamp(std::ceil((l - s) / d), 0.0, 0x1p62));
}

void infer_range(InferContext& ctx) {
  const DType dtype = ctx.dtype(0);
  for (int i = 0; i < 3; ++i) {
    ctx.check(ctx.dtype(i) == dtype, "start, limit and delta should have one type");
    ctx.check(!ctx.ranked(i) || !ctx.shape(i).known() || ctx.shape(i).count() == 1, "start, limit and delta should be scalars");
  }
  if (ctx.constant(0) && ctx.constant(1) && ctx.constant(2)) {
    for (int i = 0; i < 3; ++i) ctx.check(ctx.constant(i)->count() == 1, "start, limit and delta should be scalars");
    const Shape shape{*range_count(ctx, *ctx.constant(0), *ctx.constant(1), *ctx.constant(2))};
    check_fits(ctx, dtype, shape);
    ctx.set_output(0, dtype, shape);
    if (is_integer(dtype) && shape[0] <= kMaxKnownInts) {
      std::vector<Dim> v;
      for (int64_t i = 0; i < shape[0]; ++i) v.push_back(ctx.constant(0)->ints()[0] + i * ctx.constant(2)->ints()[0]);
      ctx.set_ints(0, std::move(v));
    }
    return;
  }
  const auto start = small_ints(ctx, 0), limit = small_ints(ctx, 1), delta = small_ints(ctx, 2);
  if (!start || !limit || !delta || start->size() != 1 || limit->size() != 1 || delta->size() != 1)
    return ctx.set_output(0, dtype, {ctx.fresh()});
  const Dim s = (*start)[0], l = (*limit)[0], d = (*delta)[0];
  if (!is_symbol(s) && !is_symbol(l) && !is_symbol(d)) {
    auto scalar = [](Dim x) { return Tensor::of<int64_t>({}, {x}); };
    const Shape shape{*range_count(ctx, scalar(s), scalar(l), scalar(d))};
    check_fits(ctx, dtype, shape);
    ctx.set_output(0, dtype, shape);
    if (shape[0] > kMaxKnownInts) return;
    std::vector<Dim> v;
    for (int64_t i = 0; i < shape[0]; ++i) v.push_back(s + i * d);
    return ctx.set_ints(0, std::move(v));
  }
  ctx.set_output(0, dtype, {s == 0 && d == 1 && is_symbol(l) ? l : ctx.fresh()});
}

template <class T, class S> void range_kernel(PrepareContext& ctx, S from_double) {
  const int64_t n = ctx.out_shape(0).count();
  ctx.cost(0, static_cast<double>(n) * sizeof(T));
  ctx.run([=](const Args& a, Worker& w) {
    const T start = *a.in<T>(0), delta = *a.in<T>(2);
    T* out = a.out<T>(0);
    w.parallel_for(n, move_grain(sizeof(T)), [&](int64_t b, int64_t e) {
      for (int64_t i = b; i < e; ++i) out[i] = from_double(start, delta, i);
    });
  });
}

void prepare_range(PrepareContext& ctx) {
  auto whole = []<class T>(T s, T d, int64_t i) {
    return static_cast<T>(static_cast<uint64_t>(s) + static_cast<uint64_t>(d) * static_cast<uint64_t>(i));
  };
  auto real = []<class T>(T s, T d, int64_t i) { return static_cast<T>(static_cast<double>(s) + static_cast<double>(i) * static_cast<double>(d)); };
  switch (ctx.out_dtype(0)) {
    case DType::kInt64: return range_kernel<int64_t>(ctx, whole);
    case DType::kInt32: return range_kernel<int32_t>(ctx, whole);
    case DType::kInt16: return range_kernel<int16_t>(ctx, whole);
    case DType::kFloat: return range_kernel<float>(ctx, real);
    case DType::kDouble: return range_kernel<double>(ctx, real);
    case DType::kFloat16:
      return range_kernel<Half>(ctx, [](Half s, Half d, int64_t i) { return to_half(to_float(s) + static_cast<float>(i) * to_float(d)); });
    case DType::kBFloat16:
      return range_kernel<BFloat16>(ctx, [](BFloat16 s, BFloat16 d, int64_t i) { return to_bfloat16(to_float(s) + static_cast<float>(i) * to_float(d)); });
    default: ctx.fail("elements of this type are not supported");
  }
}

// ---- EyeLike: ones on diagonal k

void infer_eye_like(InferContext& ctx) {
  DType dtype = ctx.dtype(0);
  if (ctx.node.has("dtype")) dtype = static_cast<DType>(ctx.node.attr_int("dtype", 1));
  ctx.check(bits_of(dtype) >= 8 && dtype != DType::kString, "attribute 'dtype' (", static_cast<int>(dtype), ") is not a numeric type");
  if (!ctx.ranked(0)) return ctx.set_output(0, dtype, fresh_shape(ctx, 2));
  ctx.check(ctx.shape(0).rank() == 2, "the input should have rank 2");
  ctx.set_output(0, dtype, ctx.shape(0));
}

void prepare_eye_like(PrepareContext& ctx) {
  const Element e(ctx.out_dtype(0));
  const int64_t rows = ctx.out_shape(0)[0], cols = ctx.out_shape(0)[1], k = ctx.node.attr_int("k", 0);
  const int64_t one = 1;
  Tensor value;
  if (ctx.out_dtype(0) == DType::kFloat16) value = Tensor::of<Half>({}, {to_half(1)});
  else if (ctx.out_dtype(0) == DType::kBFloat16) value = Tensor::of<BFloat16>({}, {to_bfloat16(1)});
  else value = Tensor::from_ints(ctx.out_dtype(0), {}, &one);
  move_cost(ctx);
  ctx.run([=](const Args& a, Worker& w) {
    w.parallel_for(rows, move_grain(cols * e.size), [&](int64_t b, int64_t end) {
      std::memset(offset(a.out(0), b * cols, e), 0, static_cast<size_t>((end - b) * cols * e.size));
      for (int64_t r = b; r < end; ++r)
        if (k >= -r && k < cols - r) copy_elements(e, offset(a.out(0), r * cols + r + k, e), value.data(), 1);
    });
  });
}

const OpRegistration rows({
    {"Shape", "", 1, infer_shape, prepare_shape, nullptr, kAnyLayout},
    {"Size", "", 1, infer_size, prepare_size, nullptr, kAnyLayout},
    {"ConstantOfShape", "", 9, infer_constant_of_shape, sub_byte<prepare_constant_of_shape>},
    {"Range", "", 11, infer_range, prepare_range},
    {"EyeLike", "", 9, infer_eye_like, prepare_eye_like},
});

const GradRegistration grads({
    {"Shape", "", nullptr}, {"Size", "", nullptr}, {"ConstantOfShape", "", nullptr}, {"EyeLike", "", nullptr},
});

}  // namespace
}  // namespace tiercel

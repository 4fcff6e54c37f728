// DFT along an axis, STFT over the frames of a signal: sequences are gathered eight at a time, transformed (fft.h), and scattered.
#include "ops/fft.h"
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

// An optional integer input of one element: its value; a symbol when unknown; nullopt when left out.
std::optional<Dim> scalar(const InferContext& ctx, int i, const char* name) {
  if (!ctx.has_input(i)) return std::nullopt;
  ctx.check(ctx.dtype(i) == DType::kInt32 || ctx.dtype(i) == DType::kInt64, name, " should be int32 or int64, got ", dtype_name(ctx.dtype(i)));
  ctx.check(!ctx.ranked(i) || !ctx.shape(i).known() || ctx.shape(i).count() == 1, name, " should be a scalar");
  if (const Tensor* t = ctx.constant(i)) {
    const int64_t value = t->ints()[0];
    ctx.check(!is_symbol(value), name, " is out of range, got ", value);  // it would be taken for a symbol
    return value;
  }
  const auto v = small_ints(ctx, i);
  return v && v->size() == 1 ? (*v)[0] : ctx.fresh();
}

bool flag(const Node& node, const char* name, int64_t otherwise = 0) { return node.attr_int(name, otherwise) != 0; }

// The length of the transforms; the plan, with its tables and scratch, takes up to some forty times that.
void check_length(const InferContext& ctx, Dim n, const char* what) {
  if (is_symbol(n)) return;
  ctx.check(n >= 1, what, " should be 1 at least, got ", n);
  check_fits(ctx, ctx.dtype(0) == DType::kDouble ? DType::kDouble : DType::kFloat, {n, 40});
}

Dim half_of(const InferContext& ctx, Dim n) { return is_symbol(n) ? ctx.fresh() : n / 2 + 1; }

// Transforms `rows` sequences: load(row, re, im, step) fills n elements of each part, `step` apart; store(row, re, im, step) takes them.
// Of `real` sequences the first result and the middle one are real, and not only up to rounding.
template <class T, class Load, class Store>
void transform_rows(PrepareContext& ctx, int64_t n, int64_t rows, bool inverse, bool real, Load load, Store store) {
  const auto plan = std::make_shared<const Fft<T>>(n);
  const int64_t lanes = rows >= 4 && n <= 65536 ? 8 : 1, groups = ceil_div(rows, lanes), each = (2 * n + plan->scratch()) * lanes;
  const double count = static_cast<double>(n) * static_cast<double>(rows);
  ctx.cost(count * (10 + 5 * std::log2(static_cast<double>(n))), 4 * count * sizeof(T));
  if (groups <= 1) ctx.serial();
  ctx.workspace((groups <= 1 ? 1 : ctx.threads()) * round_up(each * static_cast<int64_t>(sizeof(T)), 64));
  ctx.run([=](const Args& a, Worker& w) {
    T* re = a.workspace<T>() + w.index() * round_up(each, static_cast<int64_t>(64 / sizeof(T)));
    T *im = re + n * lanes, *scratch = im + n * lanes;
    w.parallel_for(groups, grain_for(n * lanes), [&](int64_t b, int64_t e) {
      for (int64_t g = b; g < e; ++g) {
        for (int64_t l = 0; l < lanes; ++l) load(a, std::min(g * lanes + l, rows - 1), re + l, im + l, lanes);
        T *x = inverse ? im : re, *y = inverse ? re : im;
        if (lanes == 1) plan->template run<1>(x, y, scratch);
        else plan->template run<8>(x, y, scratch);
        if (real) {
          std::fill_n(im, lanes, T{0});
          if (n % 2 == 0) std::fill_n(im + n / 2 * lanes, lanes, T{0});
        }
        for (int64_t l = 0; l < std::min(lanes, rows - g * lanes); ++l) store(a, g * lanes + l, re + l, im + l, lanes);
      }
    });
  });
}

// ---- DFT

void infer_dft(InferContext& ctx) {
  check_real(ctx, 0);
  const bool inverse = flag(ctx.node, "inverse"), onesided = flag(ctx.node, "onesided");
  const auto given = scalar(ctx, 1, "dft_length");
  if (given) check_length(ctx, *given, "dft_length");
  Dim at = ctx.node.attr_int("axis", 1);
  if (ctx.node.opset >= 20) {
    const auto axis = scalar(ctx, 2, "the axis");
    at = axis ? *axis : -2;
  } else {
    ctx.check(!is_symbol(at), "axis is out of range");
  }
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
  Shape s = ctx.shape(0);
  const int rank = s.rank();
  ctx.check(rank >= 2, "the input should have rank 2 at least");
  const Dim parts = s[rank - 1];
  ctx.check(is_symbol(parts) || parts == 1 || parts == 2, "the last extent should be 1 or 2, the parts of a number, got ", parts);
  if (is_symbol(at)) {
    s = fresh_shape(ctx, rank);
  } else {
    const int axis = ctx.axis(at, rank);
    ctx.check(axis != rank - 1, "the last axis holds the parts of a number, and is not transformed");
    Dim n = s[axis];
    if (given) n = *given;
    else if (inverse && onesided) n = is_symbol(n) ? ctx.fresh() : n > INT64_MAX / 4 ? n : 2 * (n - 1);
    check_length(ctx, n, "the length");
    s[axis] = onesided && !inverse ? half_of(ctx, n) : n;
  }
  s[rank - 1] = onesided && inverse ? 1 : 2;
  if (s.known()) check_fits(ctx, ctx.dtype(0), s);
  ctx.set_output(0, ctx.dtype(0), s);
}

template <class T> void prepare_dft_as(PrepareContext& ctx, int axis, int64_t n) {
  const Shape &in = ctx.shape(0), &out = ctx.out_shape(0);
  const int rank = in.rank();
  const bool inverse = flag(ctx.node, "inverse"), onesided = flag(ctx.node, "onesided");
  const bool to_real = inverse && onesided;  // from half of a symmetric spectrum
  const int64_t extent = in[axis], parts = in[rank - 1], results = out[axis], inner = in.count(axis + 1, rank - 1);
  const int64_t read = std::min(extent, to_real ? n / 2 + 1 : n);
  const T scale = inverse ? T{1} / static_cast<T>(n) : T{1};
  transform_rows<T>(
      ctx, n, in.count(0, axis) * inner, inverse, parts == 1,
      [=](const Args& a, int64_t row, T* re, T* im, int64_t step) {
        const T* x = a.in<T>(0) + (row / inner * extent * inner + row % inner) * parts;
        for (int64_t k = 0; k < read; ++k) {
          re[k * step] = x[k * inner * parts];
          im[k * step] = parts == 2 ? x[k * inner * parts + 1] : T{0};
        }
        for (int64_t k = read; k < n; ++k) re[k * step] = im[k * step] = 0;
        if (!to_real) return;
        im[0] = 0;
        if (n % 2 == 0) im[n / 2 * step] = 0;
        for (int64_t k = 1; 2 * k < n; ++k) {
          re[(n - k) * step] = re[k * step];
          im[(n - k) * step] = -im[k * step];
        }
      },
      [=](const Args& a, int64_t row, const T* re, const T* im, int64_t step) {
        const int64_t width = to_real ? 1 : 2;
        T* y = a.out<T>(0) + (row / inner * results * inner + row % inner) * width;
        for (int64_t k = 0; k < results; ++k) {
          y[k * inner * width] = re[k * step] * scale;
          if (!to_real) y[k * inner * width + 1] = im[k * step] * scale;
        }
      });
}

void prepare_dft(PrepareContext& ctx) {
  const Shape &in = ctx.shape(0), &out = ctx.out_shape(0);
  int64_t at = ctx.node.attr_int("axis", 1);
  if (ctx.node.opset >= 20) at = ctx.has_input(2) ? known_ints(ctx, 2).value_or(std::vector<int64_t>{INT64_MAX})[0] : -2;
  const int axis = normalize_axis(at, in.rank());
  const auto given = ctx.has_input(1) ? known_ints(ctx, 1) : std::nullopt;
  if (axis < 0 || (ctx.has_input(1) && (!given || given->size() != 1))) ctx.fail("the axis and dft_length should be known numbers");
  const bool to_real = flag(ctx.node, "inverse") && flag(ctx.node, "onesided");
  const int64_t n = given ? (*given)[0] : to_real ? out[axis] : in[axis];
  ctx.dtype(0) == DType::kDouble ? prepare_dft_as<double>(ctx, axis, n) : prepare_dft_as<float>(ctx, axis, n);
}

// ---- STFT

void infer_stft(InferContext& ctx) {
  check_real(ctx, 0);
  ctx.input(1);
  const Dim hop = *scalar(ctx, 1, "frame_step");
  ctx.check(is_symbol(hop) || hop >= 1, "frame_step should be 1 at least, got ", hop);
  auto length = scalar(ctx, 3, "frame_length");
  if (ctx.has_input(2)) {
    ctx.check(ctx.dtype(2) == ctx.dtype(0), "the signal and the window should have one type");
    if (ctx.ranked(2)) {
      ctx.check(ctx.shape(2).rank() == 1, "the window should be a 1-D tensor");
      // A given frame_length that is not known yet may still disagree.
      if (!length) length = ctx.shape(2)[0];
      else if (!is_symbol(*length)) unify(ctx, ctx.shape(2)[0], *length, "frame_length and the length of the window");
    } else if (!length) {
      length = ctx.fresh();
    }
  }
  Shape out{ctx.fresh(), ctx.fresh(), ctx.fresh(), 2};
  if (ctx.ranked(0)) {
    const Shape& s = ctx.shape(0);
    ctx.check(s.rank() == 3 || s.rank() == 2, "the signal should be [batch, length, 1 or 2]");
    if (s.rank() == 3) ctx.check(is_symbol(s[2]) || s[2] == 1 || s[2] == 2, "the last extent should be 1 or 2, the parts of a number, got ", s[2]);
    if (!length) length = s[1];
    out[0] = s[0];
    if (!is_symbol(s[1]) && !is_symbol(*length)) {
      ctx.check(*length <= s[1], "a frame of ", *length, " is longer than the signal of ", s[1]);
      if (!is_symbol(hop)) out[1] = (s[1] - *length) / hop + 1;
    }
  }
  if (length) {
    check_length(ctx, *length, "frame_length");
    out[2] = flag(ctx.node, "onesided", 1) ? half_of(ctx, *length) : *length;
  }
  if (out.known()) check_fits(ctx, ctx.dtype(0), out);
  ctx.set_output(0, ctx.dtype(0), out);
}

template <class T> void prepare_stft_as(PrepareContext& ctx, int64_t hop, int64_t n) {
  const Shape &in = ctx.shape(0), &out = ctx.out_shape(0);
  const int64_t length = in[1], parts = in.rank() == 3 ? in[2] : 1, frames = out[1], results = out[2];
  transform_rows<T>(
      ctx, n, in[0] * frames, false, parts == 1,
      [=](const Args& a, int64_t row, T* re, T* im, int64_t step) {
        const T* x = a.in<T>(0) + (row / frames * length + row % frames * hop) * parts;
        const T* window = a.in<T>(2);
        for (int64_t k = 0; k < n; ++k) {
          const T f = window ? window[k] : T{1};
          re[k * step] = x[k * parts] * f;
          im[k * step] = parts == 2 ? x[k * parts + 1] * f : T{0};
        }
      },
      [=](const Args& a, int64_t row, const T* re, const T* im, int64_t step) {
        T* y = a.out<T>(0) + row * results * 2;
        for (int64_t k = 0; k < results; ++k) {
          y[2 * k] = re[k * step];
          y[2 * k + 1] = im[k * step];
        }
      });
}

void prepare_stft(PrepareContext& ctx) {
  const auto hop = known_ints(ctx, 1), given = ctx.has_input(3) ? known_ints(ctx, 3) : std::nullopt;
  if (!hop || hop->size() != 1 || (ctx.has_input(3) && (!given || given->size() != 1))) ctx.fail("frame_step and frame_length should be known numbers");
  const int64_t n = given ? (*given)[0] : ctx.has_input(2) ? ctx.shape(2)[0] : ctx.shape(0)[1];
  ctx.dtype(0) == DType::kDouble ? prepare_stft_as<double>(ctx, (*hop)[0], n) : prepare_stft_as<float>(ctx, (*hop)[0], n);
}

const OpRegistration rows({
    {"DFT", "", 17, infer_dft, half_as_float<prepare_dft>},
    {"STFT", "", 17, infer_stft, half_as_float<prepare_stft>},
});

}  // namespace
}  // namespace tiercel

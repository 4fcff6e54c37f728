// Unique: the distinct elements (or slices along an axis), sorted or in order of appearance, with where each first stands, which
// one each input element is, and how often each occurs. NaNs are equal to each other and sort last, as in numpy.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/float_formats.h"
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

template <class T> int compare(const T& a, const T& b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(a) || std::isnan(b)) return static_cast<int>(std::isnan(a)) - static_cast<int>(std::isnan(b));
  }
  return a < b ? -1 : b < a ? 1 : 0;
}
int compare(Half a, Half b) { return compare(to_float(a), to_float(b)); }
int compare(BFloat16 a, BFloat16 b) { return compare(to_float(a), to_float(b)); }

// Item i is the `inner` elements at (o, i, :) for every o < outer.
struct Found {
  std::vector<int64_t> first, inverse, counts;  // by distinct item; inverse by input item
};

template <class T> Found find(const T* data, const AxisSplit& s, bool sorted) {
  auto order = [&](int64_t a, int64_t b) {
    for (int64_t o = 0; o < s.outer; ++o) {
      const T *x = data + (o * s.extent + a) * s.inner, *y = data + (o * s.extent + b) * s.inner;
      for (int64_t i = 0; i < s.inner; ++i) if (const int c = compare(x[i], y[i])) return c;
    }
    return 0;
  };
  std::vector<int64_t> at(static_cast<size_t>(s.extent));
  std::iota(at.begin(), at.end(), int64_t{0});
  std::sort(at.begin(), at.end(), [&](int64_t a, int64_t b) {
    const int c = order(a, b);
    return c ? c < 0 : a < b;
  });
  Found f;
  f.inverse.resize(at.size());
  for (size_t k = 0; k < at.size(); ++k) {
    if (k == 0 || order(at[k - 1], at[k]) != 0) {
      f.first.push_back(at[k]);
      f.counts.push_back(0);
    }
    ++f.counts.back();
    f.inverse[static_cast<size_t>(at[k])] = static_cast<int64_t>(f.first.size()) - 1;
  }
  if (sorted) return f;
  std::vector<size_t> by_place(f.first.size());
  std::iota(by_place.begin(), by_place.end(), size_t{0});
  std::sort(by_place.begin(), by_place.end(), [&](size_t a, size_t b) { return f.first[a] < f.first[b]; });
  Found r;
  std::vector<int64_t> renamed(by_place.size());
  for (size_t k = 0; k < by_place.size(); ++k) {
    renamed[by_place[k]] = static_cast<int64_t>(k);
    r.first.push_back(f.first[by_place[k]]);
    r.counts.push_back(f.counts[by_place[k]]);
  }
  for (int64_t i : f.inverse) r.inverse.push_back(renamed[static_cast<size_t>(i)]);
  return r;
}

void infer(InferContext& ctx) {
  ctx.input(0);
  const Dim n = ctx.fresh();
  Type t = Type::tensor(ctx.dtype(0));
  Dim items = ctx.fresh();
  if (!ctx.node.has("axis")) {
    t = Type::tensor(ctx.dtype(0), {n});
    if (ctx.ranked(0) && ctx.shape(0).known()) items = ctx.shape(0).count();
  } else if (ctx.ranked(0)) {
    Shape s = ctx.shape(0);
    const int axis = ctx.axis(ctx.node.attr_int("axis", 0), s.rank());
    items = s[axis];
    s[axis] = n;
    t = Type::tensor(ctx.dtype(0), s);
  }
  ctx.set_output(0, t);
  ctx.set_output(1, DType::kInt64, {n});
  ctx.set_output(2, DType::kInt64, {items});
  ctx.set_output(3, DType::kInt64, {n});
}

void eval(EvalContext& ctx, Worker&) {
  Tensor t = ctx.tensor(0);
  const bool flat = !ctx.node.has("axis"), sorted = ctx.node.attr_int("sorted", 1) != 0;
  if (flat) t = t.reshaped({t.count()});
  const int axis = flat ? 0 : normalize_axis(ctx.node.attr_int("axis", 0), t.shape().rank());
  ctx.check(axis >= 0, "axis ", ctx.node.attr_int("axis", 0), " is outside the rank ", t.shape().rank());
  const AxisSplit s(t.shape(), axis);
  Found f;
  switch (t.dtype()) {
    case DType::kFloat: f = find(t.as<float>(), s, sorted); break;
    case DType::kFloat16: f = find(t.as<Half>(), s, sorted); break;
    case DType::kBFloat16: f = find(t.as<BFloat16>(), s, sorted); break;
    case DType::kBool: f = find(t.as<uint8_t>(), s, sorted); break;
    case DType::kString: f = find(t.as<std::string>(), s, sorted); break;
    default:
      if (!with_plain_type(t.dtype(), [&](auto tag) { f = find(t.as<typename decltype(tag)::type>(), s, sorted); }))
        ctx.fail("elements of type ", dtype_name(t.dtype()), " have no order");
  }
  const auto n = static_cast<int64_t>(f.first.size());
  Shape shape = t.shape();
  shape[axis] = n;
  Tensor out(t.dtype(), shape);
  const Element e(t.dtype());
  for (int64_t o = 0; o < s.outer; ++o)
    for (int64_t i = 0; i < n; ++i)
      copy_elements(e, offset(out.data(), (o * n + i) * s.inner, e),
                    offset(t.data(), (o * s.extent + f.first[static_cast<size_t>(i)]) * s.inner, e), s.inner);
  ctx.set(0, out);
  const std::vector<int64_t>* lists[] = {&f.first, &f.inverse, &f.counts};
  for (int i = 1; i < 4; ++i)
    if (ctx.has_output(i))
      ctx.set(i, Tensor::from_ints(DType::kInt64, {static_cast<Dim>(lists[i - 1]->size())}, lists[i - 1]->data()));
}

const OpRegistration rows({{"Unique", "", 11, infer, nullptr, eval}});

}  // namespace
}  // namespace tiercel

// TopK: the k largest (smallest) elements along an axis and their indices; ties go to the lower index, NaN counts as the largest.
#include <bit>
#include <memory>

#include "kernels/reduce/reduce.h"

#include "ops/grad.h"
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

// k as an attribute (opset 1) or an input, when known.
template <class Ctx> std::optional<int64_t> k_of(const Ctx& ctx) {
  if (ctx.node.opset < 10) return ctx.node.attr_int("k", 0);
  const auto k = known_ints(ctx, 1);
  return k && k->size() == 1 ? std::optional((*k)[0]) : std::nullopt;
}

void infer(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  ctx.check(is_real(t) || (is_integer(t) && bits_of(t) >= 8), "does not take ", dtype_name(t));
  if (ctx.node.opset < 10) ctx.check(ctx.node.has("k"), "the attribute k is required");
  else ctx.check(ctx.input(1).type.dtype == DType::kInt64, "k should be int64, got ", dtype_name(ctx.dtype(1)));
  ctx.set_output(0, Type::tensor(t));
  ctx.set_output(1, Type::tensor(DType::kInt64));
  if (!ctx.ranked(0)) return;
  Shape s = ctx.shape(0);
  const int axis = ctx.axis(ctx.node.attr_int("axis", -1), s.rank());
  if (const auto k = k_of(ctx)) {
    ctx.check(*k >= 0, "k should not be negative, got ", *k);
    ctx.check(s[axis] < 0 || *k <= s[axis], "k is ", *k, ", but the axis has ", s[axis], " elements");
    s[axis] = *k;
  } else {
    s[axis] = ctx.fresh();
  }
  ctx.set_output(0, t, s);
  ctx.set_output(1, DType::kInt64, s);
}

uint32_t order(float v) { return float_order(v); }
uint64_t order(double v) {
  if (v != v) return ~uint64_t{0};
  const uint64_t u = std::bit_cast<uint64_t>(v + 0.0);
  return u >> 63 ? ~u : u | uint64_t{1} << 63;
}
template <class T> auto order(T v) {
  using U = std::conditional_t<sizeof(T) == 8, uint64_t, uint32_t>;
  if constexpr (std::is_signed_v<T>) return static_cast<U>(static_cast<U>(static_cast<std::make_signed_t<U>>(v)) ^ (U{1} << (8 * sizeof(U) - 1)));
  else return static_cast<U>(v);
}

// An element by its key, complemented for the largest first, so that the best is the least and ties fall to the index.
struct Narrow {  // keys of 32 bits and indices below 2^32 in one word
  uint64_t word;
  Narrow() = default;
  Narrow(uint64_t key, int64_t i) : word(key << 32 | static_cast<uint64_t>(i)) {}
  int64_t index() const { return static_cast<int64_t>(word & 0xffffffffu); }
  bool operator<(const Narrow& o) const { return word < o.word; }
};
struct WideEntry {
  uint64_t key;
  int64_t at;
  WideEntry() = default;
  WideEntry(uint64_t k, int64_t i) : key(k), at(i) {}
  int64_t index() const { return at; }
  bool operator<(const WideEntry& o) const { return key != o.key ? key < o.key : at < o.at; }
};

// The k least of n entries, sorted: a heap of k while k is small, else selection.
template <class Entry, class Get> void best_of(Entry* all, int64_t n, int64_t k, Get get) {
  if (k <= 32 && n > 4 * k) {
    for (int64_t i = 0; i < k; ++i) all[i] = get(i);
    std::make_heap(all, all + k);
    for (int64_t i = k; i < n; ++i) {
      const Entry e = get(i);
      if (!(e < all[0])) continue;
      std::pop_heap(all, all + k);
      all[k - 1] = e;
      std::push_heap(all, all + k);
    }
    std::sort_heap(all, all + k);
    return;
  }
  for (int64_t i = 0; i < n; ++i) all[i] = get(i);
  if (k < n) std::nth_element(all, all + k, all + n);
  std::sort(all, all + k);
}

constexpr int64_t kFew = 512;

// The same of n floats that lie together, where k is small: nearly all are beaten by the k best so far, which one comparison of a register tells.
// False: they come in an order that takes too long, such as a rising one.
bool few_of(Narrow* best, const float* x, int64_t n, int64_t k, bool largest) {
  constexpr int64_t kMost = 1024;
  const auto entry = [&](int64_t i) {
    const uint32_t key = order(x[i]);
    return Narrow(largest ? ~key : key, i);
  };
  int64_t moves = 8 * n;
  const auto insert = [&](int64_t count, Narrow e) {  // among `count` sorted ones
    int64_t j = count;
    for (; j > 0 && e < best[j - 1]; --j) best[j] = best[j - 1];
    best[j] = e;
    moves -= count - j;
  };
  for (int64_t i = 0; i < k; ++i) insert(i, entry(i));
  int32_t at[kMost];
  for (int64_t i = k, chunk = 64; i < n; i += chunk, chunk = std::min(2 * chunk, kMost)) {
    chunk = std::min(chunk, n - i);
    if (moves < 0) return false;
    const int64_t count = reduce().beyond(x + i, chunk, x[best[k - 1].index()], largest, at);
    for (int64_t c = 0; c < count; ++c)
      if (const Narrow e = entry(i + at[c]); e < best[k - 1]) insert(k - 1, e);
  }
  return true;
}

template <class T, class Entry> void run(const T* x, const AxisView& v, int64_t k, bool largest, T* values, int64_t* indices, Worker& w) {
  if (!k) return;
  w.parallel_for(v.outer * v.inner, grain_for(v.n, 4096), [&](int64_t b, int64_t e) {
    const std::unique_ptr<Entry[]> entries(new Entry[static_cast<size_t>(v.n)]);
    for (int64_t i = b; i < e; ++i) {
      const int64_t from = i / v.inner * v.n * v.inner + i % v.inner, to = i / v.inner * k * v.inner + i % v.inner;
      bool done = false;
      if constexpr (std::is_same_v<T, float> && std::is_same_v<Entry, Narrow>)
        done = v.inner == 1 && k <= kFew && v.n >= 4 * k && few_of(entries.get(), x + from, v.n, k, largest);
      if (!done)
        best_of(entries.get(), v.n, k, [&](int64_t j) {
          const auto key = order(x[from + j * v.inner]);
          return Entry(largest ? static_cast<decltype(key)>(~key) : key, j);
        });
      for (int64_t j = 0; j < k; ++j) {
        const int64_t at = entries[static_cast<size_t>(j)].index();
        if (values) values[to + j * v.inner] = x[from + at * v.inner];
        if (indices) indices[to + j * v.inner] = at;
      }
    }
  });
}

void prepare(PrepareContext& ctx) {
  const Shape& s = ctx.shape(0);
  const int axis = normalize_axis(ctx.node.attr_int("axis", -1), s.rank());
  const AxisView v(s, axis);
  const bool has_values = ctx.has_output(0), has_indices = ctx.has_output(1);
  const int64_t k = has_values ? ctx.out_shape(0)[axis] : has_indices ? ctx.out_shape(1)[axis] : 0;
  if (k > v.n) ctx.fail("k is ", k, ", but the axis has ", v.n, " elements");
  const bool largest = ctx.node.attr_int("largest", 1) != 0;
  const double count = static_cast<double>(s.count());
  ctx.cost(10 * count, static_cast<double>(bytes_of(ctx.dtype(0), 1)) * count);
  const auto make = [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool narrow = sizeof(T) <= 4 && v.n < (int64_t{1} << 32);
    ctx.run([=, label = ctx.node.label(), given = ctx.node.opset >= 10](const Args& a, Worker& w) {
      if (given && *a.in<int64_t>(1) != k) fail(Code::kInvalidArgument, label, ": k is ", *a.in<int64_t>(1), ", the model declares ", k);
      T* values = has_values ? a.out<T>(0) : nullptr;
      int64_t* indices = has_indices ? a.out<int64_t>(1) : nullptr;
      if (narrow) run<T, std::conditional_t<sizeof(T) <= 4, Narrow, WideEntry>>(a.in<T>(0), v, k, largest, values, indices, w);
      else run<T, WideEntry>(a.in<T>(0), v, k, largest, values, indices, w);
    });
  };
  if (ctx.dtype(0) == DType::kFloat) make(Tag<float>());
  else with_plain_type(ctx.dtype(0), make);
}

const OpRegistration rows({{"TopK", "", 1, infer, half_as_float<prepare>}});

const GradRegistration grads({{"TopK", "", [](GradContext& c) {
  if (!c.dy(0)) return;
  Value* const zeros = c.w.expand_like(c.w.scalar_like(0, c.x(0)), c.x(0));
  c.set(0, c.w.op("ScatterElements", {zeros, c.made_output(1), c.dy(0)}, {{"axis", c.node.attr_int("axis", -1)}, {"reduction", std::string("add")}}));
}}});

}  // namespace
}  // namespace tiercel

// ai.tiercel.GatherRowsGrad (shape, then pairs dy, indices): what Gathers on axis 0 of one table of that shape give its gradient, as the rows that
// they took. Outputs: rows (int64, each once, ascending; -1 after the last), and the sum of the slices of dy for each (zeros after the last). There are
// as many as there are indices, at most as many as the table has. A row's slices are added in the order of its indices, Gather by Gather: the
// bits of GatherGrad and Add, on any number of threads.
#include <algorithm>
#include <bit>
#include <utility>
#include <vector>

#include "ops/indexing.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

void infer(InferContext& ctx) {
  ctx.check(ctx.num_inputs() >= 3 && ctx.num_inputs() % 2 == 1, "the inputs should be a shape and pairs of a gradient and indices, got ", ctx.num_inputs());
  const DType t = ctx.dtype(1);
  ctx.check(t == DType::kFloat || t == DType::kDouble, "gradients should be float or double, got ", dtype_name(t));
  for (int i = 1; i < ctx.num_inputs(); i += 2) {
    ctx.check(ctx.dtype(i) == t, "input ", i, " should be ", dtype_name(t), " as input 1 is, got ", dtype_name(ctx.dtype(i)));
    check_index_type(ctx, i + 1);
  }
  const auto ints = ctx.ints(0);
  Dim n = 0;
  for (int i = 2; i < ctx.num_inputs(); i += 2) {
    const bool known = !is_symbol(n) && ctx.ranked(i) && ctx.shape(i).known();
    n = known ? n + ctx.shape(i).count() : kSymbolBase;
  }
  if (!ints) {
    ctx.set_output(0, DType::kInt64, Shape{ctx.fresh()});
    return ctx.set_output(1, Type::tensor(t));
  }
  ctx.check(!ints->empty(), "the table should have rank 1 at least");
  for (const Dim d : *ints) ctx.check(d >= 0 || is_symbol(d), "the table has an extent of ", d);
  Shape sums{std::span<const Dim>(*ints)};
  sums[0] = is_symbol(n) || is_symbol(sums[0]) ? ctx.fresh() : std::min(n, sums[0]);
  ctx.set_output(0, DType::kInt64, Shape{sums[0]});
  ctx.set_output(1, t, sums);
}

struct Item { int64_t row, at; };  // at: the place of the index among all of them

// By row; where it is one, in the order that they had. `other`: as much memory again; returns the one that holds the result.
Item* sort_by_row(Item* items, Item* other, int64_t n, int64_t extent) {
  constexpr int kBits = 11;
  constexpr size_t kDigits = size_t{1} << kBits;
  const int bits = std::bit_width(static_cast<uint64_t>(std::max<int64_t>(extent - 1, 0)));
  for (int shift = 0; shift < bits; shift += kBits) {
    int64_t begin[kDigits] = {};
    const auto digit = [&](const Item& i) { return static_cast<size_t>(i.row >> shift) & (kDigits - 1); };
    for (int64_t i = 0; i < n; ++i) ++begin[digit(items[i])];
    for (int64_t sum = 0; int64_t& b : begin) b = std::exchange(sum, sum + b);
    for (int64_t i = 0; i < n; ++i) other[begin[digit(items[i])]++] = items[i];
    std::swap(items, other);
  }
  return items;
}

// The indices of one Gather among all of them.
struct Source {
  int input;
  int64_t begin, end;
  bool wide;
};

// Of many indices for each row, without a sort: every slice is added to its row at once, those of a further Gather in a table of their own first.
// Then the rows that were taken move together.
template <class T> void make_dense(PrepareContext& ctx, const std::vector<Source>& sources, int64_t extent, int64_t block) {
  const int64_t strip = std::min<int64_t>(block, 128), strips = block ? ceil_div(block, strip) : 0, n = sources.back().end;
  const int64_t parts = sources.size() > 1 ? round_up(static_cast<int64_t>(sizeof(T)) * extent * block, 64) : 0;
  ctx.workspace(parts + 8 + extent);
  ctx.cost(static_cast<double>(n * block), static_cast<double>(sizeof(T)) * static_cast<double>((n + 2 * extent) * block));
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    T *const y = a.out<T>(1), *const part = a.workspace<T>();
    int64_t& count = *reinterpret_cast<int64_t*>(a.workspace<char>() + parts);
    char* const taken = reinterpret_cast<char*>(&count + 1);
    int64_t* const rows = a.out<int64_t>(0);
    if (w.index() == 0) std::fill_n(taken, extent, char{0});
    w.barrier();
    const auto add = [&]<class Index>(const Source& s, const Index* index, T* to, int64_t first, int64_t m) {
      for (int64_t r = 0; r < extent; ++r) std::fill_n(to + r * block + first, m, T(0));
      const T* d = a.in<T>(s.input) + first;
      for (int64_t i = 0; i < s.end - s.begin; ++i, d += block) {
        const int64_t r = place(index[i], extent, label);
        if (first == 0) taken[r] = 1;
        T* const sum = to + r * block + first;
        for (int64_t j = 0; j < m; ++j) sum[j] += d[j];
      }
    };
    w.parallel_for(std::max<int64_t>(strips, 1), 1, [&](int64_t b, int64_t e) {  // without elements, too, rows are taken
      for (int64_t t = b; t < e; ++t) {
        const int64_t first = t * strip, m = std::min(strip, block - first);
        for (const Source& s : sources) {
          T* const to = &s == sources.data() ? y : part;
          if (s.wide) add(s, a.in<int64_t>(s.input + 1), to, first, m);
          else add(s, a.in<int32_t>(s.input + 1), to, first, m);
          if (to != y)
            for (int64_t r = 0; r < extent; ++r)
              for (int64_t j = r * block + first; j < r * block + first + m; ++j) y[j] += part[j];
        }
      }
    });
    w.barrier();
    if (w.index() == 0) {
      count = 0;
      for (int64_t r = 0; r < extent; ++r) if (taken[r]) rows[count++] = r;
      std::fill(rows + count, rows + extent, int64_t{-1});
    }
    w.barrier();
    if (count == extent) return;
    w.parallel_for(strips, 1, [&](int64_t b, int64_t e) {
      for (int64_t t = b; t < e; ++t) {
        const int64_t first = t * strip, m = std::min(strip, block - first);
        for (int64_t r = 0; r < count; ++r) if (rows[r] != r) std::copy_n(y + rows[r] * block + first, m, y + r * block + first);
        for (int64_t r = count; r < extent; ++r) std::fill_n(y + r * block + first, m, T(0));
      }
    });
  });
}

template <class T> void make(PrepareContext& ctx) {
  constexpr int64_t kDense = 2;
  constexpr int64_t kStrip = 256;
  const std::vector<Dim> shape = *ctx.ints(0);
  const Shape table{std::span<const Dim>(shape)};
  const int64_t extent = table[0], block = table.count(1, table.rank());
  std::vector<Source> sources;
  int64_t n = 0;
  for (int i = 1; i < ctx.num_inputs(); i += 2) {
    const int64_t count = ctx.shape(i + 1).count();
    if (ctx.shape(i).count() != count * block)
      ctx.fail("input ", i, " should have ", block, " elements for each of ", count, " indices, but its shape is ", ctx.shape(i).str());
    sources.push_back({i, n, n + count, ctx.dtype(i + 1) == DType::kInt64});
    n += count;
  }
  if (extent && n >= kDense * extent) return make_dense<T>(ctx, sources, extent, block);
  const int64_t most = ctx.out_shape(1)[0], strip = std::min(block, kStrip), strips = block ? ceil_div(block, strip) : 0;
  const int64_t bytes = static_cast<int64_t>(sizeof(Item)) * n;
  ctx.workspace(2 * bytes + 8 * (most + 2));
  ctx.cost(static_cast<double>(n * block + 16 * n), static_cast<double>(sizeof(T)) * static_cast<double>((n + 2 * most) * block));
  ctx.run([=, label = ctx.node.label()](const Args& a, Worker& w) {
    int64_t* const numbers = a.workspace<int64_t>();  // of rows, where the sorted items are, where each row's begin, where the last one's end
    int64_t& count = numbers[0];
    int64_t* const begin = numbers + 1;
    Item* const items = reinterpret_cast<Item*>(numbers + most + 2);
    if (w.index() == 0) {
      for (const Source& s : sources)
        for (int64_t i = s.begin; i < s.end; ++i) {
          const int64_t k = i - s.begin, given = s.wide ? a.in<int64_t>(s.input + 1)[k] : a.in<int32_t>(s.input + 1)[k];
          items[i] = {place(given, extent, label), i};
        }
      const Item* const sorted = sort_by_row(items, items + n, n, extent);
      if (sorted != items) std::copy_n(sorted, n, items);
      int64_t* const rows = a.out<int64_t>(0);
      count = 0;
      for (int64_t i = 0; i < n; ++i)
        if (i == 0 || items[i].row != items[i - 1].row) {
          rows[count] = items[i].row;
          begin[count++] = i;
        }
      begin[count] = n;
      std::fill(rows + count, rows + most, int64_t{-1});
    }
    w.barrier();
    w.parallel_for(most * strips, grain_for(strip, 4096), [&](int64_t b, int64_t e) {
      T part[kStrip];
      for (int64_t t = b; t < e; ++t) {
        const int64_t r = t / strips, first = t % strips * strip, m = std::min(strip, block - first);
        T* const y = a.out<T>(1) + r * block + first;
        std::fill_n(y, m, T(0));
        if (r >= count) continue;
        size_t k = 0;
        for (int64_t i = begin[r], end = begin[r + 1]; i < end;) {
          while (items[i].at >= sources[k].end) ++k;
          const Source& s = sources[k];
          const bool alone = i == begin[r];  // the first sum is the total so far
          T* const sum = alone ? y : part;
          if (!alone) std::fill_n(sum, m, T(0));
          for (; i < end && items[i].at < s.end; ++i) {
            const T* const d = a.in<T>(s.input) + (items[i].at - s.begin) * block + first;
            for (int64_t j = 0; j < m; ++j) sum[j] += d[j];
          }
          if (!alone) for (int64_t j = 0; j < m; ++j) y[j] += part[j];
        }
      }
    });
  });
}

void prepare(PrepareContext& ctx) {
  if (ctx.dtype(1) == DType::kDouble) make<double>(ctx);
  else make<float>(ctx);
}

const OpRegistration rows({{"GatherRowsGrad", kTiercelDomain, 1, infer, prepare}});

}  // namespace
}  // namespace tiercel

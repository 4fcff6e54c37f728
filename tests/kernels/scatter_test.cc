#include <cmath>
#include <cstring>
#include <vector>

#include "harness.h"
#include "kernels/scatter/scatter.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {

struct Lists { std::vector<int64_t> from, to; };
// Places of rows among `places`, which are `stride` elements apart: they meet.
Lists draw_lists(int64_t n, int64_t places, int64_t stride) {
  Lists l;
  for (int64_t i = 0; i < n; ++i) {
    l.from.push_back(integer(0, n - 1) * stride);
    l.to.push_back(integer(0, places - 1) * stride);
  }
  return l;
}

template <class T> T drawn() {
  switch (integer(0, 20)) {
    case 0: return std::numeric_limits<T>::quiet_NaN();
    case 1: return std::numeric_limits<T>::infinity();
    case 2: return T(-0.0);
    default: return static_cast<T>(integer(-1000, 1000)) / T(64);
  }
}

template <class T> bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (std::isnan(a[i]) ? !std::isnan(b[i]) : std::memcmp(&a[i], &b[i], sizeof(T)) != 0) return false;
  return true;
}

template <class T> void combine_floats(Isa isa) {
  const ScatterKernels& k = *scatter_kernels_for(isa);
  const DType t = sizeof(T) == 4 ? DType::kFloat : DType::kDouble;
  for (Scatter f : {Scatter::kAdd, Scatter::kMul, Scatter::kMax, Scatter::kMin})
    for (int64_t width : {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 48, 70})
      for (int64_t n : {0, 1, 2, 9}) {
        const int64_t stride = width + integer(0, 2), places = 4;
        const Lists l = draw_lists(n, places, stride);
        std::vector<T> x(static_cast<size_t>(n * stride + width)), a(static_cast<size_t>(places * stride + width));
        for (T& v : x) v = drawn<T>();
        for (T& v : a) v = drawn<T>();
        std::vector<T> b = a;
        scatter_fn(k, f, t)(x.data(), l.from.data(), a.data(), l.to.data(), n, width);
        reference::scatter<T>(f, x.data(), l.from.data(), b.data(), l.to.data(), n, width);
        if (!same_bits(a, b)) report(__FILE__, __LINE__, cat("reduction ", static_cast<int>(f), " width ", width, " rows ", n));
      }
}

template <class Index> void look_up(Isa isa) {
  const IndexKernels<Index>& k = index_kernels<Index>(*scatter_kernels_for(isa));
  for (int64_t width : {1, 2, 3, 4, 7, 8, 16, 40, 64, 65, 130, 200})
    for (int kind = 0; kind < 4; ++kind) {  // alike; but for one; of no order; one of them outside
      const int64_t n = integer(1, 6), extent = integer(1, 50);
      std::vector<Index> index(static_cast<size_t>(n * width));
      for (size_t i = 0; i < index.size(); ++i)
        index[i] = kind < 2 && i % static_cast<size_t>(width) ? index[i - 1] : static_cast<Index>(integer(-extent, extent - 1));
      Index& one = index[static_cast<size_t>(integer(0, n * width - 1))];
      if (kind == 1) one = static_cast<Index>(integer(-extent, extent - 1));
      if (kind == 3) one = static_cast<Index>(integer(0, 1) ? extent : -extent - 1);
      std::vector<int64_t> place(static_cast<size_t>(n)), to(static_cast<size_t>(width));
      const bool inside = k.rows(index.data(), n, width, extent, place.data());
      if (inside != (kind != 3) || k.outside(index.data(), n * width, extent) == inside) report(__FILE__, __LINE__, cat("bounds, width ", width, " kind ", kind));
      if (!inside) continue;
      for (int64_t r = 0; r < n; ++r) {
        const Index* const row = index.data() + r * width;
        bool alike = true;
        for (int64_t i = 1; i < width; ++i) alike &= row[i] == row[0];
        const int64_t first = row[0] < 0 ? row[0] + extent : row[0];
        if (place[static_cast<size_t>(r)] != (alike ? first : kMixedRow)) report(__FILE__, __LINE__, cat("row, width ", width, " kind ", kind));
        k.places(row, width, extent, 5, 7, 3, to.data());
        for (int64_t i = 0; i < width; ++i)
          if (to[static_cast<size_t>(i)] != 7 + 3 * i + 5 * (row[i] < 0 ? row[i] + extent : row[i])) report(__FILE__, __LINE__, cat("places, width ", width));
      }
    }
}

}  // namespace

TEST(scatter_combines_as_reference) {
  for_each_isa([](Isa isa) {
    combine_floats<float>(isa);
    combine_floats<double>(isa);
  });
}

TEST(scatter_copies_as_reference) {
  for_each_isa([](Isa isa) {
    const ScatterKernels& k = *scatter_kernels_for(isa);
    for (int log = 0; log < kScatterSizes; ++log)
      for (int64_t width : {0, 1, 2, 3, 4, 7, 8, 16, 31, 64, 65, 130, 1100}) {
        const int64_t size = int64_t{1} << log, n = integer(0, 6), stride = width + integer(0, 2);
        const Lists l = draw_lists(n, 3, stride);
        std::vector<char> x(static_cast<size_t>((n * stride + width) * size + 1)), a(static_cast<size_t>((3 * stride + width) * size + 1));
        for (char& c : x) c = static_cast<char>(rng()());
        std::vector<char> b = a;
        k.copy[log](x.data(), l.from.data(), a.data(), l.to.data(), n, width);
        for (int64_t i = 0; i < n; ++i)
          std::memcpy(b.data() + l.to[static_cast<size_t>(i)] * size, x.data() + l.from[static_cast<size_t>(i)] * size, static_cast<size_t>(width * size));
        if (a != b) report(__FILE__, __LINE__, cat("size ", size, " width ", width, " rows ", n));
      }
  });
}

TEST(scatter_indices) {
  for_each_isa([](Isa isa) {
    look_up<int32_t>(isa);
    look_up<int64_t>(isa);
  });
}

#include <string>

#include "harness.h"
#include "kernels/copy/copy.h"
#include "kernels/resize/resize.h"
#include "kernels/transpose/transpose.h"
#include "ops/movement.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {
std::vector<char> random_bytes(size_t n) {
  std::vector<char> v(n);
  for (char& c : v) c = static_cast<char>(rng()());
  return v;
}
}  // namespace

TEST(transpose_planes_match_reference) {
  for_each_isa([](Isa isa) {
    const TransposeKernels& k = *transpose_kernels_for(isa);
    for (int log = 0; log < kCopySizes; ++log)
      for (int64_t rows : {0, 1, 3, 4, 15, 16, 17, 33, 64, 70})
        for (int64_t cols : {0, 1, 2, 3, 8, 15, 16, 31, 65}) {
          const int64_t size = 1 << log, is = cols + integer(0, 3), os = rows + integer(0, 3);
          const auto in = random_bytes(static_cast<size_t>(rows * is * size + 1));
          std::vector<char> a(static_cast<size_t>(cols * os * size + 1), 7), b = a;
          k.plane[log](in.data(), is, a.data(), os, rows, cols);
          reference::transpose_plane(in.data(), is, b.data(), os, rows, cols, size);
          if (a != b) report(__FILE__, __LINE__, cat("size ", size, " rows ", rows, " cols ", cols));
        }
  });
}

TEST(copies_match_reference) {
  for_each_isa([](Isa isa) {
    const CopyKernels& k = *copy_kernels_for(isa);
    for (int log = 0; log < kCopySizes; ++log) {
      const int64_t size = 1 << log;
      for (int64_t n : {0, 1, 2, 3, 5, 7, 15, 16, 17, 31, 63, 65, 100, 1500}) {
        const auto in = random_bytes(static_cast<size_t>(4 * (n + 2) * size));
        std::vector<char> a(static_cast<size_t>(3 * (n + 1) * size), 7), b = a;
        k.rows(in.data(), (n + 2) * size, a.data(), (n + 1) * size, 3, n * size);
        reference::strided_copy(in.data(), n + 2, 1, b.data(), n + 1, 1, 3, n, size);
        if (a != b) report(__FILE__, __LINE__, cat("rows: size ", size, " n ", n));
        k.fill[log](in.data(), a.data(), n);
        reference::strided_copy(in.data(), 0, 0, b.data(), 0, 1, 1, n, size);
        if (a != b) report(__FILE__, __LINE__, cat("fill: size ", size, " n ", n));
        for (int64_t step : {-2, -1, 0, 1, 2, 3}) {
          const auto wide = random_bytes(static_cast<size_t>((9 * n + 9) * size));
          const char* from = wide.data() + (step < 0 ? -step * n * size : 0);
          k.strided[log](from, n, step, a.data(), n + 1, 1, 3, n);
          reference::strided_copy(from, n, step, b.data(), n + 1, 1, 3, n, size);
          if (a != b) report(__FILE__, __LINE__, cat("strided: size ", size, " n ", n, " step ", step));
        }
      }
    }
  });
}

// Random permutations, slices and repetitions against a plain walk.
TEST(strided_copies_match_a_walk) {
  for (int round = 0; round < 400; ++round) {
    const DType dtype = std::vector<DType>{DType::kUInt8, DType::kFloat16, DType::kFloat, DType::kInt64, DType::kComplex128,
                                           DType::kString}[static_cast<size_t>(integer(0, 5))];
    const Element e(dtype);
    const int rank = static_cast<int>(integer(0, 5));
    std::vector<int64_t> extent, perm;
    for (int i = 0; i < rank; ++i) { extent.push_back(integer(0, 9) ? integer(1, 9) : 0); perm.push_back(i); }
    if (rank && round % 10 == 0) extent[static_cast<size_t>(integer(0, rank - 1))] = 200;
    std::shuffle(perm.begin(), perm.end(), rng());
    std::vector<StridedCopy::Axis> axes(static_cast<size_t>(rank));
    int64_t out_count = 1, in_count = 1;
    for (size_t i = axes.size(); i-- > 0;) { axes[i].extent = extent[i]; axes[i].out = out_count; out_count *= extent[i]; }
    int64_t in_offset = 0;
    for (int64_t p : perm) {
      StridedCopy::Axis& x = axes[static_cast<size_t>(p)];
      const int64_t kind = integer(0, 5), step = kind == 1 ? 2 : 1;
      if (kind == 0) { x.in = 0; continue; }
      x.in = in_count * step;
      in_count *= std::max<int64_t>(x.extent * step, 1);
      if (kind == 2 && x.extent) { in_offset += x.in * (x.extent - 1); x.in = -x.in; }
    }
    Tensor in(dtype, Shape{in_count}), a(dtype, Shape{out_count}), b(dtype, Shape{out_count});
    if (e.string) for (int64_t i = 0; i < in_count; ++i) in.as<std::string>()[i] = std::to_string(rng()());
    else for (int64_t i = 0; i < in.bytes(); ++i) in.as<char>()[i] = static_cast<char>(rng()());
    const StridedCopy copy(e, axes);
    Worker w = alone();
    copy.run(offset(in.data(), in_offset, e), a.data(), w);
    for (int64_t i = 0; i < out_count; ++i) {
      int64_t from = in_offset;
      for (const auto& x : axes) from += i / x.out % x.extent * x.in;
      copy_elements(e, offset(b.data(), i, e), offset(in.data(), from, e), 1);
    }
    bool same = true;
    if (e.string) for (int64_t i = 0; i < out_count; ++i) same = same && a.as<std::string>()[i] == b.as<std::string>()[i];
    else same = !out_count || !std::memcmp(a.data(), b.data(), static_cast<size_t>(a.bytes()));
    if (!same) report(__FILE__, __LINE__, cat("round ", round, " ", dtype_name(dtype), " rank ", rank));
  }
}

TEST(resize_passes_match_reference) {
  for_each_isa([](Isa isa) {
    const ResizeKernels& k = *resize_kernels_for(isa);
    for (int64_t taps : {1, 2, 3, 4, 7})
      for (int64_t n : {0, 1, 5, 16, 17, 40}) {
        const int64_t length = 23, first = 3;
        const auto in = random_floats(static_cast<size_t>(length * (n + 1)));
        const auto weight = random_floats(static_cast<size_t>(taps * (n + 1)));
        std::vector<int32_t> index(weight.size());
        for (auto& i : index) i = static_cast<int32_t>(integer(first, length - 1));
        std::vector<float> a(static_cast<size_t>(n + 1), 7), b = a;
        k.gather_f32(in.data(), index.data(), weight.data(), taps, a.data(), n);
        reference::resize_gather_f32(in.data(), index.data(), weight.data(), taps, b.data(), n);
        CHECK_BELOW(max_error(a.data(), b.data(), a.size(), 0x1p-23), 8);
        k.rows_f32(in.data(), first, index.data(), weight.data(), n + 1, taps, a.data(), n);
        reference::resize_rows_f32(in.data(), first, index.data(), weight.data(), n + 1, taps, b.data(), n);
        CHECK_BELOW(max_error(a.data(), b.data(), a.size(), 0x1p-23), 8);
        k.pick[2](in.data(), index.data(), a.data(), n);
        for (int64_t i = 0; i < n; ++i) CHECK(a[static_cast<size_t>(i)] == in[static_cast<size_t>(index[static_cast<size_t>(i)])]);
      }
  });
}

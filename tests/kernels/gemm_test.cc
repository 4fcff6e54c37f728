#include "kernels/gemm/gemm.h"

#include "harness.h"

using namespace tiercel;
using namespace tiercel::testing;

namespace {

struct Problem {
  int64_t m, n, k, count = 1;
  bool packed = true, trans_a = false, accumulate = false;
  std::vector<std::vector<float>> a, b, packed_b;
  std::vector<float> c0;
  std::vector<const float*> ap, bp, pp;
  int64_t ldb, ldc;

  Problem(const GemmKernels& g, int64_t m, int64_t n, int64_t k, int64_t count = 1) : m(m), n(n), k(k), count(count) {
    ldb = n + 3;
    ldc = n + 5;
    for (int64_t r = 0; r < count; ++r) {
      a.push_back(random_floats(m * k));
      b.push_back(random_floats(k * ldb));
      packed_b.emplace_back(gemm_packed_floats(g, k, n), NAN);
      g.pack_b(b[r].data(), ldb, 1, k, n, 0, n, packed_b[r].data());
    }
    for (int64_t r = 0; r < count; ++r) { ap.push_back(a[r].data()); bp.push_back(b[r].data()); pp.push_back(packed_b[r].data()); }
    c0 = random_floats(m * ldc);
  }
  GemmArgs args(float* c, bool use_packed) const {
    GemmArgs g;
    g.m = m; g.n = n; g.k = k; g.count = count;
    g.a = ap.data(); g.a_row = trans_a ? 1 : k; g.a_k = trans_a ? m : 1;
    g.b = use_packed ? pp.data() : bp.data(); g.b_row = use_packed ? 0 : ldb;
    g.c = c; g.c_row = ldc; g.accumulate = accumulate;
    return g;
  }
};

// |error| of a chain of k products of numbers in [-1, 1]: the random walk of its roundings, with room.
double bound(int64_t k) { return 1e-7 * (4 + 2 * static_cast<double>(k)); }

}  // namespace

TEST(gemm_matches_reference) {
  const int64_t sizes[] = {1, 2, 3, 5, 6, 7, 8, 9, 12, 14, 15, 16, 17, 19, 31, 32, 33, 47, 48, 63, 64, 65, 80, 97, 130};
  for_each_isa([&](Isa isa) {
    const GemmKernels& g = *gemm_for(isa);
    for (int trial = 0; trial < 400; ++trial) {
      const auto pick = [&] { return sizes[integer(0, std::size(sizes) - 1)]; };
      Problem p(g, pick(), pick(), trial % 9 ? pick() : integer(380, 800), trial % 5 ? 1 : integer(2, 4));
      if (trial % 50 == 0) p = Problem(g, 9, 300, 400);
      p.trans_a = trial % 3 == 0;
      p.accumulate = trial % 4 == 0;
      scope() = cat("[", isa_name(isa), " m=", p.m, " n=", p.n, " k=", p.k, " count=", p.count, "]");
      std::vector<float> want = p.c0, got = p.c0, in_place = p.c0;
      reference::gemm(p.args(want.data(), false));
      g.gemm(p.args(got.data(), true));
      g.gemm(p.args(in_place.data(), false));
      CHECK_BELOW(max_error(got.data(), want.data(), want.size()), bound(p.k * p.count));
      CHECK(std::memcmp(got.data(), in_place.data(), got.size() * 4) == 0);
    }
  });
}

// One row takes two panels at a time; it must be the row of a larger product, to the bit, with every epilogue that a tile holds.
TEST(gemm_of_one_row) {
  for_each_isa([&](Isa isa) {
    const GemmKernels& g = *gemm_for(isa);
    for (int64_t n : {2 * g.panel - 1, 2 * g.panel, 2 * g.panel + 1, 3 * g.panel, 4 * g.panel, 5 * g.panel + 3})
      for (int64_t k : {1, 2, 7, 64, 500, 1601})
        for (int form = 0; form < 8; ++form) {
          scope() = cat("[", isa_name(isa), " n=", n, " k=", k, " form ", form, "]");
          Problem many(g, 3, n, k);
          many.accumulate = form & 1;
          const auto bias = random_floats(n), full = random_floats(3 * n);
          GemmEpilogue e;
          if (form & 2) e.add[0] = {bias.data(), 0, 1, 1};
          if (form & 4) e.add[1] = {full.data(), n, 1, 1};
          e.activation.kind = form & 2 ? ActivationKind::kRelu : form & 4 ? ActivationKind::kSigmoid : ActivationKind::kNone;
          std::vector<float> want = many.c0, all = many.c0, one = many.c0;
          GemmArgs reference_args = many.args(want.data(), false), all_args = many.args(all.data(), true), one_args = many.args(one.data(), true);
          reference_args.epilogue = all_args.epilogue = one_args.epilogue = &e;
          one_args.m = 1;
          reference::gemm(reference_args);
          g.gemm(all_args);
          g.gemm(one_args);
          CHECK_BELOW(max_error(one.data(), want.data(), static_cast<size_t>(n)), bound(k));
          CHECK(std::memcmp(one.data(), all.data(), static_cast<size_t>(n) * 4) == 0);
          std::copy(many.c0.begin(), many.c0.end(), one.begin());
          one_args.backwards = true;
          g.gemm(one_args);
          CHECK(std::memcmp(one.data(), all.data(), static_cast<size_t>(n) * 4) == 0);
        }
  });
}

TEST(gemm_epilogues) {
  for_each_isa([&](Isa isa) {
    const GemmKernels& g = *gemm_for(isa);
    for (int trial = 0; trial < 300; ++trial) {
      Problem p(g, integer(1, 20), integer(1, 150), trial % 10 ? integer(1, 40) : 500);
      const auto bias = random_floats(p.n), rows = random_floats(p.m), full = random_floats(p.m * p.n);
      GemmEpilogue e;
      if (trial % 3 == 1) e.alpha = 0.37f;
      switch (trial % 5) {
        case 0: e.add[0] = {bias.data(), 0, 1, 1}; break;
        case 1: e.add[0] = {rows.data(), 1, 0, 1}; break;
        case 2: e.add[0] = {full.data(), p.n, 1, -1.5f}; break;
        case 3: e.add[0] = {bias.data(), 0, 0, 1}; break;
        default: break;
      }
      if (trial % 7 < 3) e.add[1] = {full.data(), p.n, 1, 1};
      e.activation = {static_cast<ActivationKind>(trial % kNumActivations), 0.3f, 0.8f};
      scope() = cat("[", isa_name(isa), " m=", p.m, " n=", p.n, " k=", p.k, " act=", trial % kNumActivations, "]");
      std::vector<float> want = p.c0, got = p.c0, separate = p.c0;
      GemmArgs w = p.args(want.data(), false), x = p.args(got.data(), true), y = p.args(separate.data(), true);
      w.epilogue = x.epilogue = &e;
      reference::gemm(w);
      g.gemm(x);
      CHECK_BELOW(max_error(got.data(), want.data(), want.size()), 4 * bound(p.k));
      g.gemm(y);  // the fused form rounds as the separate steps do
      g.finish(separate.data(), p.ldc, p.m, p.n, e);
      CHECK(std::memcmp(got.data(), separate.data(), got.size() * 4) == 0);
    }
  });
}

TEST(gemm_rows_do_not_depend_on_the_batch) {
  for_each_isa([&](Isa isa) {
    const GemmKernels& g = *gemm_for(isa);
    for (int64_t k : {7, 64, 385, 900}) {
      Problem p(g, 37, 333, k);
      std::vector<float> all = p.c0, part = p.c0;
      g.gemm(p.args(all.data(), true));
      for (int64_t i = 0; i < p.m;) {  // any split of rows, and of columns at panels
        const int64_t rows = std::min<int64_t>(integer(1, 13), p.m - i);
        for (int64_t j = 0; j < p.n; j += 2 * g.panel) {
          GemmArgs x = p.args(part.data() + i * p.ldc + j, true);
          const float *a = p.ap[0] + i * p.k, *b = p.pp[0] + k * j;
          x.a = &a; x.b = &b; x.m = rows; x.n = std::min<int64_t>(2 * g.panel, p.n - j);
          g.gemm(x);
        }
        i += rows;
      }
      CHECK(std::memcmp(all.data(), part.data(), all.size() * 4) == 0);
    }
  });
}

TEST(gemm_of_nothing) {
  for_each_isa([&](Isa isa) {
    const GemmKernels& g = *gemm_for(isa);
    float c[6] = {1, 2, 3, 4, 5, 6};
    const float bias[3] = {1, -1, 2};
    const float *a = c, *b = c;
    GemmArgs x;
    x.m = 2; x.n = 3; x.k = 0; x.a = &a; x.b = &b; x.c = c; x.c_row = 3;
    GemmEpilogue e;
    e.add[0] = {bias, 0, 1, 1};
    e.activation.kind = ActivationKind::kRelu;
    x.epilogue = &e;
    g.gemm(x);
    CHECK(c[0] == 1 && c[1] == 0 && c[2] == 2 && c[3] == 1);
    x.m = 0;
    g.gemm(x);
    x.m = 2; x.n = 0;
    g.gemm(x);
    CHECK(c[0] == 1);
  });
}

TEST(gemm_keeps_nan_and_infinity) {
  for_each_isa([&](Isa isa) {
    const GemmKernels& g = *gemm_for(isa);
    Problem p(g, 5, 70, 9);
    p.a[0][2 * 9 + 3] = NAN;
    p.a[0][4 * 9 + 1] = INFINITY;
    std::vector<float> want = p.c0, got = p.c0;
    GemmArgs w = p.args(want.data(), false), x = p.args(got.data(), true);
    GemmEpilogue e;
    e.activation.kind = ActivationKind::kRelu;
    w.epilogue = x.epilogue = &e;
    reference::gemm(w);
    g.gemm(x);
    CHECK_BELOW(max_error(got.data(), want.data(), want.size()), bound(9));
    CHECK(std::isnan(got[2 * p.ldc + 69]) && (got[4 * p.ldc] == 0 || std::isinf(got[4 * p.ldc])));
  });
}

TEST(gemm_packs_transposed) {
  for_each_isa([&](Isa isa) {
    const GemmKernels& g = *gemm_for(isa);
    for (int64_t n : {1, 15, 64, 100}) {
      const int64_t k = 37;
      const auto b = random_floats(n * k);  // [n, k]
      std::vector<float> t(k * n), x(gemm_packed_floats(g, k, n), NAN), y(x);
      for (int64_t i = 0; i < k; ++i) for (int64_t j = 0; j < n; ++j) t[i * n + j] = b[j * k + i];
      g.pack_b(b.data(), 1, k, k, n, 0, n, x.data());
      for (int64_t j = 0; j < n; j += g.panel) g.pack_b(t.data(), n, 1, k, n, j, std::min<int64_t>(j + g.panel, n), y.data());
      CHECK(std::memcmp(x.data(), y.data(), x.size() * 4) == 0);
    }
  });
}

TEST(gemm_with_few_columns) {
  for_each_isa([&](Isa isa) {
    const GemmKernels& g = *gemm_for(isa);
    for (int trial = 0; trial < 200; ++trial) {
      const int64_t m = integer(1, 30), n = integer(1, 9), k = integer(0, 100);
      const auto a = random_floats(m * (k + 2)), bt = random_floats(n * (k + 1)), bias = random_floats(n);
      std::vector<float> b(k * n), want = random_floats(m * (n + 1)), got = want;
      for (int64_t i = 0; i < k; ++i) for (int64_t j = 0; j < n; ++j) b[i * n + j] = bt[j * (k + 1) + i];
      const float *ap = a.data(), *bp = b.data(), *tp = bt.data();
      GemmEpilogue e;
      e.add[0] = {bias.data(), 0, 1, 1};
      e.activation.kind = ActivationKind::kTanh;
      GemmArgs x;
      x.m = m; x.n = n; x.k = k;
      x.a = &ap; x.a_row = k + 2; x.b = &bp; x.b_row = n; x.c = want.data(); x.c_row = n + 1;
      x.accumulate = trial % 2;
      if (trial % 3) x.epilogue = &e;
      scope() = cat("[", isa_name(isa), " m=", m, " n=", n, " k=", k, "]");
      reference::gemm(x);
      x.b = &tp; x.b_row = k + 1; x.c = got.data();
      g.dot(x);
      CHECK_BELOW(max_error(got.data(), want.data(), want.size()), bound(k));
      for (int64_t i = 0; i < m; ++i) {  // each row alone
        std::vector<float> row(got.size(), 0);
        GemmArgs y = x;
        const float* p = ap + i * (k + 2);
        y.a = &p; y.m = 1; y.c = row.data(); y.accumulate = false;
        if (x.accumulate) continue;
        g.dot(y);
        CHECK(std::memcmp(row.data(), &got[i * (n + 1)], n * 4) == 0);
      }
    }
  });
}

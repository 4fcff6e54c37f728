// gemm_bench [m n k]...: f32 GEMM on one core against the measured peak; packed B, A in place.
#include <cstdlib>

#include "bench.h"
#include "kernels/gemm/gemm.h"

using namespace tiercel;

static void run(int64_t m, int64_t n, int64_t k) {
  const GemmKernels& g = gemm();
  bench::Floats a(m * k), b(k * n), packed(gemm_packed_floats(g, k, n)), c(m * n);
  g.pack_b(b.data, n, 1, k, n, 0, n, packed.data);
  const float *ap = a.data, *bp = packed.data;
  GemmArgs args;
  args.m = m; args.n = n; args.k = k;
  args.a = &ap; args.a_row = k; args.b = &bp; args.c = c.data; args.c_row = n;
  const double flops = 2.0 * m * n * k;
  const auto p = bench::measure(flops, [&] { g.gemm(args); });
  bp = b.data;
  args.b_row = n;
  const auto q = bench::measure(flops, [&] { g.gemm(args); });
  std::printf("%5ld x %5ld x %5ld  packed %9.1f us %6.1f GFLOPS %5.1f %% of peak   in place %9.1f us %5.1f %%\n", m, n, k,
              p.seconds * 1e6, flops / p.seconds * 1e-9, p.share * 100, q.seconds * 1e6, q.share * 100);
}

int main(int argc, char** argv) {
  std::printf("isa %s\n", std::string(isa_name(active_isa())).c_str());
  if (argc > 3) {
    for (int i = 1; i + 2 < argc; i += 3) run(std::atoll(argv[i]), std::atoll(argv[i + 1]), std::atoll(argv[i + 2]));
    return 0;
  }
  const int64_t shapes[][3] = {{1024, 1024, 1024}, {512, 512, 512}, {128, 768, 768}, {128, 3072, 768}, {128, 768, 3072},
                               {197, 768, 768}, {128, 128, 64}, {128, 64, 128}, {1, 768, 768}, {1, 3072, 768}, {4, 768, 768},
                               {8, 768, 768}, {13, 768, 768}, {16, 1024, 1024}, {49, 512, 512}, {4096, 256, 64}, {4096, 10, 256},
                               {3136, 64, 64}, {3136, 256, 64}, {784, 80, 96}, {1000, 1, 1000}, {64, 1000, 2048}};
  for (const auto& s : shapes) run(s[0], s[1], s[2]);
}

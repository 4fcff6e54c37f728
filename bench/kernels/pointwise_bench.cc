// Elementwise f32 kernels on 4096 floats that lie in L1: time of an array, of an element, and in units of what one multiply-add
// an element would take at the peak (two registers a cycle on most processors).
#include "bench.h"
#include "kernels/pointwise/binary.h"
#include "kernels/pointwise/unary.h"

using namespace tiercel;
using namespace tiercel::bench;

int main() {
  constexpr int64_t n = 4096;
  Floats x(n), z(n), y(n);
  const auto print = [&](const char* name, Result r) { std::printf("%-14s %8.1f ns  %6.3f ns/element  %5.1f multiply-adds' time\n", name, r.seconds * 1e9, r.seconds * 1e9 / n, 1 / r.share); };
  const char* names[] = {
#define TIERCEL_ROW(name) #name,
      TIERCEL_VECTOR_UNARY(TIERCEL_ROW)
#undef TIERCEL_ROW
  };
  for (int i = 0; i < kNumVectorUnary; ++i)
    print(names[i], measure(2.0 * n, [&] { unary().f32[i](x.data, y.data, n); }));
  const std::pair<const char*, Activation> activations[] = {
      {"relu", {ActivationKind::kRelu}}, {"gelu", {ActivationKind::kGelu}}, {"gelu_tanh", {ActivationKind::kGeluTanh}},
      {"silu", {ActivationKind::kSilu, 1}}, {"hard_swish", {ActivationKind::kHardSwish, 1.0f / 6, 0.5f}}, {"mish", {ActivationKind::kMish}},
      {"softplus", {ActivationKind::kSoftplus}}, {"elu", {ActivationKind::kElu, 1}}};
  for (const auto& [name, a] : activations)
    print(name, measure(2.0 * n, [&] { unary().activate(a, x.data, y.data, n); }));
  const char* pairs[] = {"VV", "VS", "SV", "VR", "RV"};
  const char* ops[] = {"add", "sub", "mul", "div", "min", "max", "pow", "prelu"};
  for (int op = 0; op < kNumVectorBinary; ++op)
    for (int p = 0; p < kNumPairs; ++p)
      if (op < 4 || p == 0)
        print((std::string(ops[op]) + " " + pairs[p]).c_str(), measure(2.0 * n, [&] { binary().f32[op][p](x.data, z.data, y.data, n); }));
}

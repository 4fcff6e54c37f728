// Dropout: the identity in inference, a seeded mask in training.
#include <atomic>
#include <cstring>

#include "ops/elementwise.h"
#include "ops/grad.h"

namespace tiercel {
namespace {

// Mersenne Twister MT19937 and its doubles of 53 bits in [0, 1) (Matsumoto and Nishimura 1998): the generator that ONNX's
// reference draws its masks from.
class Twister {
 public:
  explicit Twister(uint32_t seed) {
    state_[0] = seed;
    for (uint32_t i = 1; i < kN; ++i) state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + i;
  }
  double uniform() {
    const uint32_t a = next() >> 5, b = next() >> 6;
    return (a * 67108864.0 + b) / 9007199254740992.0;
  }

 private:
  static constexpr uint32_t kN = 624, kM = 397;
  uint32_t next() {
    if (at_ == kN) {
      for (uint32_t i = 0; i < kN; ++i) {
        const uint32_t y = (state_[i] & 0x80000000u) | (state_[(i + 1) % kN] & 0x7fffffffu);
        state_[i] = state_[(i + kM) % kN] ^ (y >> 1) ^ (y & 1 ? 0x9908b0dfu : 0);
      }
      at_ = 0;
    }
    uint32_t y = state_[at_++];
    y ^= y >> 11;
    y ^= (y << 7) & 0x9d2c5680u;
    y ^= (y << 15) & 0xefc60000u;
    return y ^ (y >> 18);
  }
  uint32_t state_[kN], at_ = kN;
};

void infer_dropout(InferContext& ctx) {
  const DType t = ctx.dtype(0);
  check_dtype(ctx, 0, is_float(t) && element_bytes(t) > 0, "a tensor of floats");
  if (ctx.node.opset >= 12) {
    if (ctx.has_input(1)) check_dtype(ctx, 1, is_float(ctx.dtype(1)), "a scalar ratio");
    if (ctx.has_input(2)) check_dtype(ctx, 2, ctx.dtype(2) == DType::kBool, "tensor(bool)");
    for (int i = 1; i < 3; ++i)
      if (ctx.has_input(i) && ctx.type(i).static_shape() && ctx.shape(i).count() != 1) ctx.fail("ratio and training_mode should be scalars");
  }
  infer_same(ctx);
  Type mask = ctx.type(0);
  mask.dtype = ctx.node.opset >= 10 ? DType::kBool : t;
  ctx.set_output(1, mask);
}

void prepare_dropout(PrepareContext& ctx) {
  const DType t = ctx.dtype(0), mask_type = ctx.node.opset >= 10 ? DType::kBool : t;
  const Tensor* mode = ctx.constant(2);
  const bool training_input = ctx.node.opset >= 12 && ctx.has_input(2);
  const bool inference = !training_input || (mode && !*mode->as<bool>());
  if (inference && !ctx.has_output(1)) return ctx.alias(0, 0);
  const int64_t n = storage_count(ctx.shape(0), ctx.layout(0));
  const int bytes = element_bytes(t), mask_bytes = element_bytes(mask_type);
  const Convert load(t, DType::kFloat), store(DType::kFloat, t), wide(DType::kFloat, mask_type);
  const bool has_seed = ctx.node.has("seed"), has_mask = ctx.has_output(1), has_ratio = ctx.has_input(1);
  const Convert load_ratio = has_ratio ? Convert(ctx.dtype(1), DType::kFloat) : Convert();
  const int64_t seed = ctx.node.attr_int("seed", 0);
  alignas(8) std::array<char, 16> one{};
  const float f = 1;
  if (mask_type == DType::kBool) one[0] = 1;
  else if (wide) wide(&f, one.data(), 1);
  else std::memcpy(one.data(), &f, 4);
  ctx.serial();
  ctx.run([=](const Args& args, Worker& worker) {
    if (worker.index() != 0) return;
    const char* x = args.in<char>(0);
    char* y = args.out<char>(0);
    char* mask = has_mask ? args.out<char>(1) : nullptr;
    float ratio = 0.5f;
    if (has_ratio) { if (load_ratio) load_ratio(args.in(1), &ratio, 1); else ratio = *args.in<float>(1); }
    if (inference || !*args.in<bool>(2) || ratio == 0) {
      if (x != y) std::memcpy(y, x, static_cast<size_t>(n * bytes));
      if (mask) fill_tile(mask, one.data(), mask_bytes, n);
      return;
    }
    static std::atomic<uint32_t> unseeded{20240607};
    Twister random(has_seed ? static_cast<uint32_t>(seed) : unseeded.fetch_add(0x9e3779b9u));
    const double scale = 1.0 / (1.0 - ratio);
    for (int64_t i = 0; i < n; ++i) {
      const bool keep = random.uniform() >= ratio;
      if (t == DType::kDouble) {
        double v;
        std::memcpy(&v, x + i * 8, 8);
        v = keep ? v * scale : 0;
        std::memcpy(y + i * 8, &v, 8);
      } else {
        float v;
        if (load) load(x + i * bytes, &v, 1); else std::memcpy(&v, x + i * 4, 4);
        v = keep ? static_cast<float>(v * scale) : 0;
        if (store) store(&v, y + i * bytes, 1); else std::memcpy(y + i * 4, &v, 4);
      }
      if (mask) mask[i] = keep;
    }
  });
}

static const OpRegistration rows({
    {"Dropout", "", 1, infer_dropout, prepare_dropout},
    {"Dropout", "", 12, infer_dropout, prepare_dropout, nullptr, kRandom},
});

// In inference it is the identity; in training the mask that the forward drew is used again.
void grad(GradContext& c) {
  GraphWriter& w = c.w;
  const Value* const mode = c.x(2);
  const bool training = c.node.opset >= 12 && mode && !(w.info(mode).constant && !*w.info(mode).constant->as<bool>());
  if (!training) return c.set(0, c.dy());
  c.check(mode->is_constant(), "training_mode should be a constant");
  Value* const mask = w.op("Cast", {c.made_output(1)}, {{"to", static_cast<int64_t>(w.dtype(c.dy()))}});
  Value* keep = w.scalar_like(0.5, c.dy());
  if (Value* ratio = c.x(1)) {
    if (w.dtype(ratio) != w.dtype(c.dy())) ratio = w.op("Cast", {ratio}, {{"to", static_cast<int64_t>(w.dtype(c.dy()))}});
    keep = w.sub(w.scalar_like(1, c.dy()), ratio);
  }
  c.set(0, w.div(w.mul(c.dy(), mask), keep));
}
static const GradRegistration grads({{"Dropout", "", grad}});

}  // namespace
}  // namespace tiercel

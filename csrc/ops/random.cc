// RandomNormal, RandomUniform and their Like forms, Bernoulli: each element from a number of its own of the node's stream.
#include "ops/grad.h"
#include "ops/random.h"

#include <unistd.h>

#include <bit>
#include <cmath>
#include <numbers>
#include <random>

#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

// The finaliser of splitmix64.
uint64_t mixed(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t entropy() {
  static int place;
  uint64_t x = mixed(reinterpret_cast<uintptr_t>(&place));
  try {
    std::random_device device;
    x ^= (uint64_t{device()} << 32) | device();
  } catch (const std::exception&) {  // no such device: the address above differs from process to process
  }
  return x;
}

// Another key for every call in every process: children of a fork go on from the same counter.
uint64_t unseeded() {
  static const uint64_t base = entropy();
  static std::atomic<uint64_t> calls{0};
  return mixed(base + 0x9e3779b97f4a7c15u * calls.fetch_add(1, std::memory_order_relaxed)) ^ mixed(static_cast<uint64_t>(getpid()));
}

}  // namespace

Stream::Stream(const Node& node)
    : seeded_(node.has("seed")), key_(mixed(std::bit_cast<uint32_t>(node.attr_float("seed", 0) + 0.0f) + 0x9e3779b97f4a7c15u)) {}

Philox Stream::start(Worker& worker) const {
  return Philox(seeded_ ? key_ : static_cast<uint64_t>(worker.agree([] { return static_cast<int64_t>(unseeded()); })));
}

namespace {

// ---- Inference

DType result_type(const InferContext& ctx, DType otherwise) {
  if (!ctx.node.has("dtype")) return otherwise;
  const int64_t t = ctx.node.attr_int("dtype", 0);
  ctx.check(t > 0 && t < kNumDTypes, "attribute 'dtype' (", t, ") is not a type");
  return static_cast<DType>(t);
}

void infer_filled(InferContext& ctx) {
  const DType t = result_type(ctx, DType::kFloat);
  ctx.check(is_real(t), "attribute 'dtype' should be float, double, float16 or bfloat16, got ", dtype_name(t));
  ctx.check(ctx.node.has("shape"), "attribute 'shape' is required");
  const auto dims = ctx.node.attr_ints("shape");
  for (int64_t d : dims) ctx.check(d >= 0, "extent ", d, " in attribute 'shape' is negative");
  const Shape shape{std::span<const Dim>(dims)};
  check_fits(ctx, t, shape);
  ctx.set_output(0, t, shape);
}

void infer_like(InferContext& ctx) {
  const DType t = result_type(ctx, ctx.dtype(0));
  ctx.check(is_real(t), "the result should be float, double, float16 or bfloat16, got ", dtype_name(t));
  if (ctx.ranked(0) && ctx.shape(0).known()) check_fits(ctx, t, ctx.shape(0));
  Type out = ctx.type(0);
  out.dtype = t;
  ctx.set_output(0, out);
}

void infer_bernoulli(InferContext& ctx) {
  check_real(ctx, 0);
  const DType t = result_type(ctx, ctx.dtype(0));
  ctx.check(is_real(t) || t == DType::kBool || (is_integer(t) && bits_of(t) >= 8), "attribute 'dtype' should be a number or bool, got ", dtype_name(t));
  if (ctx.ranked(0) && ctx.shape(0).known()) check_fits(ctx, t, ctx.shape(0));
  Type out = ctx.type(0);
  out.dtype = t;
  ctx.set_output(0, out);
}

// ---- Uniform and normal numbers

constexpr int64_t kBlock = 4096;  // elements of a task

// Tasks of kBlock elements of output 0; block(random, first, n, to) makes elements [first, first + n), of a block of T, which are float
// for the 16-bit types.
template <class T, class F> void run_blocks(PrepareContext& ctx, double flops, F block) {
  const DType t = ctx.out_dtype(0);
  const int64_t count = ctx.out_shape(0).count(), bytes = bytes_of(t, 1);
  ctx.cost(flops * static_cast<double>(count), static_cast<double>(bytes * count));
  ctx.run([=, stream = Stream(ctx.node)](const Args& a, Worker& w) {
    const Philox random = stream.start(w);
    w.parallel_for(count, kBlock, [&](int64_t b, int64_t e) {
      char* to = a.out<char>(0) + b * bytes;
      if constexpr (std::is_same_v<T, float>) {
        if (is_half(t)) {
          float tile[kBlock];
          block(random, b, e - b, tile);
          return floats_to_halves(t, tile, to, e - b);
        }
      }
      block(random, b, e - b, reinterpret_cast<T*>(to));
    });
  });
}

template <class T> void prepare_uniform(PrepareContext& ctx) {
  const T low = ctx.node.attr_float("low", 0), high = ctx.node.attr_float("high", 1);
  const DType t = ctx.out_dtype(0);
  // No more bits than the type has, or numbers just below 1 would be rounded to it.
  const int bits = t == DType::kFloat16 ? 11 : t == DType::kBFloat16 ? 8 : 24;
  const int drop = 32 - bits;
  const T unit = std::ldexp(T{1}, -bits), most = low < high ? std::nextafter(high, low) : std::max(low, high);
  run_blocks<T>(ctx, 20, [=](const Philox& random, int64_t first, int64_t n, T* to) {
    constexpr int64_t kEach = sizeof(T) == 8 ? 2 : 4;
    for (int64_t i = 0; i < n; i += kEach) {
      T v[kEach];
      const auto at = static_cast<uint64_t>((first + i) / kEach);
      if constexpr (kEach == 2) {
        const auto x = random.doubles(at);
        for (int64_t k = 0; k < kEach; ++k) v[k] = x[static_cast<size_t>(k)];
      } else {
        const auto x = random(at);
        for (int64_t k = 0; k < kEach; ++k) v[k] = static_cast<T>(x[static_cast<size_t>(k)] >> drop) * unit;
      }
      for (int64_t k = 0; k < std::min(kEach, n - i); ++k) {
        const T y = low + (high - low) * v[k];
        to[i + k] = y > most ? most : y;
      }
    }
  });
}

// Box and Muller's pair of normal numbers out of u in (0, 1] and v.
template <class T> void normal_pair(T u, T v, T* to) {
  const T r = std::sqrt(-2 * std::log(u)), angle = 2 * std::numbers::pi_v<T> * v;
  to[0] = r * std::cos(angle);
  to[1] = r * std::sin(angle);
}

template <class T> void prepare_normal(PrepareContext& ctx) {
  const T mean = ctx.node.attr_float("mean", 0), scale = ctx.node.attr_float("scale", 1);
  run_blocks<T>(ctx, 80, [=](const Philox& random, int64_t first, int64_t n, T* to) {
    constexpr int64_t kEach = sizeof(T) == 8 ? 2 : 4;
    for (int64_t i = 0; i < n; i += kEach) {
      T v[kEach];
      const auto at = static_cast<uint64_t>((first + i) / kEach);
      if constexpr (kEach == 2) {
        const auto x = random.doubles(at);
        normal_pair<T>(1 - x[0], x[1], v);
      } else {
        const auto x = random(at);
        for (size_t k = 0; k < 4; k += 2)
          normal_pair<T>((static_cast<T>(x[k]) + 1) * T{0x1p-32}, static_cast<T>(x[k + 1]) * T{0x1p-32}, v + k);
      }
      for (int64_t k = 0; k < std::min(kEach, n - i); ++k) to[i + k] = mean + scale * v[k];
    }
  });
}

void prepare_uniform_numbers(PrepareContext& ctx) { ctx.out_dtype(0) == DType::kDouble ? prepare_uniform<double>(ctx) : prepare_uniform<float>(ctx); }
void prepare_normal_numbers(PrepareContext& ctx) { ctx.out_dtype(0) == DType::kDouble ? prepare_normal<double>(ctx) : prepare_normal<float>(ctx); }

// ---- Bernoulli: 1 with the probability that the input gives, else 0

void prepare_bernoulli(PrepareContext& ctx) {
  const DType t = ctx.dtype(0);
  const int64_t count = ctx.shape(0).count(), bytes = bytes_of(t, 1);
  const Element e(ctx.out_dtype(0));
  std::array<char, 8> one{};
  const float f = 1;
  const double d = 1;
  switch (ctx.out_dtype(0)) {
    case DType::kFloat: std::memcpy(one.data(), &f, 4); break;
    case DType::kDouble: std::memcpy(one.data(), &d, 8); break;
    case DType::kFloat16:
    case DType::kBFloat16: floats_to_halves(ctx.out_dtype(0), &f, one.data(), 1); break;
    default: {
      const int64_t i = 1;
      const Tensor value = Tensor::from_ints(ctx.out_dtype(0), {}, &i);
      std::memcpy(one.data(), value.data(), static_cast<size_t>(e.size));
    }
  }
  ctx.cost(20 * static_cast<double>(count), static_cast<double>((bytes + e.size) * count));
  ctx.run([=, stream = Stream(ctx.node)](const Args& a, Worker& w) {
    const Philox random = stream.start(w);
    w.parallel_for(count, kBlock, [&](int64_t b, int64_t end) {
      float tile[kBlock];
      const char* from = a.in<char>(0) + b * bytes;
      if (is_half(t)) halves_to_floats(t, from, tile, end - b);
      const float* p = is_half(t) ? tile : reinterpret_cast<const float*>(from);
      std::memset(offset(a.out(0), b, e), 0, static_cast<size_t>((end - b) * e.size));
      for (int64_t i = 0; i < end - b; i += 2) {
        const auto u = random.doubles(static_cast<uint64_t>((b + i) / 2));
        for (int64_t k = i; k < std::min(i + 2, end - b); ++k) {
          const double chance = t == DType::kDouble ? reinterpret_cast<const double*>(from)[k] : static_cast<double>(p[k]);
          if (u[static_cast<size_t>(k - i)] < chance) std::memcpy(offset(a.out(0), b + k, e), one.data(), static_cast<size_t>(e.size));
        }
      }
    });
  });
}

const OpRegistration rows({
    {"RandomNormal", "", 1, infer_filled, prepare_normal_numbers, nullptr, kRandom},
    {"RandomNormalLike", "", 1, infer_like, prepare_normal_numbers, nullptr, kRandom},
    {"RandomUniform", "", 1, infer_filled, prepare_uniform_numbers, nullptr, kRandom},
    {"RandomUniformLike", "", 1, infer_like, prepare_uniform_numbers, nullptr, kRandom},
    {"Bernoulli", "", 15, infer_bernoulli, prepare_bernoulli, nullptr, kRandom},
});

const GradRegistration grads({{"RandomNormalLike", "", nullptr}, {"RandomUniformLike", "", nullptr}, {"Bernoulli", "", nullptr}});

}  // namespace
}  // namespace tiercel

// Col2Im: columns of blocks [N, C * prod(block), L] summed into images [N, C, image...], any number of image axes.
#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

struct Form {
  int rank = 0;
  std::vector<int64_t> image, block, dilations, before, strides, steps;
  int64_t block_size = 1, positions = 1, image_size = 1;
};

template <class Context> std::optional<Form> form_of(const Context& ctx) {
  const auto image = known_ints(ctx, 1), block = known_ints(ctx, 2);
  if (!image || !block) return std::nullopt;
  Form f;
  f.rank = static_cast<int>(image->size());
  f.image = *image;
  f.block = *block;
  const auto n = image->size();
  if (n == 0 || n + 2 > kMaxRank || block->size() != n) ctx.fail("image_shape and block_shape should have one length, 1 at least");
  auto list = [&](const char* key, size_t count, int64_t otherwise) {
    auto v = ctx.node.attr_ints(key);
    if (v.empty()) v.assign(count, otherwise);
    if (v.size() != count) ctx.fail("attribute '", key, "' should have ", count, " entries");
    return v;
  };
  f.dilations = list("dilations", n, 1);
  f.strides = list("strides", n, 1);
  const auto pads = list("pads", 2 * n, 0);
  for (size_t i = 0; i < n; ++i) {
    const int64_t limit = INT32_MAX;
    for (int64_t v : {f.image[i], f.block[i], f.dilations[i], f.strides[i]})
      if (v < 1 || v > limit) ctx.fail("extents, dilations and strides should be above 0, got ", v);
    if (std::abs(pads[i]) > limit || std::abs(pads[n + i]) > limit) ctx.fail("a pad is out of range");
    f.before.push_back(pads[i]);
    const int64_t room = f.image[i] + pads[i] + pads[n + i] - f.dilations[i] * (f.block[i] - 1) - 1;
    if (room < 0) ctx.fail("a block of ", f.block[i], " does not fit an image of ", f.image[i], " along axis ", i);
    f.steps.push_back(room / f.strides[i] + 1);
    bool fits = !__builtin_mul_overflow(f.block_size, f.block[i], &f.block_size);
    fits = fits && !__builtin_mul_overflow(f.positions, f.steps.back(), &f.positions);
    if (!fits || __builtin_mul_overflow(f.image_size, f.image[i], &f.image_size)) ctx.fail("the image is too large");
  }
  return f;
}

void infer(InferContext& ctx) {
  for (int i = 0; i < 3; ++i) ctx.input(i);
  const auto f = form_of(ctx);
  if (!f) {
    const auto n = length_of(ctx, 1);
    if (!n || *n + 2 > kMaxRank) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
    return ctx.set_output(0, ctx.dtype(0), fresh_shape(ctx, static_cast<int>(*n) + 2));
  }
  Shape r = fresh_shape(ctx, 2);
  if (ctx.ranked(0)) {
    const Shape& s = ctx.shape(0);
    ctx.check(s.rank() == 3, "the input should be [N, C * block, L]");
    r[0] = s[0];
    if (s[1] >= 0) {
      ctx.check(s[1] % f->block_size == 0, "extent ", s[1], " is not a multiple of the block's ", f->block_size, " elements");
      r[1] = s[1] / f->block_size;
    }
    ctx.check(s[2] < 0 || s[2] == f->positions, "the input has ", s[2], " columns, the block has ", f->positions, " places in the image");
  }
  for (int64_t d : f->image) r.push_back(d);
  if (r.known()) check_fits(ctx, ctx.dtype(0), r);
  ctx.set_output(0, ctx.dtype(0), r);
}

template <class T> T add(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) return a + b;
  else return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));  // wraps round
}

template <class T> void make(PrepareContext& ctx, const Form& f) {
  const int64_t planes = ctx.out_shape(0)[0] * ctx.out_shape(0)[1];
  ctx.cost(0, static_cast<double>(ctx.shape(0).count()) * sizeof(T) * 3);
  ctx.run([=](const Args& a, Worker& w) {
    w.parallel_for(planes, grain_for(f.block_size * f.positions), [&](int64_t begin, int64_t end) {
      std::vector<int64_t> step(static_cast<size_t>(f.rank));
      for (int64_t p = begin; p < end; ++p) {
        T* image = a.out<T>(0) + p * f.image_size;
        std::fill_n(image, f.image_size, T(0));
        const T* column = a.in<T>(0) + p * f.block_size * f.positions;
        for (int64_t k = 0; k < f.block_size; ++k) {
          std::fill(step.begin(), step.end(), 0);
          for (int64_t l = 0; l < f.positions; ++l, ++column) {
            int64_t at = 0, stride = 1, rest = k;
            bool inside = true;
            for (int i = f.rank - 1; i >= 0; --i) {
              const auto x = static_cast<size_t>(i);
              const int64_t place = step[x] * f.strides[x] - f.before[x] + rest % f.block[x] * f.dilations[x];
              rest /= f.block[x];
              inside = inside && place >= 0 && place < f.image[x];
              if (inside) at += place * stride;
              stride *= f.image[x];
            }
            if (inside) image[at] = add(image[at], *column);
            for (int i = f.rank - 1; i >= 0 && ++step[static_cast<size_t>(i)] == f.steps[static_cast<size_t>(i)]; --i) step[static_cast<size_t>(i)] = 0;
          }
        }
      }
    });
  });
}

void prepare(PrepareContext& ctx) {
  const auto f = form_of(ctx);
  if (!f) ctx.fail("image_shape and block_shape should be known by now");
  if (ctx.dtype(0) == DType::kFloat) return make<float>(ctx, *f);
  if (!with_plain_type(ctx.dtype(0), [&](auto tag) { make<typename decltype(tag)::type>(ctx, *f); }))
    ctx.fail("elements of this type cannot be summed");
}

const OpRegistration rows({{"Col2Im", "", 18, infer, half_as_float<prepare>}});

}  // namespace
}  // namespace tiercel

// NonZero: the coordinates of the elements that are not zero, [rank, count], in row-major order.
#include "base/float_formats.h"
#include "ops/movement.h"

namespace tiercel {
namespace {

template <class F> void for_each_nonzero(const Tensor& t, F f) {
  const int64_t n = t.count();
  auto walk = [&](auto nonzero) { for (int64_t i = 0; i < n; ++i) if (nonzero(i)) f(i); };
  switch (t.dtype()) {
    case DType::kFloat: return walk([p = t.as<float>()](int64_t i) { return p[i] != 0; });
    case DType::kDouble: return walk([p = t.as<double>()](int64_t i) { return p[i] != 0; });
    case DType::kString: return walk([p = t.as<std::string>()](int64_t i) { return !p[i].empty(); });
    case DType::kFloat16:
    case DType::kBFloat16: return walk([p = t.as<uint16_t>()](int64_t i) { return (p[i] & 0x7fff) != 0; });
    case DType::kComplex64: return walk([p = t.as<float>()](int64_t i) { return p[2 * i] != 0 || p[2 * i + 1] != 0; });
    case DType::kComplex128: return walk([p = t.as<double>()](int64_t i) { return p[2 * i] != 0 || p[2 * i + 1] != 0; });
    default: break;
  }
  switch (bits_of(t.dtype())) {
    case 8: return walk([p = t.as<uint8_t>()](int64_t i) { return p[i] != 0; });
    case 16: return walk([p = t.as<uint16_t>()](int64_t i) { return p[i] != 0; });
    case 32: return walk([p = t.as<uint32_t>()](int64_t i) { return p[i] != 0; });
    case 64: return walk([p = t.as<uint64_t>()](int64_t i) { return p[i] != 0; });
    default: fail(Code::kNotImplemented, "NonZero of tensor(", dtype_name(t.dtype()), ") is not supported");
  }
}

void infer(InferContext& ctx) {
  ctx.input(0);
  Dim count = ctx.fresh();
  if (const Tensor* t = ctx.constant(0)) {
    count = 0;
    for_each_nonzero(*t, [&](int64_t) { ++count; });
  }
  ctx.set_output(0, DType::kInt64, {ctx.ranked(0) ? ctx.shape(0).rank() : ctx.fresh(), count});
}

void eval(EvalContext& ctx, Worker&) {
  const Tensor& t = ctx.tensor(0);
  std::vector<int64_t> at;
  for_each_nonzero(t, [&](int64_t i) { at.push_back(i); });
  const Shape& s = t.shape();
  const auto n = static_cast<int64_t>(at.size());
  Tensor out(DType::kInt64, {s.rank(), n});
  for (int k = s.rank() - 1; k >= 0; --k) {
    int64_t* row = out.as<int64_t>() + k * n;
    for (int64_t i = 0; i < n; ++i) {
      int64_t& rest = at[static_cast<size_t>(i)];
      row[i] = rest % s[k];
      rest /= s[k];
    }
  }
  ctx.set(0, out);
}

const OpRegistration rows({{"NonZero", "", 9, infer, nullptr, eval}});

}  // namespace
}  // namespace tiercel

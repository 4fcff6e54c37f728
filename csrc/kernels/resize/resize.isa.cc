#include "kernels/resize/resize.h"
#include "simd/vec.h"

namespace tiercel::TIERCEL_ISA {
namespace {

// in[index[0..kLanes)]
inline F take(const float* in, const int32_t* index) {
#if defined(TIERCEL_ISA_AVX512)
  return {_mm512_i32gather_ps(_mm512_loadu_si512(index), in, 4)};
#else
  float v[kLanes];
  for (int i = 0; i < kLanes; ++i) v[i] = in[index[i]];
  return load(v);
#endif
}

template <int fixed>
void gather(const float* in, const int32_t* index, const float* weight, int64_t count, float* out, int64_t n) {
  const int64_t taps = fixed ? fixed : count;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    F s = load(weight + i) * take(in, index + i);
    for (int64_t t = 1; t < taps; ++t) s = fma(load(weight + t * n + i), take(in, index + t * n + i), s);
    store(out + i, s);
  }
  for (; i < n; ++i) {
    float s = weight[i] * in[index[i]];
    for (int64_t t = 1; t < taps; ++t) {
#if defined(TIERCEL_ISA_BASELINE)
      s = weight[t * n + i] * in[index[t * n + i]] + s;
#else
      s = __builtin_fmaf(weight[t * n + i], in[index[t * n + i]], s);  // as the lanes above do: a column's place must not show
#endif
    }
    out[i] = s;
  }
}

void gather_f32(const float* in, const int32_t* index, const float* weight, int64_t taps, float* out, int64_t n) {
  switch (taps) {
    case 2: return gather<2>(in, index, weight, taps, out, n);
    case 4: return gather<4>(in, index, weight, taps, out, n);
    default: return gather<0>(in, index, weight, taps, out, n);
  }
}

template <int fixed>
void rows(const float* in, int64_t first, const int32_t* index, const float* weight, int64_t stride, int64_t count, float* out, int64_t n) {
  const int64_t taps = fixed ? fixed : count;
  const float* row[fixed ? fixed : 1];
  F w[fixed ? fixed : 1];
  if (fixed)
    for (int t = 0; t < fixed; ++t) { row[t] = in + (index[t * stride] - first) * n; w[t] = set1(weight[t * stride]); }
  auto sum_at = [&](int64_t j, auto read) {
    if constexpr (fixed != 0) {
      F s = w[0] * read(row[0] + j);
      for (int t = 1; t < fixed; ++t) s = fma(w[t], read(row[t] + j), s);
      return s;
    } else {
      F s = set1(weight[0]) * read(in + (index[0] - first) * n + j);
      for (int64_t t = 1; t < taps; ++t) s = fma(set1(weight[t * stride]), read(in + (index[t * stride] - first) * n + j), s);
      return s;
    }
  };
  int64_t j = 0;
  for (; j + kLanes <= n; j += kLanes) store(out + j, sum_at(j, [](const float* p) { return load(p); }));
  if (j < n) store(out + j, sum_at(j, [m = n - j](const float* p) { return load(p, m); }), n - j);
}

void rows_f32(const float* in, int64_t first, const int32_t* index, const float* weight, int64_t stride, int64_t taps, float* out, int64_t n) {
  switch (taps) {
    case 1: return rows<1>(in, first, index, weight, stride, taps, out, n);
    case 2: return rows<2>(in, first, index, weight, stride, taps, out, n);
    case 4: return rows<4>(in, first, index, weight, stride, taps, out, n);
    default: return rows<0>(in, first, index, weight, stride, taps, out, n);
  }
}

template <int fixed>
void columns(const float* in, const int32_t* index, const float* weight, int64_t count, float* out, int64_t n, int64_t width) {
  const int64_t taps = fixed ? fixed : count;
  for (int64_t i = 0; i < n; ++i) {
    auto sum_at = [&](int64_t j, auto read) {
      F s = set1(weight[i]) * read(in + index[i] * width + j);
      for (int64_t t = 1; t < taps; ++t) s = fma(set1(weight[t * n + i]), read(in + index[t * n + i] * width + j), s);
      return s;
    };
    float* const to = out + i * width;
    int64_t j = 0;
    for (; j + kLanes <= width; j += kLanes) store(to + j, sum_at(j, [](const float* p) { return load(p); }));
    if (j < width) store(to + j, sum_at(j, [m = width - j](const float* p) { return load(p, m); }), width - j);
  }
}

void columns_f32(const float* in, const int32_t* index, const float* weight, int64_t taps, float* out, int64_t n, int64_t width) {
  if (taps == 2) columns<2>(in, index, weight, taps, out, n, width);
  else columns<0>(in, index, weight, taps, out, n, width);
}

struct Sixteen { uint64_t a, b; };
template <class T> void pick(const void* source, const int32_t* index, void* target, int64_t n) {
  const T* in = static_cast<const T*>(source);
  T* out = static_cast<T*>(target);
  for (int64_t i = 0; i < n; ++i) out[i] = in[index[i]];
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(ResizeKernels, resize_kernels){
    &gather_f32, &rows_f32, &columns_f32,
    {&pick<uint8_t>, &pick<uint16_t>, &pick<uint32_t>, &pick<uint64_t>, &pick<Sixteen>}};

}  // namespace tiercel::TIERCEL_ISA

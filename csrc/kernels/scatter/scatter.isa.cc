#include "kernels/scatter/scatter.h"
#include "simd/vec.h"

namespace tiercel::TIERCEL_ISA {
namespace {

template <Scatter f, class T> inline T combine(T a, T b) {
  if constexpr (f == Scatter::kNone) return b;
  else if constexpr (f == Scatter::kAdd) return static_cast<T>(a + b);
  else if constexpr (f == Scatter::kMul && sizeof(T) < 4) return static_cast<T>(static_cast<uint32_t>(a) * b);  // not as int, which overflows
  else if constexpr (f == Scatter::kMul) return static_cast<T>(a * b);
  else {
    const T r = f == Scatter::kMax ? (b > a ? b : a) : (b < a ? b : a);  // an instruction, which gives a where either is NaN
    return b != b ? b : r;
  }
}
template <Scatter f> inline F combine(F a, F b) {
  if constexpr (f == Scatter::kAdd) return a + b;
  else if constexpr (f == Scatter::kMul) return a * b;
  else if constexpr (f == Scatter::kMax) return select(ge(a, b) | is_nan(a), a, b);
  else return select(le(a, b) | is_nan(a), a, b);
}

// Rows of one width: the loop over it goes.
template <Scatter f, class T, int width>
inline void narrow_rows(const T* __restrict x, const int64_t* from, T* __restrict y, const int64_t* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const T* const b = x + from[i];
    T* const a = y + to[i];
    T r[width];
    for (int k = 0; k < width; ++k) r[k] = combine<f>(a[k], b[k]);
    for (int k = 0; k < width; ++k) a[k] = r[k];
  }
}

template <Scatter f, class T> void rows(const void* px, const int64_t* from, void* py, const int64_t* to, int64_t n, int64_t width) {
  const T* const __restrict x = static_cast<const T*>(px);
  T* const __restrict y = static_cast<T*>(py);
  switch (width) {
    case 1: return narrow_rows<f, T, 1>(x, from, y, to, n);
    case 2: return narrow_rows<f, T, 2>(x, from, y, to, n);
    case 4: return narrow_rows<f, T, 4>(x, from, y, to, n);
    case 8: return narrow_rows<f, T, 8>(x, from, y, to, n);
    default: break;
  }
  for (int64_t i = 0; i < n; ++i) {
    const T* const __restrict b = x + from[i];
    T* const __restrict a = y + to[i];
    for (int64_t k = 0; k < width; ++k) a[k] = combine<f>(a[k], b[k]);
  }
}

template <int n> struct Part { typedef float type __attribute__((vector_size(4 * n))); };
template <> struct Part<1> { typedef float type; };

// The n elements of a row that `width` has beside larger parts.
template <Scatter f, int n> inline int64_t narrow_part(float* y, const float* x, int64_t width) {
  if (!(width & n)) return 0;
  typename Part<n>::type a, b;
  __builtin_memcpy(&a, y, sizeof(a));
  __builtin_memcpy(&b, x, sizeof(b));
  if constexpr (f == Scatter::kAdd) a = a + b;
  else if constexpr (f == Scatter::kMul) a = a * b;
  else if constexpr (f == Scatter::kMax) a = b != b ? b : b > a ? b : a;
  else a = b != b ? b : b < a ? b : a;
  __builtin_memcpy(y, &a, sizeof(a));
  return n;
}

// Asks for what a row further on reads: parts of rows come from other threads' caches, mostly, in steps that the processor does not foresee.
inline void ask_ahead(const float* x, const int64_t* from, int64_t i, int64_t n, int64_t width) {
  constexpr int64_t kAhead = 6;
  if (i + kAhead >= n) return;
  const float* const row = x + from[i + kAhead];
  for (int64_t k = 0; k < width; k += 16) __builtin_prefetch(row + k);
}

template <Scatter f> void rows_f32(const void* px, const int64_t* from, void* py, const int64_t* to, int64_t n, int64_t width) {
  if (width == 1 || width == 2 || width == 4 || width == 8) return rows<f, float>(px, from, py, to, n, width);
  const float* const x = static_cast<const float*>(px);
  float* const y = static_cast<float*>(py);
  const int64_t whole = width - width % kLanes;
  for (int64_t i = 0; i < n; ++i) {
    const float* const b = x + from[i];
    float* const a = y + to[i];
    ask_ahead(x, from, i, n, width);
    int64_t k = 0;
    for (; k + 2 * kLanes <= whole; k += 2 * kLanes) {
      const F r = combine<f>(load(a + k), load(b + k)), s = combine<f>(load(a + k + kLanes), load(b + k + kLanes));
      store(a + k, r);
      store(a + k + kLanes, s);
    }
    if (k < whole) store(a + k, combine<f>(load(a + k), load(b + k)));
    // Not as a part of a vector: what was stored so is slow to load again, and rows meet.
    k = whole;
    if constexpr (kLanes > 8) k += narrow_part<f, 8>(a + k, b + k, width);
    if constexpr (kLanes > 4) k += narrow_part<f, 4>(a + k, b + k, width);
    k += narrow_part<f, 2>(a + k, b + k, width);
    narrow_part<f, 1>(a + k, b + k, width);
  }
}

// Elements of 1 to 16 bytes at any address.
#define TIERCEL_PACKED struct __attribute__((packed, may_alias))
TIERCEL_PACKED E1 { uint8_t v; };
TIERCEL_PACKED E2 { uint16_t v; };
TIERCEL_PACKED E4 { uint32_t v; };
TIERCEL_PACKED E8 { uint64_t v; };
TIERCEL_PACKED E16 { uint64_t v, w; };

template <int bytes, class E> inline void copy_narrow(const E* x, const int64_t* from, E* y, const int64_t* to, int64_t n) {
  struct Block { char c[bytes]; } b;
  for (int64_t i = 0; i < n; ++i) {
    __builtin_memcpy(&b, x + from[i], bytes);
    __builtin_memcpy(y + to[i], &b, bytes);
  }
}
template <class E> void copy(const void* px, const int64_t* from, void* py, const int64_t* to, int64_t n, int64_t width) {
  const E* const x = static_cast<const E*>(px);
  E* const y = static_cast<E*>(py);
  if (width == 1) {
    for (int64_t i = 0; i < n; ++i) y[to[i]] = x[from[i]];
    return;
  }
  const int64_t bytes = width * static_cast<int64_t>(sizeof(E));
  switch (bytes) {
    case 4: return copy_narrow<4>(x, from, y, to, n);
    case 8: return copy_narrow<8>(x, from, y, to, n);
    case 16: return copy_narrow<16>(x, from, y, to, n);
    case 32: return copy_narrow<32>(x, from, y, to, n);
    case 64: return copy_narrow<64>(x, from, y, to, n);
    default: break;
  }
  for (int64_t i = 0; i < n; ++i) {
    const char* const b = reinterpret_cast<const char*>(x + from[i]);
    char* const a = reinterpret_cast<char*>(y + to[i]);
    if (bytes < 64 || bytes > 1024) {
      __builtin_memcpy(a, b, static_cast<size_t>(bytes));
      continue;
    }
    struct Block { char c[64]; } block;
    for (int64_t k = 0; k + 64 < bytes; k += 64) {
      __builtin_memcpy(&block, b + k, 64);
      __builtin_memcpy(a + k, &block, 64);
    }
    __builtin_memcpy(&block, b + bytes - 64, 64);  // over some that are there already
    __builtin_memcpy(a + bytes - 64, &block, 64);
  }
}

void logical_or(const void* px, const int64_t* from, void* py, const int64_t* to, int64_t n, int64_t width) {
  const uint8_t* const x = static_cast<const uint8_t*>(px);
  uint8_t* const y = static_cast<uint8_t*>(py);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0; k < width; ++k) y[to[i] + k] = static_cast<uint8_t>((y[to[i] + k] | x[from[i] + k]) != 0);
}
void logical_and(const void* px, const int64_t* from, void* py, const int64_t* to, int64_t n, int64_t width) {
  const uint8_t* const x = static_cast<const uint8_t*>(px);
  uint8_t* const y = static_cast<uint8_t*>(py);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t k = 0; k < width; ++k) y[to[i] + k] = static_cast<uint8_t>((y[to[i] + k] != 0) & (x[from[i] + k] != 0));
}

// ---- Indices

template <int width, class Index> inline bool alike_fixed(const Index* index) {
  Index other = 0;
  for (int k = 1; k < width; ++k) other |= index[k] ^ index[0];
  return !other;
}
// Two overlapping parts: what they share is the same in both.
template <int width, class Index> inline bool alike_twice(const Index* index, int64_t n) {
  return alike_fixed<width>(index) && alike_fixed<width>(index + n - width);
}
template <class Index> inline bool alike(const Index* index, int64_t n) {
  if (n < 2) return true;
  if (n < 4) return alike_twice<2>(index, n);
  if (n < 8) return alike_twice<4>(index, n);
  if (n < 16) return alike_twice<8>(index, n);
  if (n < 32) return alike_twice<16>(index, n);
  if (index[n - 1] != index[0]) return false;
  for (int64_t i = 0; i + 32 < n; i += 32)
    if (index[i] != index[0] || !alike_fixed<32>(index + i)) return false;
  return alike_fixed<32>(index + n - 32);
}

template <class Index> bool outside(const Index* index, int64_t n, int64_t extent) {
  const uint64_t places = 2 * static_cast<uint64_t>(extent);
  uint64_t found = 0;
  for (int64_t i = 0; i < n; ++i)  // whether index + extent is below 0 or not below 2 extent
    found |= static_cast<uint64_t>(static_cast<uint64_t>(static_cast<int64_t>(index[i])) + static_cast<uint64_t>(extent) >= places);
  return found != 0;
}

// The loop over rows, with `same` inlined.
template <class Index, class Same> inline bool rows_of(const Index* index, int64_t n, int64_t width, int64_t extent, int64_t* place, Same same) {
  bool good = true;
  for (int64_t r = 0; r < n; ++r, index += width) {
    const int64_t given = index[0], i = given + (given < 0 ? extent : 0);
    if (same(index)) {
      place[r] = i;
      good &= static_cast<uint64_t>(i) < static_cast<uint64_t>(extent);
    } else {
      place[r] = kMixedRow;
      good &= !outside(index, width, extent);
    }
  }
  return good;
}
template <class Index> bool index_rows(const Index* index, int64_t n, int64_t width, int64_t extent, int64_t* place) {
  switch (width) {
    case 1: return rows_of(index, n, 1, extent, place, [](const Index*) { return true; });
    case 2: return rows_of(index, n, 2, extent, place, alike_fixed<2, Index>);
    case 4: return rows_of(index, n, 4, extent, place, alike_fixed<4, Index>);
    case 8: return rows_of(index, n, 8, extent, place, alike_fixed<8, Index>);
    case 16: return rows_of(index, n, 16, extent, place, alike_fixed<16, Index>);
    default: return rows_of(index, n, width, extent, place, [width](const Index* i) { return alike(i, width); });
  }
}

template <class Index> void places(const Index* index, int64_t n, int64_t extent, int64_t stride, int64_t base, int64_t step, int64_t* __restrict to) {
  for (int64_t k = 0; k < n; ++k) {
    const int64_t given = index[k], i = given + (given < 0 ? extent : 0);
    to[k] = base + k * step + i * stride;
  }
}

}  // namespace

#define TIERCEL_FLOATS(rows) {&rows<Scatter::kAdd>, &rows<Scatter::kMul>, &rows<Scatter::kMax>, &rows<Scatter::kMin>}
#define TIERCEL_WRAPPING(T) {&rows<Scatter::kAdd, T>, &rows<Scatter::kMul, T>}
#define TIERCEL_ORDER(T) {&rows<Scatter::kMax, T>, &rows<Scatter::kMin, T>}
TIERCEL_KERNEL_TABLE_IS(ScatterKernels, scatter_kernels){
    {&copy<E1>, &copy<E2>, &copy<E4>, &copy<E8>, &copy<E16>},
    TIERCEL_FLOATS(rows_f32),
    {&rows<Scatter::kAdd, double>, &rows<Scatter::kMul, double>, &rows<Scatter::kMax, double>, &rows<Scatter::kMin, double>},
    {TIERCEL_WRAPPING(uint8_t), TIERCEL_WRAPPING(uint16_t), TIERCEL_WRAPPING(uint32_t), TIERCEL_WRAPPING(uint64_t)},
    {TIERCEL_ORDER(int8_t), TIERCEL_ORDER(int16_t), TIERCEL_ORDER(int32_t), TIERCEL_ORDER(int64_t)},
    {TIERCEL_ORDER(uint8_t), TIERCEL_ORDER(uint16_t), TIERCEL_ORDER(uint32_t), TIERCEL_ORDER(uint64_t)},
    {&logical_or, &logical_and},
    {&index_rows<int32_t>, &outside<int32_t>, &places<int32_t>},
    {&index_rows<int64_t>, &outside<int64_t>, &places<int64_t>}};
#undef TIERCEL_FLOATS
#undef TIERCEL_WRAPPING
#undef TIERCEL_ORDER

}  // namespace tiercel::TIERCEL_ISA

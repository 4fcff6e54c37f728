#include "kernels/copy/copy.h"

namespace tiercel::TIERCEL_ISA {
namespace {

// Elements of 1 to 16 bytes at any address: a run of small ones may travel as one.
#define TIERCEL_PACKED struct __attribute__((packed, may_alias))
TIERCEL_PACKED E1 { uint8_t v; };
TIERCEL_PACKED E2 { uint16_t v; };
TIERCEL_PACKED E4 { uint32_t v; };
TIERCEL_PACKED E8 { uint64_t v; };
TIERCEL_PACKED E16 { uint64_t v, w; };

template <int n> inline void move(char* out, const char* in) {
  struct Block { char c[n]; } b;
  __builtin_memcpy(&b, in, n);
  __builtin_memcpy(out, &b, n);
}

template <int n> void fixed_rows(const char* in, int64_t in_stride, char* out, int64_t out_stride, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) move<n>(out + r * out_stride, in + r * in_stride);
}

// Rows of at least n bytes in steps of n; the last step overlaps the one before.
template <int n> void stepped_rows(const char* in, int64_t in_stride, char* out, int64_t out_stride, int64_t rows, int64_t bytes) {
  for (int64_t r = 0; r < rows; ++r, in += in_stride, out += out_stride) {
    for (int64_t i = 0; i + n < bytes; i += n) move<n>(out + i, in + i);
    move<n>(out + bytes - n, in + bytes - n);
  }
}

void rows(const void* in, int64_t in_stride, void* out, int64_t out_stride, int64_t rows, int64_t bytes) {
  if (bytes <= 0) return;
  const char* s = static_cast<const char*>(in);
  char* d = static_cast<char*>(out);
  switch (bytes) {
    case 1: return fixed_rows<1>(s, in_stride, d, out_stride, rows);
    case 2: return fixed_rows<2>(s, in_stride, d, out_stride, rows);
    case 4: return fixed_rows<4>(s, in_stride, d, out_stride, rows);
    case 8: return fixed_rows<8>(s, in_stride, d, out_stride, rows);
    case 16: return fixed_rows<16>(s, in_stride, d, out_stride, rows);
    case 32: return fixed_rows<32>(s, in_stride, d, out_stride, rows);
    case 64: return fixed_rows<64>(s, in_stride, d, out_stride, rows);
    default: break;
  }
  if (bytes > 1024) {
    for (int64_t r = 0; r < rows; ++r) __builtin_memcpy(d + r * out_stride, s + r * in_stride, static_cast<size_t>(bytes));
  } else if (bytes > 64) {
    stepped_rows<64>(s, in_stride, d, out_stride, rows, bytes);
  } else if (bytes > 16) {
    stepped_rows<16>(s, in_stride, d, out_stride, rows, bytes);
  } else if (bytes > 4) {
    stepped_rows<4>(s, in_stride, d, out_stride, rows, bytes);
  } else {
    stepped_rows<1>(s, in_stride, d, out_stride, rows, bytes);
  }
}

template <class T> void fill(const void* value, void* out, int64_t n) {
  T v;
  __builtin_memcpy(&v, value, sizeof(T));
  T* to = static_cast<T*>(out);
  for (int64_t i = 0; i < n; ++i) to[i] = v;
}

template <class T>
void strided(const void* in, int64_t in_row, int64_t in_col, void* out, int64_t out_row, int64_t out_col, int64_t rows,
             int64_t cols) {
  const T* s = static_cast<const T*>(in);
  T* d = static_cast<T*>(out);
  for (int64_t r = 0; r < rows; ++r, s += in_row, d += out_row) {
    if (in_col == 0 && out_col == 1) {
      const T v = *s;
      for (int64_t c = 0; c < cols; ++c) d[c] = v;
    } else if (out_col == 1 && in_col == 2) {
      for (int64_t c = 0; c < cols; ++c) d[c] = s[2 * c];
    } else if (out_col == 1 && in_col == -1) {
      for (int64_t c = 0; c < cols; ++c) d[c] = s[-c];
    } else if (out_col == 1) {
      for (int64_t c = 0; c < cols; ++c) d[c] = s[c * in_col];
    } else {
      for (int64_t c = 0; c < cols; ++c) d[c * out_col] = s[c * in_col];
    }
  }
}

}  // namespace

TIERCEL_KERNEL_TABLE_IS(CopyKernels, copy_kernels){
    &rows,
    {&fill<E1>, &fill<E2>, &fill<E4>, &fill<E8>, &fill<E16>},
    {&strided<E1>, &strided<E2>, &strided<E4>, &strided<E8>, &strided<E16>}};

}  // namespace tiercel::TIERCEL_ISA

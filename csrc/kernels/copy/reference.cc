#include <cstring>

#include "kernels/copy/copy.h"

namespace tiercel::reference {

void strided_copy(const void* in, int64_t in_row, int64_t in_col, void* out, int64_t out_row, int64_t out_col,
                  int64_t rows, int64_t cols, int64_t size) {
  const char* from = static_cast<const char*>(in);
  char* to = static_cast<char*>(out);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      std::memcpy(to + (r * out_row + c * out_col) * size, from + (r * in_row + c * in_col) * size, static_cast<size_t>(size));
}

}  // namespace tiercel::reference

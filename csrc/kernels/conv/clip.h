// Taps of a window that lie inside the image. For *.isa.cc files.
#pragma once
#include <stdint.h>

namespace tiercel::TIERCEL_ISA {
namespace {

// Taps k of [0, kernel) with 0 <= at + k dilation < in.
inline void clip(int64_t at, int64_t kernel, int64_t dilation, int64_t in, int64_t& begin, int64_t& end) {
  begin = at >= 0 ? 0 : (-at + dilation - 1) / dilation;
  end = in - 1 - at < 0 ? 0 : (in - 1 - at) / dilation + 1;
  if (begin > kernel) begin = kernel;
  if (end > kernel) end = kernel;
  if (end < begin) end = begin;
}

}  // namespace
}  // namespace tiercel::TIERCEL_ISA

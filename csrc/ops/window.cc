#include "ops/window.h"

#include <algorithm>

namespace tiercel {
namespace {

constexpr int64_t kMost = INT32_MAX;  // of any attribute: products of two stay far from overflow

void read(const Node& node, const char* name, int count, int64_t least, int64_t otherwise, int64_t* to) {
  static const std::vector<int64_t> none;
  const auto* found = node.find_ints(name);
  const std::vector<int64_t>& v = found ? *found : none;
  if (!v.empty() && static_cast<int>(v.size()) != count)
    fail(Code::kInvalidGraph, node.label(), ": attribute ", name, " should have ", count, " entries, has ", v.size());
  for (int i = 0; i < count; ++i) {
    to[i] = v.empty() ? otherwise : v[i];
    if (to[i] < least || to[i] > kMost)
      fail(Code::kInvalidGraph, node.label(), ": attribute ", name, "[", i, "] = ", to[i], " is outside [", least, ", ", kMost, "]");
  }
}

}  // namespace

int64_t Window::taps() const {
  int64_t n = 1;
  for (int a = 0; a < rank; ++a)
    if (__builtin_mul_overflow(n, kernel[a], &n)) fail(Code::kInvalidGraph, "a window of more than 2^63 taps");
  return n;
}

int64_t Window::slide(int a, int64_t in) {
  const int64_t s = stride[a], span = reach(a);
  if (auto_pad == AutoPad::kSameUpper || auto_pad == AutoPad::kSameLower) {
    const int64_t out = ceil_div(in, s);
    const int64_t total = std::max<int64_t>(0, (out - 1) * s + span - in);
    begin[a] = auto_pad == AutoPad::kSameUpper ? total / 2 : total - total / 2;
    end[a] = total - begin[a];
    return out;
  }
  if (auto_pad == AutoPad::kValid) begin[a] = end[a] = 0;
  const int64_t room = in + begin[a] + end[a] - span;
  if (room < 0 && !(ceil && room > -s)) return -1;  // rounded up, a window that begins inside and ends beyond is one
  int64_t out = (ceil ? ceil_div(room, s) : room / s) + 1;
  if (ceil && (out - 1) * s >= in + begin[a]) --out;  // a window that starts in the padding at the end does not count
  return out;
}

Dim Window::slide(int a, Dim in, SymbolTable& symbols) {
  if (!is_symbol(in)) return slide(a, in);
  const bool same = auto_pad == AutoPad::kSameUpper || auto_pad == AutoPad::kSameLower;
  const int64_t pads = auto_pad == AutoPad::kNotSet ? begin[a] + end[a] : 0;
  const int64_t room = same ? stride[a] - 1 : pads - reach(a) + (ceil ? stride[a] - 1 : 0);  // out = floor((in + room) / stride) + 1
  if (stride[a] == 1) return same ? in : symbols.plus(in, room + 1);
  std::string name = symbols.name(in).empty() ? cat("#", in - kSymbolBase) : symbols.name(in);
  name = same ? cat("ceil(", name, "/", stride[a], ")") : cat("floor((", name, room < 0 ? "" : "+", room, ")/", stride[a], ")+1");
  if (ceil && !same) name += cat(" from ", begin[a]);  // the last window may be dropped, which depends on the padding
  return symbols.named(name);
}

Window window_of(const Node& node, int rank, std::span<const int64_t> kernel) {
  Window w;
  w.rank = rank;
  const std::string pad = node.attr_string("auto_pad", "NOTSET");
  if (pad == "SAME_UPPER") w.auto_pad = AutoPad::kSameUpper;
  else if (pad == "SAME_LOWER") w.auto_pad = AutoPad::kSameLower;
  else if (pad == "VALID") w.auto_pad = AutoPad::kValid;
  else if (pad != "NOTSET" && !pad.empty())
    fail(Code::kInvalidGraph, node.label(), ": auto_pad should be NOTSET, VALID, SAME_UPPER or SAME_LOWER, is \"", pad, "\"");
  w.ceil = node.attr_int("ceil_mode", 0) != 0;
  if (kernel.empty() && !node.has("kernel_shape")) fail(Code::kInvalidGraph, node.label(), ": attribute kernel_shape is required");
  read(node, "kernel_shape", rank, 1, 1, w.kernel.data());
  const auto* said = node.find_ints("kernel_shape");
  for (size_t a = 0; a < kernel.size(); ++a) {
    if (said && !said->empty() && kernel[a] >= 0 && w.kernel[a] != kernel[a])
      fail(Code::kInvalidGraph, node.label(), ": kernel_shape[", a, "] = ", w.kernel[a], ", but the weights have extent ", kernel[a]);
    if (kernel[a] >= 0) w.kernel[a] = kernel[a];
    if (w.kernel[a] < 1 || w.kernel[a] > kMost) fail(Code::kInvalidGraph, node.label(), ": a kernel of extent ", w.kernel[a]);
  }
  read(node, "strides", rank, 1, 1, w.stride.data());
  read(node, "dilations", rank, 1, 1, w.dilation.data());
  std::array<int64_t, 2 * kMaxRank> pads{};
  read(node, "pads", 2 * rank, 0, 0, pads.data());
  for (int a = 0; a < rank; ++a) {
    w.begin[a] = pads[a];
    w.end[a] = pads[rank + a];
  }
  return w;
}

}  // namespace tiercel

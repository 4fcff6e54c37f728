#include "base/status.h"

#include <charconv>
#include <cstdio>

namespace tiercel::detail {
namespace {

template <class T>
void append_integer(std::string& s, T v) {
  char text[24];
  s.append(text, std::to_chars(text, text + sizeof text, v).ptr);
}

}  // namespace

void append_number(std::string& s, long long v) { append_integer(s, v); }
void append_number(std::string& s, unsigned long long v) { append_integer(s, v); }

void append_number(std::string& s, double v) {
  char text[32];
  const int n = std::snprintf(text, sizeof text, "%g", v);
  s.append(text, static_cast<size_t>(n));
}

}  // namespace tiercel::detail

// Errors: one exception type whose code becomes a C ABI status and a Python exception class.
#pragma once
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace tiercel {

// Values equal the public TIERCEL_* status codes and onnxruntime's OrtErrorCode.
enum class Code : int {
  kOk = 0,
  kFail = 1,
  kInvalidArgument = 2,
  kNoSuchFile = 3,
  kNoModel = 4,
  kEngineError = 5,
  kRuntimeException = 6,
  kInvalidProtobuf = 7,
  kModelLoaded = 8,
  kNotImplemented = 9,
  kInvalidGraph = 10,
  kEpFail = 11,
};

class Error : public std::runtime_error {
 public:
  Error(Code code, const std::string& message) : std::runtime_error(message), code_(code) {}
  Code code() const { return code_; }

 private:
  Code code_;
};

namespace detail {
void append_number(std::string& s, long long v);
void append_number(std::string& s, unsigned long long v);
void append_number(std::string& s, double v);  // six digits, as %g

template <class T>
void append(std::string& s, const T& v) {
  if constexpr (std::is_same_v<T, char>) s += v;
  else if constexpr (std::is_convertible_v<const T&, std::string_view>) s += std::string_view(v);
  else if constexpr (std::is_floating_point_v<T>) append_number(s, static_cast<double>(v));
  else if constexpr (std::is_unsigned_v<T>) append_number(s, static_cast<unsigned long long>(v));
  else if constexpr (std::is_integral_v<T>) append_number(s, static_cast<long long>(v));
  else s += v.str();
}
}  // namespace detail

// cat("expected ", 3, " inputs"): the arguments one after another. Text, numbers, and what has str().
template <class... Args>
std::string cat(const Args&... args) {
  std::string s;
  (detail::append(s, args), ...);
  return s;
}

template <class... Args>
[[noreturn]] void fail(Code code, const Args&... args) {
  throw Error(code, cat(args...));
}

}  // namespace tiercel

// Errors: one exception type whose code becomes a C ABI status and a Python exception class.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

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

// cat("expected ", 3, " inputs"): the arguments, streamed into one string.
template <class... Args>
std::string cat(const Args&... args) {
  std::ostringstream os;
  (os << ... << args);
  return os.str();
}

template <class... Args>
[[noreturn]] void fail(Code code, const Args&... args) {
  throw Error(code, cat(args...));
}

}  // namespace tiercel

// Any bytes either load, and can then be written and read again, or throw Error.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "onnx/onnx.h"

using namespace tiercel;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto parse = [](const void* bytes, size_t n) {
    std::shared_ptr<char[]> copy(new char[n]);  // exactly n bytes, so that a step past the end is seen
    std::memcpy(copy.get(), bytes, n);
    Model m = onnx::parse(copy.get(), n, Buffer(copy, copy.get()));
    m.graph->check();
    return m;
  };
  std::string again;
  try {
    again = onnx::serialize(parse(data, size));
  } catch (const Error&) {
    return 0;
  }
  try {
    parse(again.data(), again.size());
  } catch (const Error& e) {
    std::fprintf(stderr, "what was written does not load: %s\n", e.what());
    std::abort();
  }
  return 0;
}

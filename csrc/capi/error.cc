#include "capi/handles.h"

namespace tiercel::capi {
namespace {
thread_local std::string last_error;
}

tiercel_status report(Code code, const char* message) noexcept {
  try {
    last_error = message;
  } catch (...) {
    last_error.clear();
  }
  return static_cast<tiercel_status>(code);
}

}  // namespace tiercel::capi

extern "C" {

const char* tiercel_version(void) { return TIERCEL_VERSION; }
const char* tiercel_last_error(void) { return tiercel::capi::last_error.c_str(); }

}

// What stands behind the C handles, and how an exception becomes a status. The Python bindings share the handles.
#pragma once
#include <memory>
#include <new>
#include <string>

#include "runtime/session.h"
#include "tiercel.h"

struct tiercel_options {
  tiercel::SessionOptions options;
};
struct tiercel_session {
  explicit tiercel_session(std::unique_ptr<tiercel::Session> s) : session(std::move(s)) {}
  std::unique_ptr<tiercel::Session> session;
};
struct tiercel_value {
  tiercel::RuntimeValue value;
};
struct tiercel_control {
  tiercel::RunControl control;
};

namespace tiercel::capi {

tiercel_status report(Code code, const char* message) noexcept;

// Runs f; what it throws becomes a status and this thread's message.
template <class F>
tiercel_status guard(F&& f) noexcept {
  try {
    f();
    return TIERCEL_OK;
  } catch (const Error& e) {
    return report(e.code(), e.what());
  } catch (const std::bad_alloc&) {
    return report(Code::kFail, "out of memory");
  } catch (const std::exception& e) {
    return report(Code::kFail, e.what());
  } catch (...) {
    return report(Code::kEngineError, "an unknown exception");
  }
}

inline void need(const void* pointer, const char* what) {
  if (!pointer) fail(Code::kInvalidArgument, what, " is NULL");
}

}  // namespace tiercel::capi

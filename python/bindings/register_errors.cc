// tiercel::Error becomes the exception class of its code; the classes are defined in tiercel/errors.py.
#include "base/status.h"
#include "bindings.h"

namespace tiercel::python {

void register_errors(py::module_&) {
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const Error& e) {
      const py::object error =
          py::module_::import("tiercel.errors").attr("from_code")(static_cast<int>(e.code()), e.what());
      PyErr_SetObject(py::type::handle_of(error).ptr(), error.ptr());
    }
  });
}

}  // namespace tiercel::python

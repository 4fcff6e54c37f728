// tiercel._core: a table of contents.
#include "bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The engine of tiercel. Internal: use the tiercel package.";
  tiercel::python::register_errors(m);
  tiercel::python::register_info(m);
  tiercel::python::register_model(m);
  tiercel::python::register_evaluate(m);
}

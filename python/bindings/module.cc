// tiercel._core: a table of contents.
#include "bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "The engine of tiercel. Internal: use the tiercel package.";
  m.attr("__version__") = TIERCEL_VERSION;
  tiercel::python::register_errors(m);
  tiercel::python::register_info(m);
  tiercel::python::register_model(m);
  tiercel::python::register_types(m);
  tiercel::python::register_evaluate(m);
  tiercel::python::register_session(m);
  tiercel::python::register_training(m);
}

// Element types between numpy's names and ONNX's numbers, and arrays over foreign memory.
#include <pybind11/numpy.h>

#include "base/status.h"
#include "bindings.h"

namespace tiercel::python {

void register_types(py::module_& m) {
  m.def("type_string", [](int kind, int dtype) {
    Type t = Type::tensor(static_cast<DType>(dtype));
    t.kind = static_cast<Kind>(kind);
    return t.str();
  }, py::arg("kind"), py::arg("dtype"), "A type as onnxruntime writes it: tensor(float), seq(tensor(int64)).");
  m.def("dtype_number", [](const py::object& dtype) { return static_cast<int>(dtype_of_numpy(dtype)); }, py::arg("dtype"),
        "TensorProto.DataType of a numpy.dtype; 0 when there is none.");
  m.def("dtype_numpy", [](int dtype) { return numpy_dtype(static_cast<DType>(dtype)); }, py::arg("dtype"),
        "The numpy.dtype of a TensorProto.DataType (object for strings, ml_dtypes' or raw bits for what numpy lacks).");
  m.def("dtype_bits", [](int dtype) { return bits_of(static_cast<DType>(dtype)); }, py::arg("dtype"));
  m.def("array_at", [](uintptr_t address, const py::dtype& dtype, const std::vector<py::ssize_t>& shape) {
    if (!address) fail(Code::kInvalidArgument, "the buffer's address is 0");
    const py::capsule nobody(reinterpret_cast<void*>(address), [](void*) {});
    return py::array(dtype, shape, reinterpret_cast<void*>(address), nobody);
  }, py::arg("address"), py::arg("dtype"), py::arg("shape"), "An array over memory that the caller keeps alive.");
}

}  // namespace tiercel::python

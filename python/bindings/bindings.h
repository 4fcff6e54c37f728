// What the binding files share: the conversions between numpy and the engine, and the table of contents.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "base/tensor.h"
#include "graph/type.h"
#include "ops/value.h"
#include "runtime/session.h"

namespace tiercel::python {

namespace py = pybind11;

// An array as a Tensor. Contiguous, aligned arrays in native byte order are used in place and kept alive; others are
// copied. Strings (object, str and bytes arrays) and sub-byte types are always copied. `what` names it in errors.
// `wanted`: the element type it must have; raw bits (an integer array of the same width) stand for types that numpy lacks.
Tensor to_tensor(const py::handle& array, const std::string& what, DType wanted = DType::kUndefined);
// A Tensor as an array over the same memory (strings as an object array of str; sub-byte types unpacked). Types that
// numpy lacks become ml_dtypes' when that package is installed, else the raw bits as unsigned integers.
py::object to_numpy(const Tensor& tensor);

// An array, a list or scalar (converted to the type's elements), a list of arrays for a sequence, None for an optional.
// A type without dtype takes what comes.
RuntimeValue to_value(const py::handle& object, const Type& type, const std::string& what);
py::object from_value(const RuntimeValue& value);

// The numpy dtype of an element type (object for strings).
py::object numpy_dtype(DType t);
DType dtype_of_numpy(const py::handle& numpy_dtype);  // kUndefined: none of ours

// The instructions of profiled runs, a dict each.
py::list profile_events(const std::vector<ProfileEvent>& profile);

void register_errors(py::module_& m);
void register_info(py::module_& m);
void register_model(py::module_& m);
void register_types(py::module_& m);
void register_evaluate(py::module_& m);
void register_session(py::module_& m);
void register_training(py::module_& m);

}  // namespace tiercel::python

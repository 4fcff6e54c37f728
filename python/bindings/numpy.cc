#include <pybind11/numpy.h>

#include <cstring>

#include "base/status.h"
#include "bindings.h"

namespace tiercel::python {
namespace {

struct Row {
  DType dtype;
  const char* numpy;      // numpy's own name
  const char* ml_dtypes;  // or that package's
  const char* bits;       // or the raw bits
};
constexpr Row kRows[] = {
    {DType::kFloat, "float32", nullptr, nullptr},      {DType::kDouble, "float64", nullptr, nullptr},
    {DType::kFloat16, "float16", nullptr, nullptr},    {DType::kInt8, "int8", nullptr, nullptr},
    {DType::kInt16, "int16", nullptr, nullptr},        {DType::kInt32, "int32", nullptr, nullptr},
    {DType::kInt64, "int64", nullptr, nullptr},        {DType::kUInt8, "uint8", nullptr, nullptr},
    {DType::kUInt16, "uint16", nullptr, nullptr},      {DType::kUInt32, "uint32", nullptr, nullptr},
    {DType::kUInt64, "uint64", nullptr, nullptr},      {DType::kBool, "bool", nullptr, nullptr},
    {DType::kComplex64, "complex64", nullptr, nullptr},{DType::kComplex128, "complex128", nullptr, nullptr},
    {DType::kString, "object", nullptr, nullptr},
    {DType::kBFloat16, nullptr, "bfloat16", "uint16"},
    {DType::kFloat8E4M3FN, nullptr, "float8_e4m3fn", "uint8"},
    {DType::kFloat8E4M3FNUZ, nullptr, "float8_e4m3fnuz", "uint8"},
    {DType::kFloat8E5M2, nullptr, "float8_e5m2", "uint8"},
    {DType::kFloat8E5M2FNUZ, nullptr, "float8_e5m2fnuz", "uint8"},
    {DType::kFloat8E8M0, nullptr, "float8_e8m0fnu", "uint8"},
    {DType::kUInt4, nullptr, "uint4", "uint8"},        {DType::kInt4, nullptr, "int4", "int8"},
    {DType::kFloat4E2M1, nullptr, "float4_e2m1fn", "uint8"},
    {DType::kUInt2, nullptr, "uint2", "uint8"},        {DType::kInt2, nullptr, "int2", "int8"},
};

py::object numpy() { return py::module_::import("numpy"); }

// ml_dtypes, or None. Asked for once.
const py::object& ml_dtypes() {
  static PyObject* const module = [] {
    PyObject* m = PyImport_ImportModule("ml_dtypes");
    if (!m) { PyErr_Clear(); m = Py_NewRef(Py_None); }
    return m;
  }();
  static const py::object* const object = new py::object(py::reinterpret_borrow<py::object>(module));
  return *object;
}

// Fields of `bits` bits, low bits first, between packed bytes and one byte an element.
void unpack(const uint8_t* packed, uint8_t* bytes, int64_t n, int bits, bool is_signed) {
  const int per = 8 / bits, mask = (1 << bits) - 1, sign = 1 << (bits - 1);
  for (int64_t i = 0; i < n; ++i) {
    const int v = (packed[i / per] >> (bits * (i % per))) & mask;
    bytes[i] = static_cast<uint8_t>(is_signed ? (v ^ sign) - sign : v);
  }
}

void pack(const uint8_t* bytes, uint8_t* packed, int64_t n, int bits) {
  const int per = 8 / bits, mask = (1 << bits) - 1;
  std::memset(packed, 0, static_cast<size_t>((n + per - 1) / per));
  for (int64_t i = 0; i < n; ++i)
    packed[i / per] = static_cast<uint8_t>(packed[i / per] | ((bytes[i] & mask) << (bits * (i % per))));
}

bool two_complement(DType t) { return t == DType::kInt4 || t == DType::kInt2; }

Shape shape_of(const py::array& a) {
  Shape s;
  for (py::ssize_t i = 0; i < a.ndim(); ++i) s.push_back(a.shape(i));
  return s;
}

std::string type_name(const py::handle& object) { return py::str(py::type::handle_of(object).attr("__name__")); }

bool is_numpy_scalar(const py::handle& object) { return py::isinstance(object, numpy().attr("generic")); }

// str as UTF-8 (bytes that came in undecodable go out as they were), bytes as they are, anything else as str() of it.
std::string utf8(const py::handle& item) {
  if (py::isinstance<py::bytes>(item)) return item.cast<std::string>();
  const py::str text(item);
  const py::object bytes = text.attr("encode")("utf-8", "surrogateescape");
  return bytes.cast<std::string>();
}

Tensor strings(const py::array& a) {
  Tensor t(DType::kString, shape_of(a));
  std::string* to = t.as<std::string>();
  for (const py::handle item : a.attr("ravel")().attr("tolist")()) *to++ = utf8(item);
  return t;
}

// Is `numpy_name` the integer type that carries the raw bits of an element type that numpy lacks?
bool is_bits_of(const std::string& numpy_name, DType t) {
  for (const Row& row : kRows) if (row.dtype == t) return row.bits && numpy_name == row.bits;
  return false;
}

// numpy.asarray; an object that refuses (a torch tensor with a gradient does) is a wrong argument, and says why.
py::array as_array(const py::handle& object, const py::object& dtype, const std::string& what, DType wanted) {
  try {
    return numpy().attr("asarray")(object, py::arg("dtype") = dtype);
  } catch (py::error_already_set& e) {
    if (!e.matches(PyExc_ValueError) && !e.matches(PyExc_TypeError) && !e.matches(PyExc_OverflowError) &&
        !e.matches(PyExc_RuntimeError))
      throw;
    fail(Code::kInvalidArgument, what, ": expected ", Type::tensor(wanted).str(), ", got a ", type_name(object),
         " that is no array", dtype.is_none() ? "" : " of " + std::string(py::str(dtype)), " (",
         std::string(py::str(e.value())), ")");
  }
}

std::vector<py::ssize_t> extents(const Tensor& t) { return {t.shape().begin(), t.shape().end()}; }

}  // namespace

py::object numpy_dtype(DType t) {
  for (const Row& row : kRows) {
    if (row.dtype != t) continue;
    if (row.numpy) return numpy().attr("dtype")(row.numpy);
    if (!ml_dtypes().is_none() && py::hasattr(ml_dtypes(), row.ml_dtypes))
      return numpy().attr("dtype")(ml_dtypes().attr(row.ml_dtypes));
    return numpy().attr("dtype")(row.bits);
  }
  fail(Code::kNotImplemented, "numpy has nothing for ", dtype_name(t));
}

DType dtype_of_numpy(const py::handle& numpy_dtype) {
  const std::string kind = py::str(numpy_dtype.attr("kind")), name = py::str(numpy_dtype.attr("name"));
  if (kind == "U" || kind == "S" || kind == "O" || kind == "T") return DType::kString;
  for (const Row& row : kRows)
    if (name == (row.numpy ? row.numpy : row.ml_dtypes)) return row.dtype;
  return DType::kUndefined;
}

Tensor to_tensor(const py::handle& object, const std::string& what, DType wanted) {
  py::array a = as_array(object, py::none(), what, wanted);
  DType dtype = dtype_of_numpy(a.dtype());
  const std::string name = py::str(a.dtype());
  if (wanted != DType::kUndefined && dtype != wanted) {
    if (!is_bits_of(name, wanted))
      fail(Code::kInvalidArgument, what, ": expected ", Type::tensor(wanted).str(), ", got ",
           dtype == DType::kUndefined ? "" : Type::tensor(dtype).str() + " (", "an array of ", name,
           dtype == DType::kUndefined ? "" : ")");
    dtype = wanted;
  }
  if (dtype == DType::kUndefined)
    fail(Code::kInvalidArgument, what, ": no tensor has the element type of an array of ", name);
  if (a.ndim() > kMaxRank)
    fail(Code::kInvalidArgument, what, ": an array of ", a.ndim(), " dimensions; tensors have at most ", kMaxRank);
  if (dtype == DType::kString) return strings(a);
  if (!py::bool_(a.dtype().attr("isnative"))) a = a.attr("astype")(a.dtype().attr("newbyteorder")("="));
  const py::object flags = a.attr("flags");
  if (!py::bool_(flags.attr("c_contiguous")) || !py::bool_(flags.attr("aligned")))
    a = numpy().attr("array")(a, py::arg("order") = "C", py::arg("copy") = true);
  const Shape shape = shape_of(a);
  if (const int bits = bits_of(dtype); bits < 8) {
    Tensor t(dtype, shape);
    pack(static_cast<const uint8_t*>(a.data()), t.as<uint8_t>(), t.count(), bits);
    return t;
  }
  void* data = const_cast<void*>(a.data());
  Buffer owner(data, [kept = new py::object(std::move(a))](void*) {
    const py::gil_scoped_acquire gil;
    delete kept;
  });
  return Tensor(dtype, shape, data, std::move(owner));
}

py::object to_numpy(const Tensor& t) {
  if (t.dtype() == DType::kString) {
    py::list items;
    for (int64_t i = 0, n = t.count(); i < n; ++i) {
      const std::string& s = t.as<std::string>()[i];
      PyObject* str = PyUnicode_DecodeUTF8(s.data(), static_cast<Py_ssize_t>(s.size()), "surrogateescape");
      if (!str) throw py::error_already_set();
      items.append(py::reinterpret_steal<py::object>(str));
    }
    py::object a = numpy().attr("empty")(t.count(), py::arg("dtype") = "object");
    a[py::slice(0, static_cast<py::ssize_t>(t.count()), 1)] = items;
    return a.attr("reshape")(py::cast(extents(t)));
  }
  const py::dtype dtype = numpy_dtype(t.dtype());
  if (const int bits = bits_of(t.dtype()); bits < 8) {
    py::array a(dtype, extents(t));
    unpack(t.as<const uint8_t>(), static_cast<uint8_t*>(a.mutable_data()), t.count(), bits, two_complement(t.dtype()));
    return a;
  }
  const py::capsule owner(new Buffer(t.owner()), [](void* p) { delete static_cast<Buffer*>(p); });
  return py::array(dtype, extents(t), t.data(), owner);
}

RuntimeValue to_value(const py::handle& object, const Type& type, const std::string& what) {
  const bool untyped = type.dtype == DType::kUndefined;
  const bool sequence = type.kind == Kind::kSequence || type.kind == Kind::kOptionalSequence;
  if (object.is_none()) {
    if (untyped || type.kind == Kind::kOptional || type.kind == Kind::kOptionalSequence) return {};
    fail(Code::kInvalidArgument, what, ": expected ", type.str(), ", got None");
  }
  if (sequence || (untyped && py::isinstance<py::list>(object))) {
    if (!py::isinstance<py::list>(object) && !py::isinstance<py::tuple>(object))
      fail(Code::kInvalidArgument, what, ": expected ", type.str(), " as a list of arrays, got a ", type_name(object));
    auto s = std::make_shared<Sequence>();
    s->dtype = type.dtype;
    const Type item = Type::tensor(type.dtype);
    for (const py::handle o : object) s->items.push_back(to_value(o, item, cat(what, "[", s->items.size(), "]")).tensor());
    if (untyped) s->dtype = s->items.empty() ? DType::kFloat : s->items[0].dtype();
    return std::shared_ptr<const Sequence>(std::move(s));
  }
  if (untyped) return to_tensor(object, what);
  // What has an element type of its own must have the right one; lists and scalars take it on.
  const bool typed = py::isinstance<py::array>(object) || (py::hasattr(object, "__array__") && !is_numpy_scalar(object));
  if (typed) return to_tensor(object, what, type.dtype);
  const py::array array = as_array(object, numpy_dtype(type.dtype), what, type.dtype);
  return to_tensor(array, what, type.dtype);
}

py::object from_value(const RuntimeValue& value) {
  if (value.empty()) return py::none();
  if (value.is_tensor()) return to_numpy(value.tensor());
  py::list items;
  for (const Tensor& t : value.sequence()->items) items.append(to_numpy(t));
  return items;
}

}  // namespace tiercel::python

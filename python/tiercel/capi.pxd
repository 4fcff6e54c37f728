# Tiercel's C interface for Cython: cimport this, call import_tiercel() once, use the table. No linking.
#
#     from tiercel.capi cimport tiercel_api, import_tiercel
#     cdef const tiercel_api* api = import_tiercel()
#
# Compile with tiercel.get_include() on the include path. Source: csrc/include/tiercel.h, which says what each call does.
from cpython.pycapsule cimport PyCapsule_Import
from libc.stdint cimport int32_t, int64_t, uint32_t


cdef extern from "tiercel.h" nogil:
    ctypedef enum tiercel_status:
        TIERCEL_OK
        TIERCEL_FAIL
        TIERCEL_INVALID_ARGUMENT

    ctypedef enum tiercel_dtype:
        TIERCEL_UNDEFINED
        TIERCEL_FLOAT
        TIERCEL_UINT8
        TIERCEL_INT8
        TIERCEL_UINT16
        TIERCEL_INT16
        TIERCEL_INT32
        TIERCEL_INT64
        TIERCEL_STRING
        TIERCEL_BOOL
        TIERCEL_FLOAT16
        TIERCEL_DOUBLE
        TIERCEL_UINT32
        TIERCEL_UINT64
        TIERCEL_COMPLEX64
        TIERCEL_COMPLEX128
        TIERCEL_BFLOAT16

    ctypedef enum tiercel_kind:
        TIERCEL_TENSOR
        TIERCEL_SEQUENCE
        TIERCEL_OPTIONAL
        TIERCEL_OPTIONAL_SEQUENCE
        TIERCEL_MAP
        TIERCEL_NOTHING

    ctypedef enum tiercel_mode:
        TIERCEL_NONE
        TIERCEL_BUFFER
        TIERCEL_VALUE

    enum: TIERCEL_MAX_RANK
    enum: TIERCEL_ABI

    ctypedef struct tiercel_type:
        int32_t kind
        int32_t dtype
        int32_t rank
        int64_t dims[16]

    ctypedef struct tiercel_options
    ctypedef struct tiercel_session
    ctypedef struct tiercel_value
    ctypedef struct tiercel_control

    ctypedef struct tiercel_arg:
        int32_t mode
        int32_t dtype
        int32_t rank
        const int64_t* dims
        void* data
        tiercel_value* value

    ctypedef struct tiercel_api:
        uint32_t abi
        uint32_t size
        const char* (*version)() noexcept nogil
        const char* (*last_error)() noexcept nogil
        tiercel_status (*options_create)(tiercel_options**) noexcept nogil
        void (*options_free)(tiercel_options*) noexcept nogil
        tiercel_status (*options_set)(tiercel_options*, const char*, const char*) noexcept nogil
        tiercel_status (*session_load)(const char*, const tiercel_options*, tiercel_session**) noexcept nogil
        tiercel_status (*session_load_memory)(const void*, size_t, void (*)(void*) noexcept nogil, void*, const char*,
                                              const tiercel_options*, tiercel_session**) noexcept nogil
        void (*session_free)(tiercel_session*) noexcept nogil
        size_t (*session_num_inputs)(const tiercel_session*) noexcept nogil
        size_t (*session_num_outputs)(const tiercel_session*) noexcept nogil
        const char* (*session_input_name)(const tiercel_session*, size_t) noexcept nogil
        const char* (*session_output_name)(const tiercel_session*, size_t) noexcept nogil
        tiercel_status (*session_input_type)(const tiercel_session*, size_t, tiercel_type*) noexcept nogil
        tiercel_status (*session_output_type)(const tiercel_session*, size_t, tiercel_type*) noexcept nogil
        const char* (*session_input_dim_name)(const tiercel_session*, size_t, int32_t) noexcept nogil
        const char* (*session_output_dim_name)(const tiercel_session*, size_t, int32_t) noexcept nogil
        tiercel_status (*session_output_types)(tiercel_session*, const tiercel_arg*, tiercel_type*) noexcept nogil
        tiercel_status (*session_run)(tiercel_session*, const tiercel_arg*, tiercel_arg*,
                                      const tiercel_control*) noexcept nogil
        tiercel_status (*control_create)(tiercel_control**) noexcept nogil
        void (*control_free)(tiercel_control*) noexcept nogil
        void (*control_terminate)(tiercel_control*, int) noexcept nogil
        tiercel_status (*value_from_buffer)(const tiercel_arg*, tiercel_value**) noexcept nogil
        tiercel_status (*value_from_strings)(int32_t, const int64_t*, const char* const*, const size_t*,
                                             tiercel_value**) noexcept nogil
        tiercel_status (*value_from_items)(int32_t, const tiercel_value* const*, size_t, tiercel_value**) noexcept nogil
        void (*value_free)(tiercel_value*) noexcept nogil
        tiercel_kind (*value_kind)(const tiercel_value*) noexcept nogil
        tiercel_status (*value_view)(const tiercel_value*, tiercel_arg*) noexcept nogil
        tiercel_status (*value_string)(const tiercel_value*, size_t, const char**, size_t*) noexcept nogil
        size_t (*value_count)(const tiercel_value*) noexcept nogil
        tiercel_status (*value_item)(const tiercel_value*, size_t, tiercel_value**) noexcept nogil
        size_t (*session_num_overridable)(const tiercel_session*) noexcept nogil
        const char* (*session_overridable_name)(const tiercel_session*, size_t) noexcept nogil
        tiercel_status (*session_overridable_type)(const tiercel_session*, size_t, tiercel_type*) noexcept nogil
        const char* (*session_overridable_dim_name)(const tiercel_session*, size_t, int32_t) noexcept nogil
        tiercel_status (*session_override)(tiercel_session*, const char* const*, size_t, tiercel_session**) noexcept nogil


cdef inline const tiercel_api* import_tiercel() except NULL:
    """The engine's functions. Raises ImportError when the installed engine is of another ABI."""
    cdef const tiercel_api* api = <const tiercel_api*>PyCapsule_Import("tiercel._core._C_API", 0)
    if api.abi != TIERCEL_ABI or api.size < sizeof(tiercel_api):
        raise ImportError(f"compiled for ABI {TIERCEL_ABI} of tiercel, found {api.abi}; rebuild the extension")
    return api

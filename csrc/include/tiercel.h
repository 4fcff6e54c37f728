/* Tiercel's C interface (C99). Opaque handles, status codes, no exceptions, no global state but a per-thread message.
 *
 *   tiercel_session* s;
 *   if (tiercel_session_load("model.onnx", NULL, &s) != TIERCEL_OK) puts(tiercel_last_error());
 *   int64_t dims[] = {1, 3};  float x[] = {1, 2, 3}, y[3];
 *   tiercel_arg in  = {TIERCEL_BUFFER, TIERCEL_FLOAT, 2, dims, x, NULL};
 *   tiercel_arg out = {TIERCEL_BUFFER, TIERCEL_FLOAT, 2, dims, y, NULL};
 *   if (tiercel_session_run(s, &in, &out, NULL) != TIERCEL_OK) puts(tiercel_last_error());
 *   tiercel_session_free(s);
 *
 * Every function may be called from any thread. A session may run on many threads at once; freeing a handle while another
 * thread uses it is the caller's mistake. Strings that functions return belong to the handle they came from. NULL where a
 * handle or pointer is needed is TIERCEL_INVALID_ARGUMENT, 0 or NULL; a handle's free function takes it. A function that fails leaves its outputs alone, and the session usable.
 */
#ifndef TIERCEL_H
#define TIERCEL_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define TIERCEL_API __attribute__((visibility("default")))
#else
#define TIERCEL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Numbered as onnxruntime's OrtErrorCode. */
typedef enum tiercel_status {
  TIERCEL_OK = 0,
  TIERCEL_FAIL = 1,
  TIERCEL_INVALID_ARGUMENT = 2,
  TIERCEL_NO_SUCHFILE = 3,
  TIERCEL_NO_MODEL = 4,
  TIERCEL_ENGINE_ERROR = 5,
  TIERCEL_RUNTIME_EXCEPTION = 6,
  TIERCEL_INVALID_PROTOBUF = 7,
  TIERCEL_MODEL_LOADED = 8,
  TIERCEL_NOT_IMPLEMENTED = 9,
  TIERCEL_INVALID_GRAPH = 10,
  TIERCEL_EP_FAIL = 11
} tiercel_status;

/* Element types, numbered as ONNX TensorProto.DataType. Types below 8 bits are packed, low bits first. */
typedef enum tiercel_dtype {
  TIERCEL_UNDEFINED = 0,
  TIERCEL_FLOAT = 1,
  TIERCEL_UINT8 = 2,
  TIERCEL_INT8 = 3,
  TIERCEL_UINT16 = 4,
  TIERCEL_INT16 = 5,
  TIERCEL_INT32 = 6,
  TIERCEL_INT64 = 7,
  TIERCEL_STRING = 8,
  TIERCEL_BOOL = 9,
  TIERCEL_FLOAT16 = 10,
  TIERCEL_DOUBLE = 11,
  TIERCEL_UINT32 = 12,
  TIERCEL_UINT64 = 13,
  TIERCEL_COMPLEX64 = 14,
  TIERCEL_COMPLEX128 = 15,
  TIERCEL_BFLOAT16 = 16,
  TIERCEL_FLOAT8E4M3FN = 17,
  TIERCEL_FLOAT8E4M3FNUZ = 18,
  TIERCEL_FLOAT8E5M2 = 19,
  TIERCEL_FLOAT8E5M2FNUZ = 20,
  TIERCEL_UINT4 = 21,
  TIERCEL_INT4 = 22,
  TIERCEL_FLOAT4E2M1 = 23,
  TIERCEL_FLOAT8E8M0 = 24,
  TIERCEL_UINT2 = 25,
  TIERCEL_INT2 = 26
} tiercel_dtype;

/* What a value can be. */
typedef enum tiercel_kind {
  TIERCEL_TENSOR = 0,
  TIERCEL_SEQUENCE = 1,          /* of tensors */
  TIERCEL_OPTIONAL = 2,          /* a tensor or nothing */
  TIERCEL_OPTIONAL_SEQUENCE = 3, /* a sequence or nothing */
  TIERCEL_MAP = 4,
  TIERCEL_NOTHING = 5            /* a value only: an empty optional */
} tiercel_kind;

#define TIERCEL_MAX_RANK 16

/* What is known of an input or output. */
typedef struct tiercel_type {
  int32_t kind;                   /* tiercel_kind */
  int32_t dtype;                  /* tiercel_dtype of the tensor, or of the elements */
  int32_t rank;                   /* -1: not known */
  int64_t dims[TIERCEL_MAX_RANK]; /* extents; -1: not known before the run (see the ..._dim_name functions) */
} tiercel_type;

typedef struct tiercel_options tiercel_options;
typedef struct tiercel_session tiercel_session;
typedef struct tiercel_value tiercel_value;     /* a tensor, a sequence of tensors, or nothing */
typedef struct tiercel_control tiercel_control; /* stops runs from another thread */

/* How an argument of a run is given. */
typedef enum tiercel_mode {
  TIERCEL_NONE = 0,   /* input: an optional one left out; output: not wanted */
  TIERCEL_BUFFER = 1, /* dtype, rank, dims and data: the caller's memory, read or written in place. Not for strings. */
  TIERCEL_VALUE = 2   /* value. Output: the engine makes it and the caller frees it, for shapes that are not known before the
                         run, strings and sequences */
} tiercel_mode;

typedef struct tiercel_arg {
  int32_t mode; /* tiercel_mode */
  int32_t dtype;
  int32_t rank;
  const int64_t* dims; /* rank extents; may be NULL for a scalar */
  void* data;          /* row-major elements, aligned to their size; may be NULL when there are none */
  tiercel_value* value;
} tiercel_arg;

/* ---- About the engine --------------------------------------------------------------------------------------------- */

TIERCEL_API const char* tiercel_version(void); /* "0.1.0" */
/* What the last call that failed on this thread had to say; "" when none did. Valid until the next failure on it. */
TIERCEL_API const char* tiercel_last_error(void);

/* ---- Options ------------------------------------------------------------------------------------------------------ */

TIERCEL_API tiercel_status tiercel_options_create(tiercel_options** out);
TIERCEL_API void tiercel_options_free(tiercel_options* options);
/* Sets one option; an unknown key or a wrong value is TIERCEL_INVALID_ARGUMENT.
 *   threads              of one run; 0: all processors that the process may use (the default)
 *   optimization_level   0 none, 1 basic, 2 extended, 99 all (the default)
 *   disable_pass         name of an optimisation to leave out; may be given again
 *   dimension:NAME       the only extent of the symbolic dimension NAME
 *   optimized_model_path where to write the optimised model as .onnx
 *   profile              1: record the time of every instruction
 *   program_cache        the most sets of input shapes kept prepared (default 256; beyond eight, 8 MiB of them)  */
TIERCEL_API tiercel_status tiercel_options_set(tiercel_options* options, const char* key, const char* value);

/* ---- Sessions ----------------------------------------------------------------------------------------------------- */

/* Loads an .onnx file. options may be NULL; they are copied. */
TIERCEL_API tiercel_status tiercel_session_load(const char* path, const tiercel_options* options, tiercel_session** out);
/* Loads an ONNX model from memory, which is not copied: it must stay until release(context) is called, at the latest by
 * tiercel_session_free and the free of the last value (release may be NULL). Not called when loading fails. folder: where external data lies; NULL: there
 * must be none. */
TIERCEL_API tiercel_status tiercel_session_load_memory(const void* data, size_t size, void (*release)(void* context),
                                                       void* context, const char* folder,
                                                       const tiercel_options* options, tiercel_session** out);
TIERCEL_API void tiercel_session_free(tiercel_session* session);

/* Inputs (without initializers) and outputs, in the model's order. Names are NULL and types TIERCEL_INVALID_ARGUMENT for an
 * index out of range. */
TIERCEL_API size_t tiercel_session_num_inputs(const tiercel_session* session);
TIERCEL_API size_t tiercel_session_num_outputs(const tiercel_session* session);
TIERCEL_API const char* tiercel_session_input_name(const tiercel_session* session, size_t index);
TIERCEL_API const char* tiercel_session_output_name(const tiercel_session* session, size_t index);
TIERCEL_API tiercel_status tiercel_session_input_type(const tiercel_session* session, size_t index, tiercel_type* out);
TIERCEL_API tiercel_status tiercel_session_output_type(const tiercel_session* session, size_t index, tiercel_type* out);
/* The name of a symbolic extent ("batch"); NULL when it is a number or has no name. */
TIERCEL_API const char* tiercel_session_input_dim_name(const tiercel_session* session, size_t index, int32_t axis);
TIERCEL_API const char* tiercel_session_output_dim_name(const tiercel_session* session, size_t index, int32_t axis);

/* Initializers that a run may replace: those that stand among the graph's inputs too, from IR version 4 on. */
TIERCEL_API size_t tiercel_session_num_overridable(const tiercel_session* session);
TIERCEL_API const char* tiercel_session_overridable_name(const tiercel_session* session, size_t index);
TIERCEL_API tiercel_status tiercel_session_overridable_type(const tiercel_session* session, size_t index, tiercel_type* out);
TIERCEL_API const char* tiercel_session_overridable_dim_name(const tiercel_session* session, size_t index, int32_t axis);
/* A session of the same model with `count` of them as inputs, by name; to be freed as any other. They are constants, folded
 * and packed, of the first session still. */
TIERCEL_API tiercel_status tiercel_session_override(tiercel_session* session, const char* const* names, size_t count,
                                                    tiercel_session** out);

/* Types of all outputs for inputs of these shapes (num_inputs arguments, of which data and value are not read but for a
 * value's shape). An output whose shape the data decide keeps -1: run it as TIERCEL_VALUE. */
TIERCEL_API tiercel_status tiercel_session_output_types(tiercel_session* session, const tiercel_arg* inputs,
                                                        tiercel_type* outputs);
/* Runs on num_inputs inputs and fills num_outputs outputs. control may be NULL. */
TIERCEL_API tiercel_status tiercel_session_run(tiercel_session* session, const tiercel_arg* inputs, tiercel_arg* outputs,
                                               const tiercel_control* control);

/* A control's runs fail with TIERCEL_FAIL while terminate is nonzero. */
TIERCEL_API tiercel_status tiercel_control_create(tiercel_control** out);
TIERCEL_API void tiercel_control_free(tiercel_control* control);
TIERCEL_API void tiercel_control_terminate(tiercel_control* control, int terminate);

/* ---- Values ------------------------------------------------------------------------------------------------------- */

/* A tensor: copies the argument's buffer. */
TIERCEL_API tiercel_status tiercel_value_from_buffer(const tiercel_arg* buffer, tiercel_value** out);
/* A tensor of strings; lengths may be NULL when they end with zeros. */
TIERCEL_API tiercel_status tiercel_value_from_strings(int32_t rank, const int64_t* dims, const char* const* strings,
                                                      const size_t* lengths, tiercel_value** out);
/* A sequence of tensors of one element type; the items stay the caller's. */
TIERCEL_API tiercel_status tiercel_value_from_items(int32_t dtype, const tiercel_value* const* items, size_t count,
                                                    tiercel_value** out);
TIERCEL_API void tiercel_value_free(tiercel_value* value);
TIERCEL_API tiercel_kind tiercel_value_kind(const tiercel_value* value); /* TENSOR, SEQUENCE or NOTHING */
/* A tensor's dtype, rank, dims and data (NULL for strings), which live as long as the value. */
TIERCEL_API tiercel_status tiercel_value_view(const tiercel_value* value, tiercel_arg* out);
/* Element `index` of a tensor of strings, zero-terminated beyond its length. */
TIERCEL_API tiercel_status tiercel_value_string(const tiercel_value* value, size_t index, const char** bytes,
                                                size_t* length);
/* Elements of a tensor or items of a sequence; 0 for nothing. */
TIERCEL_API size_t tiercel_value_count(const tiercel_value* value);
/* Item `index` of a sequence as a value of its own, which shares its memory. */
TIERCEL_API tiercel_status tiercel_value_item(const tiercel_value* value, size_t index, tiercel_value** out);

/* ---- The same as a table ------------------------------------------------------------------------------------------ */

/* For those who load the library at run time, and for Cython and C extensions beside the Python package, which holds it in
 * the capsule tiercel._core._C_API. New functions are added at the end; `size` tells which are there. */
#define TIERCEL_ABI 1
typedef struct tiercel_api {
  uint32_t abi;  /* TIERCEL_ABI of the library */
  uint32_t size; /* sizeof(tiercel_api) of the library */
  const char* (*version)(void);
  const char* (*last_error)(void);
  tiercel_status (*options_create)(tiercel_options**);
  void (*options_free)(tiercel_options*);
  tiercel_status (*options_set)(tiercel_options*, const char*, const char*);
  tiercel_status (*session_load)(const char*, const tiercel_options*, tiercel_session**);
  tiercel_status (*session_load_memory)(const void*, size_t, void (*)(void*), void*, const char*, const tiercel_options*,
                                        tiercel_session**);
  void (*session_free)(tiercel_session*);
  size_t (*session_num_inputs)(const tiercel_session*);
  size_t (*session_num_outputs)(const tiercel_session*);
  const char* (*session_input_name)(const tiercel_session*, size_t);
  const char* (*session_output_name)(const tiercel_session*, size_t);
  tiercel_status (*session_input_type)(const tiercel_session*, size_t, tiercel_type*);
  tiercel_status (*session_output_type)(const tiercel_session*, size_t, tiercel_type*);
  const char* (*session_input_dim_name)(const tiercel_session*, size_t, int32_t);
  const char* (*session_output_dim_name)(const tiercel_session*, size_t, int32_t);
  tiercel_status (*session_output_types)(tiercel_session*, const tiercel_arg*, tiercel_type*);
  tiercel_status (*session_run)(tiercel_session*, const tiercel_arg*, tiercel_arg*, const tiercel_control*);
  tiercel_status (*control_create)(tiercel_control**);
  void (*control_free)(tiercel_control*);
  void (*control_terminate)(tiercel_control*, int);
  tiercel_status (*value_from_buffer)(const tiercel_arg*, tiercel_value**);
  tiercel_status (*value_from_strings)(int32_t, const int64_t*, const char* const*, const size_t*, tiercel_value**);
  tiercel_status (*value_from_items)(int32_t, const tiercel_value* const*, size_t, tiercel_value**);
  void (*value_free)(tiercel_value*);
  tiercel_kind (*value_kind)(const tiercel_value*);
  tiercel_status (*value_view)(const tiercel_value*, tiercel_arg*);
  tiercel_status (*value_string)(const tiercel_value*, size_t, const char**, size_t*);
  size_t (*value_count)(const tiercel_value*);
  tiercel_status (*value_item)(const tiercel_value*, size_t, tiercel_value**);
  size_t (*session_num_overridable)(const tiercel_session*);
  const char* (*session_overridable_name)(const tiercel_session*, size_t);
  tiercel_status (*session_overridable_type)(const tiercel_session*, size_t, tiercel_type*);
  const char* (*session_overridable_dim_name)(const tiercel_session*, size_t, int32_t);
  tiercel_status (*session_override)(tiercel_session*, const char* const*, size_t, tiercel_session**);
} tiercel_api;

TIERCEL_API const tiercel_api* tiercel_get_api(void);

#ifdef __cplusplus
}
#endif

#endif /* TIERCEL_H */

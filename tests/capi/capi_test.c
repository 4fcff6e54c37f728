/* The C interface from C99: loading, describing, running in the caller's memory, values that the engine makes, errors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model.h"
#include "tiercel.h"

static int failures = 0;

#define CHECK(condition)                                                                               \
  do {                                                                                                 \
    if (!(condition)) {                                                                                \
      ++failures;                                                                                      \
      printf("FAIL %s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, tiercel_last_error());           \
    }                                                                                                  \
  } while (0)

static tiercel_arg buffer(int32_t dtype, int32_t rank, const int64_t* dims, void* data) {
  tiercel_arg a = {TIERCEL_BUFFER, 0, 0, NULL, NULL, NULL};
  a.dtype = dtype;
  a.rank = rank;
  a.dims = dims;
  a.data = data;
  return a;
}

static tiercel_arg value(tiercel_value* v) {
  tiercel_arg a = {TIERCEL_VALUE, 0, 0, NULL, NULL, NULL};
  a.value = v;
  return a;
}

static const tiercel_arg nothing = {TIERCEL_NONE, 0, 0, NULL, NULL, NULL};

static void describe(const tiercel_session* s) {
  tiercel_type t;
  CHECK(tiercel_session_num_inputs(s) == 4);
  CHECK(tiercel_session_num_outputs(s) == 3);
  CHECK(strcmp(tiercel_session_input_name(s, 0), "x") == 0);
  CHECK(strcmp(tiercel_session_output_name(s, 2), "picked") == 0);
  CHECK(tiercel_session_input_name(s, 4) == NULL);
  CHECK(tiercel_session_input_type(s, 0, &t) == TIERCEL_OK);
  CHECK(t.kind == TIERCEL_TENSOR && t.dtype == TIERCEL_FLOAT && t.rank == 2 && t.dims[0] == -1 && t.dims[1] == 3);
  CHECK(strcmp(tiercel_session_input_dim_name(s, 0, 0), "batch") == 0);
  CHECK(tiercel_session_input_dim_name(s, 0, 1) == NULL);
  CHECK(tiercel_session_input_dim_name(s, 0, 7) == NULL);
  CHECK(tiercel_session_output_type(s, 2, &t) == TIERCEL_OK && t.dtype == TIERCEL_STRING);
  CHECK(strcmp(tiercel_session_output_dim_name(s, 0, 1), "batch") == 0);
  CHECK(tiercel_session_input_type(s, 9, &t) == TIERCEL_INVALID_ARGUMENT);
  CHECK(strstr(tiercel_last_error(), "9") != NULL);
}

static void run(tiercel_session* s) {
  static const char* const words[] = {"none", "one", "two"};
  const int64_t x_dims[] = {2, 3}, shape_dims[] = {2}, three[] = {3}, two[] = {2}, turned_dims[] = {3, 2};
  float x[] = {1, 2, 3, 4, 5, 6}, turned[6] = {0};
  int64_t shape[] = {1, 6}, index[] = {2, 1};
  tiercel_value* text = NULL;
  tiercel_arg in[4], out[3], view;
  tiercel_type types[3];
  const char* bytes = NULL;
  size_t length = 0;
  CHECK(tiercel_value_from_strings(1, three, words, NULL, &text) == TIERCEL_OK);
  in[0] = buffer(TIERCEL_FLOAT, 2, x_dims, x);
  in[1] = buffer(TIERCEL_INT64, 1, shape_dims, shape);
  in[2] = value(text);
  in[3] = buffer(TIERCEL_INT64, 1, two, index);

  CHECK(tiercel_session_output_types(s, in, types) == TIERCEL_OK);
  CHECK(types[0].rank == 2 && types[0].dims[0] == 3 && types[0].dims[1] == 2);
  CHECK(types[1].rank == -1 || types[1].dims[0] == -1); /* the data decide */
  CHECK(types[2].rank == 1 && types[2].dims[0] == 2);

  out[0] = buffer(TIERCEL_FLOAT, 2, turned_dims, turned);
  out[1] = value(NULL);
  out[2] = value(NULL);
  CHECK(tiercel_session_run(s, in, out, NULL) == TIERCEL_OK);
  CHECK(turned[0] == 1 && turned[1] == 4 && turned[5] == 6);
  CHECK(tiercel_value_kind(out[1].value) == TIERCEL_TENSOR && tiercel_value_count(out[1].value) == 6);
  CHECK(tiercel_value_view(out[1].value, &view) == TIERCEL_OK);
  CHECK(view.dtype == TIERCEL_FLOAT && view.rank == 2 && view.dims[0] == 1 && view.dims[1] == 6);
  CHECK(memcmp(view.data, x, sizeof x) == 0);
  CHECK(tiercel_value_string(out[2].value, 0, &bytes, &length) == TIERCEL_OK);
  CHECK(length == 3 && strcmp(bytes, "two") == 0);
  CHECK(tiercel_value_string(out[2].value, 2, &bytes, &length) == TIERCEL_INVALID_ARGUMENT);
  tiercel_value_free(out[1].value);
  tiercel_value_free(out[2].value);

  /* one output wanted; then what is wrong, each time with the session usable after */
  memset(turned, 0, sizeof turned);
  out[1] = nothing;
  out[2] = nothing;
  CHECK(tiercel_session_run(s, in, out, NULL) == TIERCEL_OK && turned[1] == 4);
  {
    const int64_t wrong[] = {2, 4};
    const tiercel_arg good = in[0];
    in[0].dims = wrong;
    CHECK(tiercel_session_run(s, in, out, NULL) == TIERCEL_INVALID_ARGUMENT && strstr(tiercel_last_error(), "x") != NULL);
    in[0] = good;
    in[0].dtype = TIERCEL_DOUBLE;
    CHECK(tiercel_session_run(s, in, out, NULL) == TIERCEL_INVALID_ARGUMENT);
    in[0].dtype = 99;
    CHECK(tiercel_session_run(s, in, out, NULL) == TIERCEL_INVALID_ARGUMENT);
    in[0] = good;
    in[0].rank = 1;
    CHECK(tiercel_session_run(s, in, out, NULL) == TIERCEL_INVALID_ARGUMENT);
    in[0] = good;
    in[0].data = NULL;
    CHECK(tiercel_session_run(s, in, out, NULL) == TIERCEL_INVALID_ARGUMENT);
    in[0] = nothing;
    CHECK(tiercel_session_run(s, in, out, NULL) != TIERCEL_OK);
    in[0] = good;
    out[0].dims = x_dims; /* the result has another shape */
    CHECK(tiercel_session_run(s, in, out, NULL) == TIERCEL_INVALID_ARGUMENT);
    out[0].dims = turned_dims;
  }
  {
    tiercel_control* control = NULL;
    CHECK(tiercel_control_create(&control) == TIERCEL_OK);
    tiercel_control_terminate(control, 1);
    CHECK(tiercel_session_run(s, in, out, control) == TIERCEL_FAIL);
    tiercel_control_terminate(control, 0);
    CHECK(tiercel_session_run(s, in, out, control) == TIERCEL_OK);
    tiercel_control_free(control);
  }
  tiercel_value_free(text);
}

/* NULL for everything that can be NULL: an error that says what was, never a crash. */
static void nulls(void) {
  tiercel_options* o = NULL;
  tiercel_session* s = NULL;
  tiercel_value* v = NULL;
  tiercel_type t;
  tiercel_arg a = nothing;
  const char* bytes = NULL;
  const int64_t dims[] = {1};
  const char* const strings[] = {NULL};
  const tiercel_value* const items[] = {NULL};
  CHECK(tiercel_session_num_inputs(NULL) == 0 && tiercel_session_num_outputs(NULL) == 0);
  CHECK(tiercel_session_input_name(NULL, 0) == NULL && tiercel_session_output_name(NULL, 0) == NULL);
  CHECK(tiercel_session_input_dim_name(NULL, 0, 0) == NULL && tiercel_session_output_dim_name(NULL, 0, 0) == NULL);
  CHECK(tiercel_session_input_type(NULL, 0, &t) == TIERCEL_INVALID_ARGUMENT);
  CHECK(strstr(tiercel_last_error(), "session") != NULL);
  CHECK(tiercel_session_output_type(NULL, 0, &t) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_session_output_types(NULL, &a, &t) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_session_run(NULL, &a, &a, NULL) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_session_load("model.onnx", NULL, NULL) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_session_load_memory(NULL, 7, NULL, NULL, NULL, NULL, &s) == TIERCEL_INVALID_ARGUMENT && s == NULL);
  CHECK(tiercel_session_load_memory(NULL, 0, NULL, NULL, NULL, NULL, &s) == TIERCEL_INVALID_PROTOBUF && s == NULL);
  CHECK(tiercel_options_create(NULL) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_options_set(NULL, "threads", "1") == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_options_create(&o) == TIERCEL_OK);
  CHECK(tiercel_options_set(o, NULL, "1") == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_options_set(o, "threads", NULL) == TIERCEL_INVALID_ARGUMENT);
  tiercel_options_free(o);
  CHECK(tiercel_control_create(NULL) == TIERCEL_INVALID_ARGUMENT);
  tiercel_control_terminate(NULL, 1);
  CHECK(tiercel_value_from_buffer(NULL, &v) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_value_from_buffer(&a, NULL) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_value_from_strings(1, NULL, strings, NULL, &v) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_value_from_strings(1, dims, NULL, NULL, &v) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_value_from_strings(1, dims, strings, NULL, &v) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_value_from_items(TIERCEL_FLOAT, NULL, 1, &v) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_value_from_items(TIERCEL_FLOAT, items, 1, &v) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_value_from_items(99, NULL, 0, &v) == TIERCEL_INVALID_ARGUMENT);
  CHECK(strstr(tiercel_last_error(), "99") != NULL);
  CHECK(tiercel_value_view(NULL, &a) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_value_string(NULL, 0, &bytes, NULL) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_value_item(NULL, 0, &v) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_value_count(NULL) == 0 && v == NULL && bytes == NULL);
  tiercel_session_free(NULL);
  tiercel_options_free(NULL);
  tiercel_control_free(NULL);
}

/* Shapes that no memory could hold. */
static void huge(void) {
  const int64_t overflow[] = {INT64_MAX, INT64_MAX}, large[] = {INT64_MAX / 8}, negative[] = {-1};
  int64_t deep[17];
  float x = 0;
  tiercel_value* v = NULL;
  tiercel_arg a = buffer(TIERCEL_FLOAT, 2, overflow, &x);
  int i;
  for (i = 0; i < 17; ++i) deep[i] = 1;
  CHECK(tiercel_value_from_buffer(&a, &v) != TIERCEL_OK);
  a = buffer(TIERCEL_FLOAT, 1, negative, &x);
  CHECK(tiercel_value_from_buffer(&a, &v) == TIERCEL_INVALID_ARGUMENT && strstr(tiercel_last_error(), "-1") != NULL);
  a = buffer(TIERCEL_FLOAT, 17, deep, &x);
  CHECK(tiercel_value_from_buffer(&a, &v) == TIERCEL_INVALID_ARGUMENT && strstr(tiercel_last_error(), "17") != NULL);
  a = buffer(TIERCEL_FLOAT, -1, deep, &x);
  CHECK(tiercel_value_from_buffer(&a, &v) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_value_from_strings(1, large, (const char* const*)deep, NULL, &v) != TIERCEL_OK);
  CHECK(v == NULL);
}

static void values(void) {
  const int64_t dims[] = {2};
  int32_t data[] = {7, 8};
  tiercel_arg a = buffer(TIERCEL_INT32, 1, dims, data), view;
  tiercel_value *item = NULL, *sequence = NULL, *back = NULL;
  const tiercel_value* items[2];
  CHECK(tiercel_value_from_buffer(&a, &item) == TIERCEL_OK);
  items[0] = items[1] = item;
  CHECK(tiercel_value_from_items(TIERCEL_INT32, items, 2, &sequence) == TIERCEL_OK);
  CHECK(tiercel_value_from_items(TIERCEL_FLOAT, items, 2, &back) == TIERCEL_INVALID_ARGUMENT && back == NULL);
  tiercel_value_free(item);
  CHECK(tiercel_value_kind(sequence) == TIERCEL_SEQUENCE && tiercel_value_count(sequence) == 2);
  CHECK(tiercel_value_view(sequence, &view) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_value_item(sequence, 1, &back) == TIERCEL_OK);
  tiercel_value_free(sequence);
  CHECK(tiercel_value_view(back, &view) == TIERCEL_OK && ((const int32_t*)view.data)[1] == 8);
  tiercel_value_free(back);
  tiercel_value_free(NULL);
  CHECK(tiercel_value_kind(NULL) == TIERCEL_NOTHING);
}

static void options(void) {
  tiercel_options* o = NULL;
  tiercel_session* s = NULL;
  tiercel_type t;
  CHECK(tiercel_options_create(&o) == TIERCEL_OK);
  CHECK(tiercel_options_set(o, "threads", "1") == TIERCEL_OK);
  CHECK(tiercel_options_set(o, "dimension:batch", "2") == TIERCEL_OK);
  CHECK(tiercel_options_set(o, "threads", "many") == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_options_set(o, "nonsense", "1") == TIERCEL_INVALID_ARGUMENT);
  CHECK(strstr(tiercel_last_error(), "nonsense") != NULL);
  CHECK(tiercel_session_load_memory(model_bytes, sizeof model_bytes, NULL, NULL, NULL, o, &s) == TIERCEL_OK);
  tiercel_options_free(o);
  CHECK(tiercel_session_input_type(s, 0, &t) == TIERCEL_OK && t.dims[0] == 2);
  tiercel_session_free(s);
}

/* An initializer that is an input too: a constant of the first session, an input of the other. */
static void overriding(void) {
  const char* const names[] = {"factor"};
  const char* const wrong[] = {"x"};
  const int64_t three[] = {3}, one[] = {1};
  float x[] = {1, 2, 3}, y[3] = {0}, factor[] = {10};
  tiercel_session *s = NULL, *t = NULL;
  tiercel_type type;
  tiercel_arg in[2], out = buffer(TIERCEL_FLOAT, 1, three, y);
  in[0] = buffer(TIERCEL_FLOAT, 1, three, x);
  in[1] = buffer(TIERCEL_FLOAT, 1, one, factor);
  CHECK(tiercel_session_load_memory(overridable_bytes, sizeof overridable_bytes, NULL, NULL, NULL, NULL, &s) == TIERCEL_OK);
  if (!s) return;
  CHECK(tiercel_session_num_inputs(s) == 1 && tiercel_session_num_overridable(s) == 1);
  CHECK(strcmp(tiercel_session_overridable_name(s, 0), "factor") == 0 && tiercel_session_overridable_name(s, 1) == NULL);
  CHECK(tiercel_session_overridable_type(s, 0, &type) == TIERCEL_OK && type.dtype == TIERCEL_FLOAT && type.dims[0] == 1);
  CHECK(tiercel_session_overridable_dim_name(s, 0, 0) == NULL);
  CHECK(tiercel_session_override(s, wrong, 1, &t) == TIERCEL_INVALID_ARGUMENT && strstr(tiercel_last_error(), "\"x\""));
  CHECK(tiercel_session_override(s, names, 0, &t) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_session_override(NULL, names, 1, &t) == TIERCEL_INVALID_ARGUMENT);
  CHECK(tiercel_session_override(s, NULL, 1, &t) == TIERCEL_INVALID_ARGUMENT && t == NULL);
  CHECK(tiercel_session_override(s, names, 1, &t) == TIERCEL_OK);
  CHECK(tiercel_session_run(s, in, &out, NULL) == TIERCEL_OK && y[2] == 6);
  tiercel_session_free(s); /* the other one lives on */
  CHECK(tiercel_session_num_inputs(t) == 2 && strcmp(tiercel_session_input_name(t, 1), "factor") == 0);
  CHECK(tiercel_session_num_overridable(t) == 0);
  CHECK(tiercel_session_run(t, in, &out, NULL) == TIERCEL_OK && y[2] == 30);
  tiercel_session_free(t);
}

static int released = 0;
static void release(void* context) { released += *(int*)context; }

static void loading(void) {
  const char* path = "capi_test_model.onnx";
  tiercel_session* s = NULL;
  int one = 1;
  size_t n;
  FILE* f = fopen(path, "wb");
  CHECK(f && fwrite(model_bytes, 1, sizeof model_bytes, f) == sizeof model_bytes);
  if (f) fclose(f);
  CHECK(tiercel_session_load(path, NULL, &s) == TIERCEL_OK);
  remove(path);
  if (s) describe(s), run(s);
  tiercel_session_free(s);

  s = NULL;
  CHECK(tiercel_session_load_memory(model_bytes, sizeof model_bytes, release, &one, NULL, NULL, &s) == TIERCEL_OK);
  if (s) run(s);
  tiercel_session_free(s);
  CHECK(released == 1); /* by then at the latest */

  s = NULL;
  CHECK(tiercel_session_load("no/such/file.onnx", NULL, &s) == TIERCEL_NO_SUCHFILE && s == NULL);
  CHECK(strstr(tiercel_last_error(), "no/such/file.onnx") != NULL);
  CHECK(tiercel_session_load(NULL, NULL, &s) == TIERCEL_INVALID_ARGUMENT);
  for (n = 0; n < sizeof model_bytes; ++n) { /* truncated anywhere: an error, or by chance a smaller model */
    s = NULL;
    if (tiercel_session_load_memory(model_bytes, n, release, &one, NULL, NULL, &s) == TIERCEL_OK) tiercel_session_free(s), --released;
    else CHECK(tiercel_last_error()[0] != 0);
  }
  CHECK(released == 1); /* a failed load does not release */
}

int main(void) {
  const tiercel_api* api = tiercel_get_api();
  CHECK(api->abi == TIERCEL_ABI && api->size == sizeof(tiercel_api));
  CHECK(strcmp(api->version(), tiercel_version()) == 0);
  loading();
  overriding();
  options();
  values();
  nulls();
  huge();
  printf("%s\n", failures ? "FAILED" : "passed");
  return failures != 0;
}

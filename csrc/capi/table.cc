// The functions as a table, in the order of tiercel.h.
#include "tiercel.h"

const tiercel_api* tiercel_get_api(void) {
  static const tiercel_api table = {
      TIERCEL_ABI,
      sizeof(tiercel_api),
      &tiercel_version,
      &tiercel_last_error,
      &tiercel_options_create,
      &tiercel_options_free,
      &tiercel_options_set,
      &tiercel_session_load,
      &tiercel_session_load_memory,
      &tiercel_session_free,
      &tiercel_session_num_inputs,
      &tiercel_session_num_outputs,
      &tiercel_session_input_name,
      &tiercel_session_output_name,
      &tiercel_session_input_type,
      &tiercel_session_output_type,
      &tiercel_session_input_dim_name,
      &tiercel_session_output_dim_name,
      &tiercel_session_output_types,
      &tiercel_session_run,
      &tiercel_control_create,
      &tiercel_control_free,
      &tiercel_control_terminate,
      &tiercel_value_from_buffer,
      &tiercel_value_from_strings,
      &tiercel_value_from_items,
      &tiercel_value_free,
      &tiercel_value_kind,
      &tiercel_value_view,
      &tiercel_value_string,
      &tiercel_value_count,
      &tiercel_value_item,
  };
  return &table;
}

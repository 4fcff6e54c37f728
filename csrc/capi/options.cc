#include <charconv>
#include <cstring>

#include "capi/handles.h"

namespace tiercel::capi {
namespace {

int64_t number(std::string_view key, std::string_view value, int64_t low, int64_t high) {
  int64_t n = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), n);
  if (error != std::errc() || end != value.data() + value.size() || n < low || n > high)
    fail(Code::kInvalidArgument, "option ", key, ": expected an integer from ", low, " to ", high, ", got \"", value, "\"");
  return n;
}

void set(SessionOptions& o, std::string_view key, std::string_view value) {
  constexpr std::string_view kDimension = "dimension:";
  if (key == "threads") o.threads = static_cast<int>(number(key, value, 0, 1024));
  else if (key == "optimization_level") o.optimization_level = static_cast<int>(number(key, value, 0, 99));
  else if (key == "disable_pass") o.disabled_passes.emplace_back(value);
  else if (key.substr(0, kDimension.size()) == kDimension)
    o.dimension_overrides.emplace_back(key.substr(kDimension.size()), number(key, value, 0, INT64_MAX));
  else if (key == "optimized_model_path") o.optimized_model_path = value;
  else if (key == "profile") o.profile = number(key, value, 0, 1) != 0;
  else if (key == "program_cache") o.program_cache = static_cast<int>(number(key, value, 1, 1 << 20));
  else
    fail(Code::kInvalidArgument, "unknown option ", key, ": the options are threads, optimization_level, disable_pass, "
         "dimension:NAME, optimized_model_path, profile, program_cache");
}

}  // namespace
}  // namespace tiercel::capi

using tiercel::capi::guard;
using tiercel::capi::need;

extern "C" {

tiercel_status tiercel_options_create(tiercel_options** out) {
  return guard([&] {
    need(out, "out");
    *out = new tiercel_options;
  });
}
void tiercel_options_free(tiercel_options* options) { delete options; }

tiercel_status tiercel_options_set(tiercel_options* options, const char* key, const char* value) {
  return guard([&] {
    need(options, "options"), need(key, "key"), need(value, "value");
    tiercel::capi::set(options->options, key, value);
  });
}

}

#include <array>
#include <memory>
#include <vector>

#include "capi/handles.h"
#include "capi/tensor.h"

namespace tiercel::capi {
namespace {

static_assert(TIERCEL_MAX_RANK == kMaxRank && TIERCEL_INT2 + 1 == kNumDTypes);
static_assert(TIERCEL_EP_FAIL == static_cast<int>(Code::kEpFail));
static_assert(TIERCEL_MAP == static_cast<int>(Kind::kMap) && TIERCEL_OPTIONAL == static_cast<int>(Kind::kOptional));

tiercel_type type_of(const Type& t) {
  tiercel_type y = {static_cast<int32_t>(t.kind), static_cast<int32_t>(t.dtype), t.ranked ? t.shape.rank() : -1, {}};
  if (t.ranked) for (int i = 0; i < t.shape.rank(); ++i) y.dims[i] = is_symbol(t.shape[i]) ? -1 : t.shape[i];
  return y;
}

const std::vector<IoInfo>& inputs_of(const Session& s) { return s.inputs(); }
const std::vector<IoInfo>& overridable_of(const Session& s) { return s.overridable(); }
const std::vector<IoInfo>& outputs_of(const Session& s) { return s.outputs(); }
using Side = const std::vector<IoInfo>& (*)(const Session&);

size_t count(const tiercel_session* s, Side side) { return s ? side(*s->session).size() : 0; }

const char* name_of(const tiercel_session* s, Side side, size_t index) {
  return index < count(s, side) ? side(*s->session)[index].name.c_str() : nullptr;
}

tiercel_status type_of(const tiercel_session* s, Side side, size_t index, tiercel_type* out) {
  return guard([&] {
    need(s, "session"), need(out, "out");
    const std::vector<IoInfo>& io = side(*s->session);
    check_index(index, io.size());
    *out = type_of(io[index].type);
  });
}

const char* dim_name(const tiercel_session* s, Side side, size_t index, int32_t axis) {
  if (index >= count(s, side)) return nullptr;
  const Type& t = side(*s->session)[index].type;
  if (!t.ranked || axis < 0 || axis >= t.shape.rank() || !is_symbol(t.shape[axis])) return nullptr;
  const std::string& name = s->session->symbols().name(t.shape[axis]);
  return name.empty() ? nullptr : name.c_str();
}

// n objects: on the stack up to a size that covers nearly every model.
template <class T>
class Few {
 public:
  explicit Few(size_t n) : n_(n), data_(n <= kHere ? here_.data() : (heap_ = std::make_unique<T[]>(n)).get()) {}
  T& operator[](size_t i) { return data_[i]; }
  std::span<T> span() { return {data_, n_}; }

 private:
  static constexpr size_t kHere = 6;
  size_t n_;
  std::array<T, kHere> here_;
  std::unique_ptr<T[]> heap_;
  T* data_;
};

[[noreturn]] void rethrow_naming(const char* what, const std::string& name, const Error& e) {
  fail(e.code(), what, " ", name, ": ", e.what());
}

RuntimeValue value_of(const tiercel_arg& a, const char* what, const std::string& name) {
  switch (a.mode) {
    case TIERCEL_NONE: return {};
    case TIERCEL_BUFFER:
      try { return view_of(a); } catch (const Error& e) { rethrow_naming(what, name, e); }
    case TIERCEL_VALUE: return a.value ? a.value->value : RuntimeValue();
    default: fail(Code::kInvalidArgument, what, " ", name, ": mode ", a.mode, " is none of tiercel_mode");
  }
}

void run(Session& s, const tiercel_arg* inputs, tiercel_arg* outputs, RunControl* control) {
  const size_t n_in = s.inputs().size(), n_out = s.outputs().size();
  Few<RuntimeValue> in(n_in), out(n_out);
  Few<bool> wanted(n_out);
  bool all = true;
  for (size_t i = 0; i < n_in; ++i) in[i] = value_of(inputs[i], "input", s.inputs()[i].name);
  for (size_t i = 0; i < n_out; ++i) {
    wanted[i] = outputs[i].mode != TIERCEL_NONE;
    all &= wanted[i];
    if (outputs[i].mode != TIERCEL_VALUE) out[i] = value_of(outputs[i], "output", s.outputs()[i].name);
  }
  s.run(in.span(), out.span(), all ? std::span<const bool>() : wanted.span(), control);
  Few<std::unique_ptr<tiercel_value>> made(n_out);  // all of them, or none
  for (size_t i = 0; i < n_out; ++i)
    if (outputs[i].mode == TIERCEL_VALUE) made[i] = std::make_unique<tiercel_value>(tiercel_value{std::move(out[i])});
  for (size_t i = 0; i < n_out; ++i)
    if (made[i]) outputs[i].value = made[i].release();
}

void output_types(Session& s, const tiercel_arg* inputs, tiercel_type* outputs) {
  const size_t n_in = s.inputs().size(), n_out = s.outputs().size();
  Few<Shape> shapes(n_in);
  Few<Type> types(n_out);
  for (size_t i = 0; i < n_in; ++i) {
    const tiercel_arg& a = inputs[i];
    if (a.mode == TIERCEL_BUFFER) {
      try { shapes[i] = shape_of(a.rank, a.dims); } catch (const Error& e) { rethrow_naming("input", s.inputs()[i].name, e); }
    } else if (a.mode == TIERCEL_VALUE && a.value && a.value->value.is_tensor()) {
      shapes[i] = a.value->value.tensor().shape();
    }
  }
  s.output_types(shapes.span(), types.span());
  for (size_t i = 0; i < n_out; ++i) outputs[i] = type_of(types[i]);
}

template <class Load>
tiercel_status make(tiercel_session** out, const Load& load) {
  return guard([&] {
    need(out, "out");
    *out = new tiercel_session(load());
  });
}

const SessionOptions& or_default(const tiercel_options* options) {
  static const SessionOptions none;
  return options ? options->options : none;
}

}  // namespace
}  // namespace tiercel::capi

using namespace tiercel;
using capi::guard;
using capi::need;

extern "C" {

tiercel_status tiercel_session_load(const char* path, const tiercel_options* options, tiercel_session** out) {
  return capi::make(out, [&] {
    need(path, "path");
    return std::make_unique<Session>(std::string(path), capi::or_default(options));
  });
}

tiercel_status tiercel_session_load_memory(const void* data, size_t size, void (*release)(void*), void* context,
                                           const char* folder, const tiercel_options* options, tiercel_session** out) {
  return capi::make(out, [&] {
    if (size) need(data, "data");
    struct Owner {
      void (*release)(void*) = nullptr;
      void* context = nullptr;
      ~Owner() { if (release) release(context); }
    };
    auto owner = std::make_shared<Owner>();
    auto session = std::make_unique<Session>(data, size, owner, folder ? folder : "", capi::or_default(options));
    owner->release = release;  // only now: a failed load must not release
    owner->context = context;
    return session;
  });
}

void tiercel_session_free(tiercel_session* session) { delete session; }

size_t tiercel_session_num_inputs(const tiercel_session* s) { return capi::count(s, capi::inputs_of); }
size_t tiercel_session_num_outputs(const tiercel_session* s) { return capi::count(s, capi::outputs_of); }
const char* tiercel_session_input_name(const tiercel_session* s, size_t i) { return capi::name_of(s, capi::inputs_of, i); }
const char* tiercel_session_output_name(const tiercel_session* s, size_t i) { return capi::name_of(s, capi::outputs_of, i); }
tiercel_status tiercel_session_input_type(const tiercel_session* s, size_t i, tiercel_type* out) {
  return capi::type_of(s, capi::inputs_of, i, out);
}
tiercel_status tiercel_session_output_type(const tiercel_session* s, size_t i, tiercel_type* out) {
  return capi::type_of(s, capi::outputs_of, i, out);
}
const char* tiercel_session_input_dim_name(const tiercel_session* s, size_t i, int32_t axis) {
  return capi::dim_name(s, capi::inputs_of, i, axis);
}
const char* tiercel_session_output_dim_name(const tiercel_session* s, size_t i, int32_t axis) {
  return capi::dim_name(s, capi::outputs_of, i, axis);
}

size_t tiercel_session_num_overridable(const tiercel_session* s) { return capi::count(s, capi::overridable_of); }
const char* tiercel_session_overridable_name(const tiercel_session* s, size_t i) { return capi::name_of(s, capi::overridable_of, i); }
tiercel_status tiercel_session_overridable_type(const tiercel_session* s, size_t i, tiercel_type* out) {
  return capi::type_of(s, capi::overridable_of, i, out);
}
const char* tiercel_session_overridable_dim_name(const tiercel_session* s, size_t i, int32_t axis) {
  return capi::dim_name(s, capi::overridable_of, i, axis);
}
tiercel_status tiercel_session_override(tiercel_session* s, const char* const* names, size_t count, tiercel_session** out) {
  return capi::make(out, [&] {
    need(s, "session");
    if (count) need(names, "names");
    std::vector<std::string> list;
    for (size_t i = 0; i < count; ++i) {
      need(names[i], "a name");
      list.emplace_back(names[i]);
    }
    if (list.empty()) fail(Code::kInvalidArgument, "no initializer is named");
    return s->session->with_inputs(list);
  });
}

tiercel_status tiercel_session_output_types(tiercel_session* s, const tiercel_arg* inputs, tiercel_type* outputs) {
  return guard([&] {
    need(s, "session");
    if (!s->session->inputs().empty()) need(inputs, "inputs");
    if (!s->session->outputs().empty()) need(outputs, "outputs");
    capi::output_types(*s->session, inputs, outputs);
  });
}

tiercel_status tiercel_session_run(tiercel_session* s, const tiercel_arg* inputs, tiercel_arg* outputs,
                                   const tiercel_control* control) {
  return guard([&] {
    need(s, "session");
    if (!s->session->inputs().empty()) need(inputs, "inputs");
    if (!s->session->outputs().empty()) need(outputs, "outputs");
    capi::run(*s->session, inputs, outputs, control ? const_cast<RunControl*>(&control->control) : nullptr);
  });
}

tiercel_status tiercel_control_create(tiercel_control** out) {
  return guard([&] {
    need(out, "out");
    *out = new tiercel_control;
  });
}
void tiercel_control_free(tiercel_control* control) { delete control; }
void tiercel_control_terminate(tiercel_control* control, int terminate) {
  if (control) control->control.terminate.store(terminate != 0, std::memory_order_relaxed);
}

}

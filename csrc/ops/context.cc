#include "ops/context.h"

#include <algorithm>
#include <cstring>

namespace tiercel {
namespace {

// "Conv node "x": <message>; inputs: X tensor(float)[1,3,8,8], W tensor(float)[4,2,3,3]"
std::string describe(const Node& node, const std::string& message, std::span<const ValueInfo* const> in) {
  std::string s = node.label() + ": " + message;
  if (in.empty()) return s;
  s += "; inputs: ";
  for (size_t i = 0; i < in.size(); ++i) {
    if (i) s += ", ";
    if (!in[i]) { s += "-"; continue; }
    if (i < node.inputs.size() && node.inputs[i]) s += "\"" + node.inputs[i]->name + "\" ";
    s += in[i]->type.str();
  }
  return s;
}

std::optional<std::vector<Dim>> known_elements(const ValueInfo* info) {
  if (!info) return std::nullopt;
  if (info->ints) return info->ints;
  const Tensor* t = info->constant;
  if (!t || !(is_integer(t->dtype()) || t->dtype() == DType::kBool) || bits_of(t->dtype()) < 8) return std::nullopt;
  auto v = t->ints();
  for (int64_t x : v) if (is_symbol(x)) return std::nullopt;  // near INT64_MIN: a number that would be taken for a symbol
  return v;
}

}  // namespace

bool ValueInfo::known_ints() const {
  if (!ints) return false;
  for (Dim d : *ints) if (is_symbol(d)) return false;
  return true;
}

const ValueInfo& InferContext::input(int i) const {
  if (!has_input(i)) raise(cat("input ", i, " is required"));
  return *in_[i];
}

std::optional<std::vector<Dim>> InferContext::ints(int i) const {
  return has_input(i) ? known_elements(in_[i]) : std::nullopt;
}

void InferContext::set_output(int i, Type type) {
  if (has_output(i)) out_[i].type = std::move(type);
}

void InferContext::set_ints(int i, std::vector<Dim> values) {
  if (has_output(i) && static_cast<int64_t>(values.size()) <= kMaxKnownInts) out_[i].ints = std::move(values);
}

int InferContext::axis(int64_t a, int rank) const {
  const int n = normalize_axis(a, rank);
  if (n < 0) raise(cat("axis ", a, " is outside [", -rank, ", ", rank - 1, "]"));
  return n;
}

void InferContext::raise(const std::string& message) const { throw Error(Code::kInvalidGraph, describe(node, message, in_)); }
void PrepareContext::raise(const std::string& message) const { throw Error(Code::kRuntimeException, describe(node, message, in_)); }
void EvalContext::raise(const std::string& message) const { throw Error(Code::kRuntimeException, node.label() + ": " + message); }

std::optional<std::vector<Dim>> PrepareContext::ints(int i) const {
  return has_input(i) ? known_elements(in_[i]) : std::nullopt;
}

Buffer PrepareContext::pack(int i, const std::string& key, const std::function<Buffer(const Tensor&)>& make) const {
  const Tensor* t = constant(i);
  if (!t) raise(cat("input ", i, " should be a constant"));
  const Value* v = i < static_cast<int>(node.inputs.size()) ? node.inputs[i] : nullptr;
  if (!v || !v->is_constant()) return make(*t);  // folded in this Program alone
  return packs_.get(v, key, [&] { return make(t->transient([this](int64_t n, int64_t grain, const auto& f) { split(n, grain, f); })); });
}

void PackCache::split(int64_t n, int64_t grain, const std::function<void(int64_t, int64_t)>& f) { Worker().parallel_for(n, grain, f); }

const Tensor& EvalContext::tensor(int i) const {
  if (!has_input(i)) raise(cat("input ", i, " is required"));
  if (!in_[i].is_tensor()) raise(cat("input ", i, " should be a tensor, not a sequence"));
  return in_[i].tensor();
}

namespace {
Tensor owned(const Tensor& t) {
  if (t.owner() || !t.defined()) return t;
  Tensor copy(t.dtype(), t.shape(), t.layout());
  if (t.dtype() == DType::kString) std::copy_n(t.as<std::string>(), t.count(), copy.as<std::string>());
  else if (t.bytes()) std::memcpy(copy.data(), t.data(), static_cast<size_t>(t.bytes()));
  return copy;
}
}  // namespace

void EvalContext::set(int i, RuntimeValue v) {
  if (v.is_tensor()) v = owned(v.tensor());
  if (v.is_sequence()) {
    const auto& items = v.sequence()->items;
    if (std::any_of(items.begin(), items.end(), [](const Tensor& t) { return !t.owner(); })) {
      auto copy = std::make_shared<Sequence>(*v.sequence());
      for (Tensor& t : copy->items) t = owned(t);
      v = RuntimeValue(std::shared_ptr<const Sequence>(std::move(copy)));
    }
  }
  out_[i] = std::move(v);
}

Dim unify(const InferContext& ctx, Dim a, Dim b, const char* what) {
  if (a >= 0 && b >= 0 && a != b) ctx.fail(what, " should be equal, got ", a, " and ", b);
  return a >= 0 ? a : b >= 0 ? b : a;
}

Shape broadcast_shapes(const InferContext& ctx, const Shape& a, const Shape& b) {
  const Shape &l = a.rank() >= b.rank() ? a : b, &s = a.rank() >= b.rank() ? b : a;
  Shape r = l;
  const int skip = l.rank() - s.rank();
  for (int i = 0; i < s.rank(); ++i) {
    const Dim x = l[skip + i], y = s[i];
    Dim& d = r[skip + i];
    if (x == y || y == 1) d = x;
    else if (x == 1) d = y;
    else if (x >= 0 && y >= 0) ctx.fail("shapes ", a.str(), " and ", b.str(), " do not broadcast");
    else if (x >= 0 || y >= 0) d = x >= 0 ? x : y;  // the other must be 1 or equal, and the known one is not 1
    else d = ctx.fresh();
  }
  return r;
}

}  // namespace tiercel

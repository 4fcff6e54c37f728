#include "ops/grad.h"

#include <map>

namespace tiercel {
namespace {

using Key = std::pair<std::string_view, std::string_view>;  // domain, name

std::map<Key, GradRow>& rows() {
  static auto* const r = new std::map<Key, GradRow>;  // never destroyed, as the operators' rows
  return *r;
}

}  // namespace

GradRegistration::GradRegistration(std::initializer_list<GradRow> list) {
  for (const GradRow& row : list)
    if (!rows().emplace(Key{row.domain, row.name}, row).second)
      fail(Code::kFail, "the gradient of ", row.domain, ".", row.name, " is registered twice");
}

const GradRow* find_grad(std::string_view name, std::string_view domain) {
  if (domain == "ai.onnx") domain = "";
  const auto it = rows().find({domain, name});
  return it == rows().end() ? nullptr : &it->second;
}

std::vector<const GradRow*> all_grads() {
  std::vector<const GradRow*> all;
  for (const auto& [key, row] : rows()) all.push_back(&row);
  return all;
}

void grad_rewritten(GradContext& c) {
  c.fail("it is that of the standard operators that this one stands for, but it could not be written as those: ranks, heads and hidden sizes should be "
         "known when the graph is built");
}

void GradContext::raise(const std::string& message) const {
  throw Error(Code::kNotImplemented, node.label() + ": gradient: " + message);
}

int GradContext::rank(Value* v) const {
  if (!w.ranked(v)) raise(cat("the rank of \"", v->name, "\" should be known"));
  return w.shape(v).rank();
}

std::vector<int64_t> GradContext::ints(int i, const char* what) const {
  if (has(i)) {
    const ValueInfo& info = w.info(x(i));
    if (info.constant) return info.constant->ints();
    if (info.known_ints()) return *info.ints;
  }
  raise(cat("the ", what, " (input ", i, ") should be known when the graph is built"));
}

int GradContext::axis(int64_t a, int rank) const {
  const int n = normalize_axis(a, rank);
  if (n < 0) raise(cat("axis ", a, " is outside [", -rank, ", ", rank - 1, "]"));
  return n;
}

}  // namespace tiercel

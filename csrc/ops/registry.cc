#include "ops/registry.h"

#include <algorithm>
#include <map>

namespace tiercel {
namespace {

using Key = std::pair<std::string_view, std::string_view>;  // domain, name

std::map<Key, std::vector<OpRow>>& rows() {
  static auto* const r = new std::map<Key, std::vector<OpRow>>;  // never destroyed: sessions may outlive static objects
  return *r;
}

}  // namespace

OpRegistration::OpRegistration(std::initializer_list<OpRow> list) {
  for (OpRow row : list) {
    if (row.domain == "ai.onnx") row.domain = "";
    auto& versions = rows()[{row.domain, row.name}];
    auto at = std::find_if(versions.begin(), versions.end(), [&](const OpRow& r) { return r.since >= row.since; });
    if (at != versions.end() && at->since == row.since)
      fail(Code::kFail, "operator ", row.domain, ".", row.name, " is registered twice for opset ", row.since);
    versions.insert(at, row);
  }
}

const OpRow* find_op(std::string_view name, std::string_view domain, int opset) {
  if (domain == "ai.onnx") domain = "";
  const auto it = rows().find({domain, name});
  if (it == rows().end()) return nullptr;
  const OpRow* best = nullptr;
  for (const OpRow& r : it->second) if (r.since <= opset) best = &r;
  return best;
}

const OpRow& op_of(const Node& node) {
  if (const OpRow* row = find_op(node.op_type, node.domain, node.opset)) return *row;
  fail(Code::kNotImplemented, node.label(), ": this operator is not supported (opset ", node.opset, ")");
}

std::vector<const OpRow*> all_ops() {
  std::vector<const OpRow*> all;
  for (const auto& [key, versions] : rows()) for (const OpRow& r : versions) all.push_back(&r);
  return all;
}

}  // namespace tiercel

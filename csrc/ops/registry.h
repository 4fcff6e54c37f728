// The operator registry: a row for each operator and each opset at which its meaning changes.
#pragma once
#include <string_view>
#include <vector>

#include "ops/context.h"

namespace tiercel {

using InferFn = void (*)(InferContext&);
using PrepareFn = void (*)(PrepareContext&);
using EvalFn = void (*)(EvalContext&, Worker&);

inline constexpr const char* kTiercelDomain = "ai.tiercel";  // fused and layout operators that passes make
inline constexpr const char* kMicrosoftDomain = "com.microsoft";

enum OpFlags : int {
  kNone = 0,
  kRandom = 1,       // never folded, never merged (RandomNormal, Dropout in training, ...)
  kCollective = 2,   // eval() is called by every thread of the team, not by thread 0 alone (control flow)
  kAnyLayout = 4,    // accepts inputs in NCHW16c and gives its outputs in the layout its infer says
  kUpdates = 8,      // changes inputs in place (PrepareContext::updates): stands after all that reads them, and as soon as it can
};

struct OpRow {
  std::string_view name;
  std::string_view domain;
  int since;          // serves opsets from this one up to the next row of the same name
  InferFn infer;
  PrepareFn prepare;  // null: eval only
  EvalFn eval = nullptr;
  int flags = kNone;
};

// static const OpRegistration rows({{"Relu", "", 6, infer, prepare}, ...});  at the end of an operator's file
class OpRegistration {
 public:
  OpRegistration(std::initializer_list<OpRow> rows);
};

// The row that serves an operator at an opset; null when there is none.
const OpRow* find_op(std::string_view name, std::string_view domain, int opset);
// The row of a node, or an Error(kNotImplemented) that names it.
const OpRow& op_of(const Node& node);
std::vector<const OpRow*> all_ops();  // sorted by domain, name, since

}  // namespace tiercel

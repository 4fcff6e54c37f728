// Computing one node at once: constant folding, operators whose input shapes are known only as they run, and tests.
#pragma once
#include <vector>

#include "ops/registry.h"

namespace tiercel {

// Infers, prepares and runs `node` on one thread; inputs and outputs in the node's order (empty where left out).
// Body-less operators only, unless `bodies` is given.
std::vector<RuntimeValue> evaluate(const Node& node, const std::vector<RuntimeValue>& inputs, BodyRunner* bodies = nullptr);

// The same with every input a constant and every output inferred, their shapes known; for operators that prepare.
std::vector<Tensor> evaluate_inferred(const Node& node, const OpRow& row, std::span<const ValueInfo* const> in, std::span<const ValueInfo> out);

// A node's kernel for shapes that have just become known, with what it needs to run.
struct Prepared {
  std::vector<Type> outputs;
  std::vector<std::pair<int, int>> aliases;
  std::unique_ptr<Kernel> kernel;  // null when all outputs are aliases
  int64_t workspace = 0;
  std::optional<Cost> cost;
  bool serial = false;
};
// `in`: null where left out. Throws when an output shape is still unknown (use the operator's eval).
Prepared prepare_node(const Node& node, const OpRow& row, std::span<const ValueInfo* const> in, SymbolTable& symbols,
                      PackCache& packs, int threads = 1);

}  // namespace tiercel

// ai.tiercel.Pointwise: several elementwise operators as one, run over tiles that stay in L1.
//
// Attributes, an element for each step: `ops` (names: a Unary, a Binary or an activation), `operands` (two register numbers a
// step, the second -1 for steps of one operand) and `params` (alpha and beta of activations; two a step). Registers: the inputs,
// then the result of each step; the last is the output. All in f32; inputs broadcast to the output's shape, which is theirs together.
#pragma once
#include <optional>
#include <vector>

#include "kernels/pointwise/binary.h"
#include "kernels/pointwise/unary.h"
#include "ops/context.h"

namespace tiercel {

struct PointwiseStep {
  enum Kind : uint8_t { kUnary, kBinary, kActivation } kind = kUnary;
  Unary unary{};
  Binary binary{};
  Activation activation;
  int a = -1, b = -1;  // registers
  int operands() const { return kind == kBinary ? 2 : 1; }
  double flops() const;  // of an element
};

// What a node does as a step (registers left open); nullopt when it cannot be one. Its operands are its first inputs.
std::optional<PointwiseStep> pointwise_step(const Node& node);

// Steps to and from the attributes of a node. The second throws Error(kInvalidGraph) for what does not make sense.
void set_pointwise_steps(Node& node, const std::vector<PointwiseStep>& steps);
std::vector<PointwiseStep> pointwise_steps(const Node& node);

}  // namespace tiercel

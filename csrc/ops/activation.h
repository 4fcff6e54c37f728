// Activations as attributes of fused operators, and pointwise nodes as activations: what fusion passes and fused operators share.
//
// A fused node carries `activation` (a name below; absent: none), `activation_alpha` and `activation_beta`; one that holds several, others
// under a prefix.
#pragma once
#include <optional>
#include <string_view>

#include "graph/graph.h"
#include "kernels/activation.h"

namespace tiercel {

// "Relu", "LeakyRelu", ...: the ONNX operator of that formula where there is one; else "GeluTanh", "Silu".
std::string_view activation_name(ActivationKind kind);
std::optional<ActivationKind> activation_kind(std::string_view name);

// The attributes of a fused node. An unknown name is an Error(kInvalidGraph).
Activation activation_of(const Node& node, std::string_view prefix = "");
void set_activation(Node& node, const Activation& activation, std::string_view prefix = "");

// A pointwise node as the activation of its first input, when it is one (Clip with constant bounds, Gelu of either kind, ...);
// nullopt otherwise. Only the node's attributes and constant inputs are looked at.
std::optional<Activation> as_activation(const Node& node);

}  // namespace tiercel

#include "ops/activation.h"

#include <limits>

#include "ops/registry.h"

namespace tiercel {
namespace {

using K = ActivationKind;
constexpr std::string_view kNames[kNumActivations] = {
    "None", "Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "Gelu", "GeluTanh", "Silu", "HardSigmoid", "HardSwish", "Elu",
    "Selu", "Celu", "Softplus", "Softsign", "ThresholdedRelu", "Mish", "Affine", "ScaledTanh"};

// A Clip bound: an attribute before opset 11, then an optional scalar input; nullopt when it is not known.
std::optional<float> bound(const Node& node, int input, const char* attribute, float otherwise) {
  if (node.opset < 11) return node.attr_float(attribute, otherwise);
  const Value* v = node.input(input);
  if (!v) return otherwise;
  if (!v->is_constant() || v->constant.dtype() != DType::kFloat || v->constant.count() != 1) return std::nullopt;
  return v->constant.as<float>()[0];
}

std::optional<Activation> onnx_activation(const Node& node) {
  const auto kind = activation_kind(node.op_type);
  const auto alpha = [&](float otherwise) { return node.attr_float("alpha", otherwise); };
  if (node.op_type == "Swish") return Activation{K::kSilu, alpha(1)};
  if (!kind) return std::nullopt;
  switch (*kind) {
    case K::kRelu: case K::kSigmoid: case K::kTanh: case K::kSoftplus: case K::kSoftsign: case K::kMish:
      return Activation{*kind};
    case K::kLeakyRelu: return Activation{*kind, alpha(0.01f)};
    case K::kElu: case K::kCelu: case K::kThresholdedRelu: return Activation{*kind, alpha(1)};
    case K::kSelu: return Activation{*kind, alpha(1.67326319217681884765625f), node.attr_float("gamma", 1.05070102214813232421875f)};
    case K::kHardSigmoid: return Activation{*kind, alpha(0.2f), node.attr_float("beta", 0.5f)};
    case K::kHardSwish: return Activation{*kind, 1.0f / 6, 0.5f};
    case K::kGelu: return Activation{node.attr_string("approximate", "none") == "tanh" ? K::kGeluTanh : K::kGelu};
    case K::kClip: {
      const auto low = bound(node, 1, "min", std::numeric_limits<float>::lowest());
      const auto high = bound(node, 2, "max", std::numeric_limits<float>::max());
      if (!low || !high) return std::nullopt;
      return Activation{*kind, *low, *high};
    }
    default: return std::nullopt;
  }
}

}  // namespace

std::string_view activation_name(ActivationKind kind) { return kNames[static_cast<int>(kind)]; }

std::optional<ActivationKind> activation_kind(std::string_view name) {
  for (int i = 0; i < kNumActivations; ++i) if (kNames[i] == name) return static_cast<ActivationKind>(i);
  return std::nullopt;
}

Activation activation_of(const Node& node, std::string_view prefix) {
  std::string key(prefix);
  key += "activation";
  if (!node.has(key)) return {};
  const std::string name = node.attr_string(key, "");
  if (name.empty()) return {};
  const auto kind = activation_kind(name);
  if (!kind) fail(Code::kInvalidGraph, node.label(), ": activation \"", name, "\" is not known");
  return {*kind, node.attr_float(key + "_alpha", 0), node.attr_float(key + "_beta", 0)};
}

void set_activation(Node& node, const Activation& a, std::string_view prefix) {
  node.set(cat(prefix, "activation"), std::string(activation_name(a.kind)));
  node.set(cat(prefix, "activation_alpha"), a.alpha);
  node.set(cat(prefix, "activation_beta"), a.beta);
}

std::optional<Activation> as_activation(const Node& node) {
  if (node.domain.empty() || node.domain == "ai.onnx") return onnx_activation(node);
  if (node.domain == kTiercelDomain) {
    if (node.op_type == "Silu") return Activation{K::kSilu, node.attr_float("alpha", 1)};
    return std::nullopt;
  }
  if (node.domain == kMicrosoftDomain) {
    if (node.op_type == "Gelu") return Activation{K::kGelu};
    if (node.op_type == "FastGelu" && !node.input(1)) return Activation{K::kGeluTanh};
    if (node.op_type == "QuickGelu") return Activation{K::kSilu, node.attr_float("alpha", 1.702f)};
  }
  return std::nullopt;
}

}  // namespace tiercel

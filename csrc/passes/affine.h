// Affine maps of channels: what inference-time BatchNormalization is, and what a convolution or a product takes into its weights.
#pragma once
#include <cmath>
#include <optional>
#include <vector>

#include "graph/graph.h"

namespace tiercel {

// y = scale x + shift, for each channel.
struct Affine {
  std::vector<double> scale, shift;
  explicit Affine(int64_t n) : scale(static_cast<size_t>(n), 1), shift(static_cast<size_t>(n), 0) {}
};

// Of a BatchNormalization with constant statistics for `channels` channels; nullopt of one that trains or is more than that.
inline std::optional<Affine> batch_norm(const Node* bn, int64_t channels) {
  if (bn->inputs.size() != 5 || bn->attr_int("training_mode", 0) || bn->attr_int("spatial", 1) == 0) return std::nullopt;
  if (bn->opset < 7 && bn->attr_int("is_test", 0) == 0) return std::nullopt;
  for (size_t i = 1; i < bn->outputs.size(); ++i)
    if (bn->outputs[i]) return std::nullopt;
  std::vector<double> p[5];
  for (int i = 1; i < 5; ++i) {
    const Value* v = bn->inputs[i];
    if (!v || !v->is_constant() || v->constant.dtype() != DType::kFloat || v->constant.count() != channels) return std::nullopt;
    p[i] = v->constant.doubles();
  }
  const double epsilon = bn->attr_float("epsilon", 1e-5f);
  Affine a(channels);
  for (size_t c = 0; c < static_cast<size_t>(channels); ++c) {
    a.scale[c] = p[1][c] / std::sqrt(p[4][c] + epsilon);
    a.shift[c] = p[2][c] - p[3][c] * a.scale[c];
  }
  return a;
}

}  // namespace tiercel

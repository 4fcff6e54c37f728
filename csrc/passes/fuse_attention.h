// Scaled dot-product attention, however it is spelled, becomes ai.tiercel.Attention.
#pragma once
#include "graph/graph.h"

namespace tiercel {

// MatMul(softmax(scale * MatMul(Q, K^T) + mask), V) in f32, with the scale on the scores, on Q, on K or on both, as Mul or Div; an additive
// mask or Where(condition, scores, -inf); Where(IsNaN(p), 0, p) after the softmax; heads split and merged by Transpose, which
// become strides.
void fuse_attention(Graph& graph);

}  // namespace tiercel

// Scaled dot-product attention, however it is spelled, becomes ai.tiercel.Attention.
#pragma once
#include "graph/graph.h"

namespace tiercel {

// MatMul(softmax(scale * MatMul(Q, K^T) + masks), V) in f32. The scale may stand on the scores, on Q, on K or on several; a mask may be
// added, subtracted or a Where with a very low number, in any number and order; Where(IsNaN(p), 0, p) may follow the softmax.
// Batch and heads may be two axes or one, or change from one to the other between products. Heads split and merged by
// Transpose become strides, heads of K and V repeated for groups of queries are not repeated.
void fuse_attention(Graph& graph);
// The same Transposes and repetitions around an Attention, where they can be seen only once types are inferred through it.
void attention_heads(Graph& graph);

}  // namespace tiercel

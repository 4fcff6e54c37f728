// Operators that say what others say better, rewritten as those, which the rest of the passes know.
#pragma once
#include "graph/graph.h"

namespace tiercel {

// Einsum as Transpose, MatMul (Mul where nothing is summed over) and Reshape, two operands at a time. What needs more than that
// (diagonals, several unknown extents to merge) stays.
void expand_einsum(Graph& graph);

// Operators of com.microsoft, which onnxruntime's transformer optimizer writes, as standard ones; its attention likewise.
void expand_microsoft(Graph& graph);
void expand_microsoft_attention(Graph& graph);
void expand_microsoft_grouped(Graph& graph);
// ONNX's Attention as the products, masks and softmax that it stands for. fuse_attention makes one operator of what it can.
void expand_attention(Graph& graph);
// ONNX's RotaryEmbedding as the pointwise operators that it stands for.
void expand_rotary(Graph& graph);

}  // namespace tiercel

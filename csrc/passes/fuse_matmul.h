// What surrounds a matrix product becomes part of it: transposed operands, a scale, addends, an activation.
#pragma once
#include "graph/graph.h"

namespace tiercel {

// Around MatMul, Gemm and ai.tiercel.FusedMatMul in f32; the result is ai.tiercel.FusedMatMul:
//   Transpose of the last two axes -> A or B                  transA, transB
//   -> Mul by a scalar, Div by a power of two                  alpha
//   -> Add of what broadcasts to the product, twice            bias, residual
//   -> Relu, Gelu, Clip, ... and x * Sigmoid(x), x * HardSigmoid(x)   activation
void fuse_matmul(Graph& graph);

// Products with constant matrices, one after the other, between which much would go through memory: ai.tiercel.MatMulChain. After fuse_matmul.
void chain_matmul(Graph& graph);

}  // namespace tiercel

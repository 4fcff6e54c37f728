// Fine-tuning: which weights are a model's head, and low-rank adapters (LoRA) beside weights that stay.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "graph/graph.h"

namespace tiercel {

// The last matrix of weights before an output ("": the first), and the weights after it.
std::vector<std::string> head_weights(const Model& model, const std::string& output);

enum class AdapterForm { kRight, kTransposed, kConv };  // x W; x W^T; a convolution of one group

// Weights that an adapter can stand beside: second operands of MatMul and Gemm, of rank 2, and weights of convolutions of one group.
std::vector<std::pair<std::string, AdapterForm>> adaptable_weights(const Model& model);

// The model with, beside each product with one of `names`, alpha / rank times a product with NAME.lora_a, then with NAME.lora_b, both zeros.
// Shapes: [in, rank] and [rank, out]; of convolutions [rank, in, ...] and [out, rank, 1, ...].
Model add_adapters(const Model& model, const std::vector<std::string>& names, int64_t rank, double alpha);

// The weight with its adapter in it: with scale times the product of the factors, in double.
Tensor merge_adapter(const Tensor& weight, AdapterForm form, const Tensor& a, const Tensor& b, double scale);

std::map<std::string, Tensor> weights_of(const Model& model, const std::vector<std::string>& names);
// Of the same types and shapes; floats may stand for narrower ones.
Model with_weights(const Model& model, const std::map<std::string, Tensor>& weights);

}  // namespace tiercel

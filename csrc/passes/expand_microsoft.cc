// Operators of com.microsoft other than attention. Their rows have checked what is asked here of types and attributes.
#include <string>

#include "ops/registry.h"
#include "passes/emitter.h"
#include "passes/expand.h"
#include "passes/match.h"

namespace tiercel {
namespace {

class Expansion : Emitter {
 public:
  using Emitter::Emitter;

  void gelu() {
    Value* x = node->inputs[0];
    if (Value* bias = node->input(1)) x = op("Add", {x, bias});
    const bool fast = node->op_type == "FastGelu";
    Value* y = made("Gelu", fast ? "" : kMicrosoftDomain, fast ? 20 : 1, {x});
    if (fast) y->producer->set("approximate", std::string("tanh"));
    replace(0, y);
  }

  void conv() {
    std::vector<Value*> in{node->inputs[0], node->inputs[1]};
    if (node->input(2)) in.push_back(node->inputs[2]);
    Value* y = op("Conv", in);
    for (const char* key : {"auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"})
      if (const Attribute* a = node->attribute(key)) y->producer->set(key, *a);
    if (Value* z = node->input(3)) y = op("Add", {y, z});
    const std::string kind = node->attr_string("activation", "");
    const std::vector<float> p = node->attr_floats("activation_params");
    if (kind == "Clip") y = op("Clip", {y, number(p[0]), number(p[1])});
    else if (kind == "HardSigmoid") y = op("HardSigmoid", {y}, dtype, {{"alpha", p[0]}, {"beta", p[1]}});
    else if (kind == "LeakyRelu") y = op("LeakyRelu", {y}, dtype, {{"alpha", p[0]}});
    else if (!kind.empty()) y = op(kind.c_str(), {y});
    replace(0, y);
  }

  void embedding() {
    dtype = node->inputs[2]->type.dtype;
    Value *ids = node->inputs[0], *table = node->inputs[3];
    Value* sum = op("Gather", {node->inputs[2], ids});
    if (Value* at = node->input(8)) table = op("Gather", {table, at});
    else table = op("Slice", {table, ints({0}), op("Unsqueeze", {extent(ids, 1), ints({0})}, DType::kInt64), ints({0})});
    sum = op("Add", {sum, table});
    if (Value* segments = node->input(1)) sum = op("Add", {sum, op("Gather", {node->inputs[4], segments})});
    replace(0, op("LayerNormalization", {sum, node->inputs[5], node->inputs[6]}, dtype, {{"epsilon", node->attr_float("epsilon", 1e-12f)}}));
    replace(2, sum);
    if (!node->output(1)) return;
    Value* mask = node->input(7);  // how many keys are not hidden: a mask's ones, none without a mask
    mask = mask ? cast(op("Equal", {cast(mask, DType::kInt64), ints({1}, true)}, DType::kBool), DType::kInt32)
                : cast(op("Mul", {cast(ids, DType::kInt64), ints({0}, true)}, DType::kInt64), DType::kInt32);
    replace(1, op("ReduceSum", {mask, ints({1})}, DType::kInt32, {{"keepdims", int64_t{0}}}));
  }

  // As ONNX's, whose positions have two axes.
  bool rotary() {
    Value *x = node->inputs[0], *at = node->inputs[1];
    const int rank = match::rank(x), positions = match::rank(at);
    int64_t heads = node->attr_int("num_heads", 0);
    if (rank < 3 || positions < 1) return false;
    if (rank == 3 && !heads) {  // a cache as wide as half a head says how many there are
      const Shape &s = x->type.shape, &cache = node->inputs[2]->type.shape;
      if (!node->inputs[2]->type.ranked || is_symbol(s[2]) || is_symbol(cache[1]) || cache[1] <= 0 || s[2] % (2 * cache[1])) return false;
      heads = s[2] / (2 * cache[1]);
      if (heads <= 0) return false;
    }
    if (positions == 1) {
      Value *batch = extent(x, 0), *rows = extent(x, rank - 2);
      const auto one = [&](Value* v) { return op("Unsqueeze", {v, ints({0})}, DType::kInt64); };
      at = op("Add", {range(ints({0}, true), rows), at}, DType::kInt64);
      at = op("Expand", {at, op("Concat", {one(batch), one(rows)}, DType::kInt64, {{"axis", int64_t{0}}})}, DType::kInt64);
    }
    Value* y = made("RotaryEmbedding", "", 23, {x, node->inputs[2], node->inputs[3], at});
    if (rank == 3) y->producer->set("num_heads", heads);
    y->producer->set("interleaved", node->attr_int("interleaved", 0));
    y->producer->set("rotary_embedding_dim", node->attr_int("rotary_embedding_dim", 0));
    replace(0, y);
    return true;
  }

 private:
  Value* made(const char* name, const char* domain, int opset, std::vector<Value*> in) {
    Value* v = graph.emit(name, domain, opset, std::move(in), Type::tensor(dtype), node);
    v->producer->name = node->name;
    return v;
  }
};

}  // namespace

void expand_microsoft(Graph& graph) {
  std::vector<Node*> found;
  for (const auto& n : graph.nodes())
    if (n->domain == kMicrosoftDomain && n->input(0)) found.push_back(n.get());
  for (Node* n : found) {
    if (n->op_type == "BiasGelu" || n->op_type == "FastGelu") Expansion(graph, n).gelu();
    else if (n->op_type == "FusedConv") Expansion(graph, n).conv();
    else if (n->op_type == "EmbedLayerNormalization") Expansion(graph, n).embedding();
    else if (n->op_type == "RotaryEmbedding") Expansion(graph, n).rotary();
  }
  graph.erase_dead();
}

}  // namespace tiercel

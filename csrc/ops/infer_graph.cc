#include "ops/infer_graph.h"

#include "ops/registry.h"

namespace tiercel {
namespace {

// What inference found, completed by what the model declares: its dtype and rank where none were found, and the names of
// symbols. A known extent that was found always wins.
void complete(Type& found, const Type& declared, const SymbolTable& symbols) {
  if (found.dtype == DType::kUndefined) {
    const Type inferred = found;
    found = declared;
    if (inferred.ranked) { found.ranked = true; found.shape = inferred.shape; }
    return;
  }
  if (!found.is_tensor() || !declared.is_tensor() || !declared.ranked || declared.layout != found.layout) return;
  if (!found.ranked) {
    found.ranked = true;
    found.shape = declared.shape;
    return;
  }
  if (found.shape.rank() != declared.shape.rank()) return;
  for (int i = 0; i < found.shape.rank(); ++i) {
    const Dim d = declared.shape[i];
    if (is_symbol(found.shape[i]) && symbols.name(found.shape[i]).empty() && (!is_symbol(d) || !symbols.name(d).empty()))
      found.shape[i] = d;
  }
}

}  // namespace

void infer_node(const Node& node, std::span<const ValueInfo* const> in, std::span<ValueInfo> out, SymbolTable& symbols) {
  InferContext ctx(node, in, out, symbols);
  op_of(node).infer(ctx);
}

std::vector<ValueInfo> infer_graph(Graph& graph, std::span<const ValueInfo* const> inputs, bool update, bool declared,
                                   SymbolTable* table) {
  SymbolTable& symbols = table ? *table : graph.symbols();
  std::vector<ValueInfo> infos(graph.num_values());
  for (int id = 0; id < graph.num_values(); ++id)
    if (Value* v = graph.value(id); v && (v->is_constant() || v->is_graph_input)) {
      infos[id].type = v->type;
      if (v->is_constant()) infos[id].constant = &v->constant;
    }
  for (size_t i = 0; i < inputs.size() && i < graph.inputs().size(); ++i)
    if (inputs[i]) infos[graph.inputs()[i]->id] = *inputs[i];
  std::vector<const ValueInfo*> in;
  std::vector<ValueInfo> out;
  for (const auto& node : graph.nodes()) {
    in.clear();
    for (const Value* v : node->inputs) in.push_back(v ? &infos[v->id] : nullptr);
    out.assign(node->outputs.size(), {});
    infer_node(*node, in, out, symbols);
    for (size_t i = 0; i < out.size(); ++i)
      if (Value* v = node->outputs[i]) {
        if (declared || out[i].type.dtype == DType::kUndefined) complete(out[i].type, v->type, symbols);
        infos[v->id] = std::move(out[i]);
      }
  }
  if (update)
    for (int id = 0; id < graph.num_values(); ++id)
      if (Value* v = graph.value(id)) v->type = infos[id].type;
  return infos;
}

}  // namespace tiercel

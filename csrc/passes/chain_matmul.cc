#include <algorithm>
#include <string>
#include <vector>

#include "ops/activation.h"
#include "ops/matmul_chain.h"
#include "ops/registry.h"
#include "passes/fuse_matmul.h"
#include "passes/match.h"

namespace tiercel {
namespace {

constexpr double kWorthwhile = 2 << 20;        // bytes between two products: less stays in the cores' L2 from one to the next
constexpr int64_t kWeightBytes = 3 << 19;      // of both: they are read once for each strip of rows, from L2 or a near L3

// A product with a constant matrix, as a stage of a chain.
struct Product {
  Node* node = nullptr;
  Value *bias = nullptr, *residual = nullptr;
  bool transposed = false;
  int64_t inputs = 0, outputs = 0;
};

bool is_bias(const Value* v, int64_t n) {
  if (!match::is_f32(v) || match::rank(v) < 1 || !v->type.shape.known()) return false;
  const Shape& s = v->type.shape;
  return s.count() == n && s[s.rank() - 1] == n;
}

Product product_of(Node* n) {
  Product p;
  if (!n || n->inputs.size() < 2 || !n->output() || !n->inputs[0] || !n->inputs[1]) return p;
  const bool fused = n->is("FusedMatMul", kTiercelDomain), gemm = n->is("Gemm"), plain = n->is("MatMul");
  if (!fused && !gemm && !plain) return p;
  Value *const x = n->inputs[0], *const w = n->inputs[1], *const y = n->outputs[0];
  if (!match::is_f32(x) || match::rank(x) < 2 || !w->is_constant() || !match::is_f32(w) || match::rank(w) != 2 || w->constant.count() == 0) return p;
  for (const char* key : {"transA", "transBatchA", "transBatchB"})
    if (n->attr_int(key, 0)) return p;
  for (const char* key : {"alpha", "beta"})
    if (n->attr_float(key, 1) != 1) return p;
  p.transposed = n->attr_int("transB", 0) != 0;
  const Shape& s = w->type.shape;
  p.inputs = s[p.transposed ? 1 : 0];
  p.outputs = s[p.transposed ? 0 : 1];
  for (int i : {2, 3}) {
    Value* const v = n->input(i);
    if (!v) continue;
    if (i == 2 && is_bias(v, p.outputs)) p.bias = v;
    else if (!p.residual && match::is_f32(v) && match::same_shape(v, y)) p.residual = v;
    else return p;
  }
  p.node = n;
  return p;
}

// What the two would pass through memory; rows that are not known count as many.
bool worthwhile(const Product& a, const Product& b) {
  if (a.outputs * 4 * kChainLeastRows > kChainStripBytes) return false;
  if ((a.inputs * a.outputs + b.inputs * b.outputs) * 4 > kWeightBytes) return false;
  const Shape& s = a.node->outputs[0]->type.shape;
  double bytes = 4;
  for (int d = 0; d < s.rank(); ++d) {
    if (is_symbol(s[d])) return true;
    bytes *= static_cast<double>(s[d]);
  }
  return bytes >= kWorthwhile;
}

void fuse(Graph& graph, const std::vector<Product>& chain) {
  const Product& last = chain.back();
  std::vector<Value*> inputs{chain[0].node->inputs[0], last.residual};
  for (const Product& p : chain) {
    inputs.push_back(p.node->inputs[1]);
    inputs.push_back(p.bias);
  }
  Value* const y = graph.add_value("", last.node->outputs[0]->type);
  Node* const node = graph.add_node("MatMulChain", kTiercelDomain, 1, std::move(inputs), {y}, last.node);
  node->name = chain[0].node->name;
  node->set("stages", static_cast<int64_t>(chain.size()));
  for (size_t i = 0; i < chain.size(); ++i) {
    const std::string number = std::to_string(i);
    if (chain[i].transposed) node->set("transB_" + number, int64_t{1});
    if (chain[i].node->is("FusedMatMul", kTiercelDomain)) set_activation(*node, activation_of(*chain[i].node), number + "_");
  }
  Value* const old = last.node->outputs[0];
  if (old->graph_output_uses) std::swap(old->name, y->name);
  graph.replace_uses(old, y);
  for (size_t i = chain.size(); i-- > 0;) graph.erase(chain[i].node);
}

}  // namespace

void chain_matmul(Graph& graph) {
  std::vector<Node*> nodes;
  for (const auto& n : graph.nodes()) nodes.push_back(n.get());
  std::vector<const Node*> taken;
  for (Node* n : nodes) {
    if (std::find(taken.begin(), taken.end(), n) != taken.end()) continue;
    std::vector<Product> chain{product_of(n)};
    while (chain.back().node) {
      const Product& p = chain.back();
      Value* const y = p.node->outputs[0];
      if (p.residual || !y->has_one_use()) break;
      const Product next = product_of(y->uses[0].node);
      if (!next.node || next.node->inputs[0] != y || next.residual == y || !worthwhile(p, next)) break;
      chain.push_back(next);
    }
    if (chain.size() < 2) continue;
    for (const Product& p : chain) taken.push_back(p.node);
    fuse(graph, chain);
  }
}

}  // namespace tiercel

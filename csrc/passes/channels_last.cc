// Between channel blocks and rows of channels there is no need to pass through planes: a Reorder takes the Transpose that follows
// it, or that it follows, along; also where a Reshape between them makes one axis of the spatial ones ("flatten(2).transpose(1, 2)").
#include "ops/registry.h"
#include "passes/layout.h"
#include "passes/match.h"

namespace tiercel {
namespace {

bool blocked(const Value* v) { return v->type.layout == Layout::kBlocked; }

// [N, C, ...] -> [N, ..., C], or back when not `to_end`.
bool moves_channels(const Node* t, bool to_end) {
  if (!t || !t->is("Transpose")) return false;
  const auto perm = t->attr_ints("perm");
  const auto rank = static_cast<int64_t>(perm.size());
  for (int64_t i = 0; i < rank; ++i) {
    const int64_t from = i == 0 ? 0 : to_end ? (i == rank - 1 ? 1 : i + 1) : (i == 1 ? rank - 1 : i - 1);
    if (perm[static_cast<size_t>(i)] != from) return false;
  }
  return rank >= 3;
}

// A Reshape that leaves batch and channels, a known number, as they are.
bool keeps_channels(const Node* n) {
  if (!n || !n->is("Reshape") || match::rank(n->inputs[0]) < 3 || match::rank(n->outputs[0]) < 3) return false;
  const Shape &from = n->inputs[0]->type.shape, &to = n->outputs[0]->type.shape;
  return from[0] == to[0] && from[1] == to[1] && !is_symbol(from[1]) && from[1] > 0;
}

class Joiner {
 public:
  explicit Joiner(Graph& graph) : graph_(graph) {}

  void run() {
    for (const auto& n : graph_.nodes()) {
      if (moves_channels(n.get(), true)) from_blocks(n.get());
      else if (n->is("Reorder", kTiercelDomain) && blocked(n->outputs[0]) && !n->has("channels_last")) to_blocks(n.get());
    }
    graph_.erase_dead();
  }

 private:
  void from_blocks(Node* transpose) {
    Value* plain = transpose->inputs[0];
    const Node* reshape = keeps_channels(plain->producer) ? plain->producer : nullptr;
    if (reshape) plain = reshape->inputs[0];
    const Node* reorder = match::made_by(plain, "Reorder", kTiercelDomain);
    if (!reorder || !blocked(reorder->inputs[0]) || reorder->has("channels_last")) return;
    Shape s = plain->type.shape;
    s.erase(1);
    s.push_back(plain->type.shape[1]);
    const auto target = reshape ? target_of(transpose->outputs[0]->type.shape) : std::nullopt;
    if (reshape && !target) return;
    Value* y = reorder_last(reorder->inputs[0], "plain", Type::tensor(DType::kFloat, s), transpose);
    if (target) y = reshaped(y, *target, transpose->outputs[0]->type, transpose);
    graph_.replace_uses(transpose->outputs[0], y);
  }

  void to_blocks(Node* reorder) {
    Value* plain = reorder->inputs[0];
    const Node* reshape = keeps_channels(plain->producer) ? plain->producer : nullptr;
    const Node* transpose = reshape ? reshape->inputs[0]->producer : plain->producer;
    if (!moves_channels(transpose, false)) return;
    Value* x = transpose->inputs[0];
    if (reshape) {
      Shape s = plain->type.shape;
      s.erase(1);
      s.push_back(plain->type.shape[1]);
      const auto target = target_of(s);
      if (!target) return;
      x = reshaped(x, *target, Type::tensor(DType::kFloat, s), reorder);
    }
    graph_.replace_uses(reorder->outputs[0], reorder_last(x, "blocked", reorder->outputs[0]->type, reorder));
  }

  // The batch is copied; of the rest one extent may be unknown, and none zero.
  static std::optional<std::vector<int64_t>> target_of(const Shape& s) {
    std::vector<int64_t> t{0};
    int unknown = 0;
    for (int i = 1; i < s.rank(); ++i) {
      unknown += is_symbol(s[i]);
      t.push_back(is_symbol(s[i]) ? -1 : s[i]);
      if (s[i] == 0) return std::nullopt;
    }
    return unknown > 1 ? std::nullopt : std::optional(t);
  }
  Value* reshaped(Value* v, const std::vector<int64_t>& target, const Type& type, Node* before) {
    Value* c = graph_.new_constant(Tensor::from_ints(DType::kInt64, {static_cast<Dim>(target.size())}, target.data()), "shape");
    return graph_.emit("Reshape", "", 13, {v, c}, type, before);
  }
  Value* reorder_last(Value* v, const char* to, const Type& type, Node* before) {
    Value* y = graph_.emit("Reorder", kTiercelDomain, 1, {v}, type, before);
    y->producer->set("to", std::string(to));
    y->producer->set("channels_last", int64_t{1});
    return y;
  }

  Graph& graph_;
};

}  // namespace

void channels_last(Graph& graph) { Joiner(graph).run(); }

}  // namespace tiercel

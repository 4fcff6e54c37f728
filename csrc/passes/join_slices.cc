// Slices that part a tensor completely along one axis become one Split: exporters write chunk() so, and Split works on channel blocks.
#include <algorithm>
#include <map>

#include "passes/match.h"
#include "passes/movement.h"

namespace tiercel {
namespace {

struct Piece {
  Node* slice;
  int64_t begin, end;
};

// Along one axis of a known extent, with step 1; `axis` is set.
std::optional<Piece> piece_of(Node* n, int& axis) {
  if (!n->is("Slice") || n->opset < 10 || !n->input(0) || !n->output(0) || !n->inputs[0]->type.ranked) return std::nullopt;
  int64_t given[4] = {0, 0, 0, 1};  // start, end, axis, step
  for (int i = 1; i <= 4; ++i) {
    const Value* v = n->input(i);
    if (i == 4 && !v) break;
    if (!v || !v->is_constant() || v->constant.count() != 1) return std::nullopt;
    given[i - 1] = v->constant.ints()[0];
  }
  const Shape& s = n->inputs[0]->type.shape;
  axis = normalize_axis(given[2], s.rank());
  if (axis < 0 || given[3] != 1 || is_symbol(s[axis])) return std::nullopt;
  const auto place = [&](int64_t at) { return std::clamp<int64_t>(at < 0 ? at + s[axis] : at, 0, s[axis]); };
  return Piece{n, place(given[0]), place(given[1])};
}

}  // namespace

void join_slices(Graph& graph) {
  std::vector<std::pair<const Value*, int>> order;  // in the order of the graph
  std::map<std::pair<const Value*, int>, std::vector<Piece>> all;
  for (const auto& n : graph.nodes()) {
    int axis = -1;
    const auto piece = piece_of(n.get(), axis);
    if (!piece) continue;
    auto& pieces = all[{n->inputs[0], axis}];
    if (pieces.empty()) order.emplace_back(n->inputs[0], axis);
    pieces.push_back(*piece);
  }
  for (const auto& key : order) {
    std::vector<Piece>& pieces = all[key];
    const int axis = key.second;
    Node* first = pieces.front().slice;
    Value* x = first->inputs[0];
    std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
    int64_t at = 0;
    for (const Piece& p : pieces) at = at == p.begin && p.end > p.begin ? p.end : -1;
    if (pieces.size() < 2 || at != x->type.shape[axis]) continue;
    std::vector<int64_t> sizes;
    std::vector<Value*> parts;
    for (const Piece& p : pieces) {
      sizes.push_back(p.end - p.begin);
      Type t = x->type;
      t.shape[axis] = sizes.back();
      parts.push_back(graph.add_value("", t));
    }
    Value* lengths = graph.new_constant(Tensor::from_ints(DType::kInt64, {static_cast<Dim>(sizes.size())}, sizes.data()), "split");
    Node* split = graph.add_node("Split", "", 13, {x, lengths}, parts, first);
    split->name = first->name;
    split->set("axis", static_cast<int64_t>(axis));
    for (size_t i = 0; i < pieces.size(); ++i) graph.replace_uses(pieces[i].slice->outputs[0], parts[i]);
  }
  graph.erase_dead();
}

}  // namespace tiercel

#include <algorithm>
#include <optional>

#include "ops/einsum.h"
#include "ops/registry.h"
#include "passes/expand.h"
#include "passes/match.h"

namespace tiercel {
namespace {

using Labels = std::vector<int>;
bool has(const Labels& l, int label) { return std::find(l.begin(), l.end(), label) != l.end(); }

struct Term {
  Value* value = nullptr;
  Labels labels;
};

class Expansion {
 public:
  Expansion(Graph& graph, Node* node) : graph_(graph), node_(node), dtype_(node->inputs[0]->type.dtype) {}

  bool run() {
    std::vector<int> ranks;
    for (const Value* v : node_->inputs) {
      if (!v || !v->type.ranked) return false;
      ranks.push_back(v->type.shape.rank());
      shapes_.push_back(v->type.shape);
    }
    equation_ = parse_einsum(node_->attr_string("equation", ""), ranks);
    if (!equation_.error.empty()) return false;
    for (size_t i = 0; i < ranks.size(); ++i)
      for (int k = 0; k < ranks[i]; ++k) {
        const Labels& l = equation_.in[i];
        if (std::count(l.begin(), l.end(), l[static_cast<size_t>(k)]) > 1) return false;
        if (shapes_[i][k] != extent(l[static_cast<size_t>(k)]) && !is_symbol(shapes_[i][k])) return false;  // broadcast
      }
    Term t{node_->inputs[0], equation_.in[0]};
    for (size_t i = 1; i < ranks.size(); ++i) {
      Labels later = equation_.out;
      for (size_t k = i + 1; k < ranks.size(); ++k) later.insert(later.end(), equation_.in[k].begin(), equation_.in[k].end());
      Labels wanted;
      for (const Labels& from : {t.labels, equation_.in[i]})
        for (int l : from) if (has(later, l) && !has(wanted, l)) wanted.push_back(l);
      auto product = multiply(t, {node_->inputs[i], equation_.in[i]}, i + 1 == ranks.size() ? equation_.out : wanted);
      if (!product) return false;
      t = *product;
    }
    t = order(sum_away(t, equation_.out), equation_.out);
    graph_.replace_uses(node_->outputs[0], t.value);
    return true;
  }

 private:
  Dim extent(int label) const { return einsum_extent(equation_, shapes_, label); }
  Shape shape_of(const Labels& labels) const {
    Shape s;
    for (int l : labels) s.push_back(l == 0 ? 1 : extent(l));  // 0: an axis of extent 1 that no label has
    return s;
  }
  Value* ints(const std::vector<int64_t>& v) {
    Value* c = graph_.new_constant(Tensor::from_ints(DType::kInt64, {static_cast<Dim>(v.size())}, v.data()), "einsum");
    return c;
  }
  Value* emit(const char* op, std::vector<Value*> in, const Shape& shape) {
    Value* v = graph_.emit(op, "", 13, std::move(in), Type::tensor(dtype_, shape), node_);
    v->producer->name = node_->name;
    return v;
  }

  Term sum_away(Term t, const Labels& wanted) {
    std::vector<int64_t> axes;
    Labels left;
    for (size_t k = 0; k < t.labels.size(); ++k) {
      if (has(wanted, t.labels[k])) left.push_back(t.labels[k]);
      else axes.push_back(static_cast<int64_t>(k));
    }
    if (axes.empty()) return t;
    Value* v = emit("ReduceSum", {t.value, ints(axes)}, shape_of(left));
    v->producer->set("keepdims", int64_t{0});
    return {v, left};
  }

  Term order(const Term& t, const Labels& wanted) {
    if (t.labels == wanted) return t;
    std::vector<int64_t> perm;
    for (int l : wanted) perm.push_back(std::find(t.labels.begin(), t.labels.end(), l) - t.labels.begin());
    Value* v = emit("Transpose", {t.value}, shape_of(wanted));
    v->producer->set("perm", perm);
    return {v, wanted};
  }

  // `count` axes of extent 1 in front of axis `at`.
  Value* ones(Value* v, size_t at, size_t count) {
    if (!count) return v;
    std::vector<int64_t> axes;
    Shape s = v->type.shape;
    for (size_t i = 0; i < count; ++i) {
      axes.push_back(static_cast<int64_t>(at + i));
      s.insert(static_cast<int>(at), 1);
    }
    return emit("Unsqueeze", {v, ints(axes)}, s);
  }

  // Labels as one extent of a Reshape target: their product, or -1 when a symbol is among them.
  int64_t merged(const Labels& labels) const {
    int64_t n = 1;
    for (int l : labels) {
      if (is_symbol(extent(l))) return -1;
      n *= extent(l);
    }
    return n;
  }
  // The first `copied` extents stay; then those given. At most one may be unknown, none zero.
  Value* reshape(Value* v, size_t copied, std::vector<int64_t> tail, const Shape& shape) {
    if (std::count(tail.begin(), tail.end(), -1) > 1 || std::count(tail.begin(), tail.end(), 0)) return nullptr;
    std::vector<int64_t> target(copied, 0);
    target.insert(target.end(), tail.begin(), tail.end());
    return emit("Reshape", {v, ints(target)}, shape);
  }

  std::optional<Term> multiply(const Term& left, const Term& right, const Labels& wanted) {
    Labels keep_a = wanted, keep_b = wanted;
    keep_a.insert(keep_a.end(), right.labels.begin(), right.labels.end());
    keep_b.insert(keep_b.end(), left.labels.begin(), left.labels.end());
    Term a = sum_away(left, keep_a), b = sum_away(right, keep_b);
    Labels batch, m, n, k;
    for (int l : a.labels) (!has(b.labels, l) ? m : has(wanted, l) ? batch : k).push_back(l);
    for (int l : b.labels) if (!has(a.labels, l)) n.push_back(l);
    const auto joined = [](std::initializer_list<Labels> parts) {
      Labels all;
      for (const Labels& p : parts) all.insert(all.end(), p.begin(), p.end());
      return all;
    };
    const Labels made = joined({batch, m, n});
    if (k.empty()) {  // nothing to sum over
      Value* x = ones(order(a, joined({batch, m})).value, batch.size() + m.size(), n.size());
      Value* y = ones(order(b, joined({batch, n})).value, batch.size(), m.size());
      return Term{emit("Mul", {x, y}, shape_of(made)), made};
    }
    // [batch, m, K] by [batch, 1 for each m but one, K, N]: leading rows broadcast
    const size_t lead = batch.empty() || m.empty() ? 0 : m.size() - 1, rows = std::max<size_t>(m.size(), 1);
    Value* x = order(a, joined({batch, m, k})).value;
    if (m.empty()) x = ones(x, batch.size(), 1);
    Labels row_labels = m.empty() ? Labels{0} : m;
    const int64_t depth = merged(k), columns = merged(n);
    if (k.size() > 1) {
      Shape s = shape_of(joined({batch, row_labels}));
      s.push_back(depth < 0 ? graph_.symbols().fresh() : depth);
      if (!(x = reshape(x, batch.size() + rows, {depth}, s))) return std::nullopt;
    }
    Value* y = order(b, joined({batch, k, n})).value;
    Shape matrix = shape_of(batch);
    matrix.push_back(k.size() == 1 ? extent(k[0]) : x->type.shape.back());
    matrix.push_back(columns < 0 ? graph_.symbols().fresh() : columns);
    if (k.size() > 1 || n.size() != 1)
      if (!(y = reshape(y, batch.size(), {depth, columns}, matrix))) return std::nullopt;
    y = ones(y, batch.size(), lead);
    Shape result = shape_of(joined({batch, row_labels}));
    result.push_back(matrix.back());
    Value* z = emit("MatMul", {x, y}, result);
    if (m.empty() || n.size() != 1) {
      // the rows' extents are copied, so a row axis that no label has goes last
      std::vector<int64_t> tail;
      for (int l : n) tail.push_back(is_symbol(extent(l)) ? -1 : extent(l));
      if (m.empty()) {
        Shape squeezed = shape_of(batch);
        squeezed.push_back(matrix.back());
        z = emit("Squeeze", {z, ints({static_cast<int64_t>(batch.size())})}, squeezed);
      }
      if (n.size() != 1 && !(z = reshape(z, batch.size() + m.size(), tail, shape_of(made)))) return std::nullopt;
    }
    return Term{z, made};
  }

  Graph& graph_;
  Node* node_;
  DType dtype_;
  EinsumEquation equation_;
  std::vector<Shape> shapes_;
};

}  // namespace

void expand_einsum(Graph& graph) {
  std::vector<Node*> found;
  for (const auto& n : graph.nodes())
    if (n->is("Einsum") && n->input(0) && n->output(0) && (n->inputs[0]->type.dtype == DType::kFloat || n->inputs[0]->type.dtype == DType::kDouble))
      found.push_back(n.get());
  for (Node* n : found) Expansion(graph, n).run();
  graph.erase_dead();
}

}  // namespace tiercel

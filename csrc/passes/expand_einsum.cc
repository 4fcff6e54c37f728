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
  std::vector<Dim> dims = {};  // of the labels
};

// Extents of one label in two terms broadcast: a symbol may be 1. So what is summed over, or becomes part of a Reshape, is given its common extent before
// (Expand does nothing where it has that); a product broadcasts what stays.
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
        if (shapes_[i][k] == 1 && einsum_extent(equation_, shapes_, l[static_cast<size_t>(k)]) != 1) return false;  // broadcast
      }
    Term t = operand(0);
    for (size_t i = 1; i < ranks.size(); ++i) {
      Labels later = equation_.out;
      for (size_t k = i + 1; k < ranks.size(); ++k) later.insert(later.end(), equation_.in[k].begin(), equation_.in[k].end());
      Labels wanted;
      for (const Labels& from : {t.labels, equation_.in[i]})
        for (int l : from) if (has(later, l) && !has(wanted, l)) wanted.push_back(l);
      auto product = multiply(t, operand(i), i + 1 == ranks.size() ? equation_.out : wanted);
      if (!product) return false;
      t = *product;
    }
    t = order(sum_away(t, equation_.out), equation_.out);
    graph_.replace_uses(node_->outputs[0], t.value);
    return true;
  }

 private:
  Term operand(size_t i) const { return {node_->inputs[i], equation_.in[i], {shapes_[i].begin(), shapes_[i].end()}}; }
  static size_t place(const Term& t, int label) { return static_cast<size_t>(std::find(t.labels.begin(), t.labels.end(), label) - t.labels.begin()); }
  static Dim dim(const Term& t, int label) { return t.dims[place(t, label)]; }
  // Of a label of either term or both; a symbol of its own where nothing decides.
  Dim common(const Term& a, const Term& b, int label) {
    if (!has(b.labels, label)) return dim(a, label);
    if (!has(a.labels, label)) return dim(b, label);
    const Dim x = dim(a, label), y = dim(b, label);
    if (x == y || y == 1) return x;
    if (x == 1) return y;
    if (!is_symbol(x)) return x;
    return is_symbol(y) ? graph_.symbols().fresh() : y;
  }
  static Shape shape_of(const std::vector<Dim>& dims) { return Shape(std::span<const Dim>(dims)); }

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
    std::vector<Dim> dims;
    for (size_t k = 0; k < t.labels.size(); ++k) {
      if (!has(wanted, t.labels[k])) {
        axes.push_back(static_cast<int64_t>(k));
        continue;
      }
      left.push_back(t.labels[k]);
      dims.push_back(t.dims[k]);
    }
    if (axes.empty()) return t;
    Value* v = emit("ReduceSum", {t.value, ints(axes)}, shape_of(dims));
    v->producer->set("keepdims", int64_t{0});
    return {v, left, dims};
  }

  Term order(const Term& t, const Labels& wanted) {
    if (t.labels == wanted) return t;
    std::vector<int64_t> perm;
    std::vector<Dim> dims;
    for (int l : wanted) {
      perm.push_back(static_cast<int64_t>(place(t, l)));
      dims.push_back(dim(t, l));
    }
    Value* v = emit("Transpose", {t.value}, shape_of(dims));
    v->producer->set("perm", perm);
    return {v, wanted, dims};
  }

  // The extents of `like` where those of t may be 1.
  Term spread(const Term& t, const Term& like, const Labels& labels) {
    Term r = t;
    std::vector<Value*> target;
    for (size_t k = 0; k < t.labels.size(); ++k) {
      const int l = t.labels[k];
      Value* extent = nullptr;
      if (has(labels, l) && has(like.labels, l) && dim(like, l) != t.dims[k] && dim(like, l) != 1 && (is_symbol(t.dims[k]) || t.dims[k] == 1)) {
        const Dim there = dim(like, l);
        r.dims[k] = common(t, like, l);
        if (is_symbol(there)) {
          const auto at = static_cast<int64_t>(place(like, l));
          extent = graph_.emit("Shape", "", 15, {like.value}, Type::tensor(DType::kInt64, Shape{1}), node_);
          extent->producer->set("start", at);
          extent->producer->set("end", at + 1);
        } else {
          extent = ints({there});
        }
      }
      target.push_back(extent);
    }
    if (std::all_of(target.begin(), target.end(), [](const Value* v) { return !v; })) return t;
    Value* one = nullptr;
    for (Value*& v : target)
      if (!v) v = one ? one : one = ints({1});
    Value* shape = target[0];
    if (target.size() > 1) {
      shape = graph_.emit("Concat", "", 13, target, Type::tensor(DType::kInt64, Shape{static_cast<Dim>(target.size())}), node_);
      shape->producer->set("axis", int64_t{0});
    }
    r.value = emit("Expand", {t.value, shape}, shape_of(r.dims));
    return r;
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
  static int64_t merged(const Term& t, const Labels& labels) {
    int64_t n = 1;
    for (int l : labels) {
      if (is_symbol(dim(t, l))) return -1;
      n *= dim(t, l);
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
    std::vector<Dim> made_dims;
    for (int l : made) made_dims.push_back(common(a, b, l));
    if (k.empty()) {  // nothing to sum over
      Value* x = ones(order(a, joined({batch, m})).value, batch.size() + m.size(), n.size());
      Value* y = ones(order(b, joined({batch, n})).value, batch.size(), m.size());
      return Term{emit("Mul", {x, y}, shape_of(made_dims)), made, made_dims};
    }
    const Term a_before = a;
    a = spread(a, b, k);
    b = spread(b, a_before, k);
    // [batch, m, K] by [batch, 1 for each m but one, K, N]: leading rows broadcast
    const size_t lead = batch.empty() || m.empty() ? 0 : m.size() - 1, rows = std::max<size_t>(m.size(), 1);
    const Term xs = order(a, joined({batch, m, k})), ys = order(b, joined({batch, k, n}));
    Value* x = xs.value;
    if (m.empty()) x = ones(x, batch.size(), 1);
    const int64_t depth = std::max(merged(a, k), merged(b, k)), columns = merged(b, n);
    if (k.size() > 1) {
      Shape s(x->type.shape.span().first(batch.size() + rows));
      s.push_back(depth < 0 ? graph_.symbols().fresh() : depth);
      if (!(x = reshape(x, batch.size() + rows, {depth}, s))) return std::nullopt;
    }
    Value* y = ys.value;
    Shape matrix(y->type.shape.span().first(batch.size()));
    matrix.push_back(x->type.shape.back());
    matrix.push_back(columns < 0 ? graph_.symbols().fresh() : columns);
    if (k.size() > 1 || n.size() != 1)
      if (!(y = reshape(y, batch.size(), {depth, columns}, matrix))) return std::nullopt;
    y = ones(y, batch.size(), lead);
    Shape result(shape_of(made_dims).span().first(batch.size() + m.size()));
    if (m.empty()) result.push_back(1);
    result.push_back(n.size() == 1 ? dim(b, n[0]) : matrix.back());
    Value* z = emit("MatMul", {x, y}, result);
    if (m.empty() || n.size() != 1) {
      // the rows' extents are copied, so a row axis that no label has goes last
      std::vector<int64_t> tail;
      for (int l : n) tail.push_back(is_symbol(dim(b, l)) ? -1 : dim(b, l));
      if (m.empty()) {
        Shape squeezed(result.span().first(batch.size()));
        squeezed.push_back(result.back());
        z = emit("Squeeze", {z, ints({static_cast<int64_t>(batch.size())})}, squeezed);
      }
      if (n.size() != 1 && !(z = reshape(z, batch.size() + m.size(), tail, shape_of(made_dims)))) return std::nullopt;
    }
    return Term{z, made, made_dims};
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

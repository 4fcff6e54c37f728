#include "passes/fuse_attention.h"

#include <algorithm>
#include <cmath>
#include <span>

#include "ops/registry.h"
#include "passes/attention_operands.h"
#include "passes/attention_scores.h"

namespace tiercel {
namespace {

using namespace attention_match;

class Rewriter {
 public:
  explicit Rewriter(Graph& graph) : graph_(graph) {}

  void run(Node* softmax) {
    const int64_t axis = softmax->attr_int("axis", softmax->opset < 13 ? 1 : -1);
    Value* x = softmax->inputs[0];
    const int rank = match::rank(x);
    if (!match::is_f32(x) || (rank != 3 && rank != 4) || (axis != -1 && axis != rank - 1)) return;
    auto scores = match_scores(x);
    if (!scores) return;
    Value* p = softmax->outputs[0];
    const char* zeroes = nullptr;  // the attribute that says which rows have no weights
    if (Node* where = skip_nan(p)) {
      p = where->outputs[0];
      zeroes = "nan_to_zero";
    } else if (Node* hides = match::only_reader(p, "Where"); hides && hides->inputs[2] == p) {
      if (!hides_rows(hides, *scores, zeroes)) return;
      p = hides->outputs[0];
    }
    scores->passed.push_back(p);
    Node* product = the_reader(p);
    if (product && scores->heads && product->is("Reshape")) {  // [B,H,S,T] merged again
      p = product->outputs[0];
      if (match::rank(p) != 3 || !same_tail(softmax->outputs[0], p)) return;
      product = the_reader(p);
    } else if (scores->heads) {
      return;
    }
    if (!product || !product->is("MatMul") || product->inputs[0] != p || product->inputs[1] == p) return;
    double scale = scores->scale, value_scale = 1;
    Operand q{scores->product->inputs[0]}, k = untransposed(scores->product->inputs[1], scale), v{product->inputs[1]};
    const int inner = match::rank(q.value);
    if (inner != (scores->heads ? 3 : rank) || match::rank(product->inputs[1]) != inner) return;
    if (match::rank(scores->product->inputs[1]) != inner || !match::is_f32(q.value) || !match::is_f32(v.value)) return;
    before_ = scores->product;
    if (!k.value) k = {transposed(scores->product->inputs[1])};
    Dim heads = scores->heads;
    if (rank == 3) heads = merged_heads(q.value, k, v.value);
    if (heads)
      for (Operand* o : {&q, &k, &v}) o->parts = heads;
    const Operand whole_k = k, whole_v = v;
    q = unwrap(q, false, scale);
    for (const bool repeats : {true, false}) {  // of both or of none
      double key_scale = 1;
      value_scale = 1;
      k = unwrap(whole_k, repeats, key_scale);
      v = unwrap(whole_v, repeats, value_scale);
      if (repeats && k.heads() != v.heads()) continue;
      scale *= key_scale;
      break;
    }
    if (value_scale != 1) v = {product->inputs[1], Order::kHeads, heads};  // a scale of V is not one of the scores
    if (!match::is_f32(q.value) || !match::is_f32(k.value) || !match::is_f32(v.value) || !std::isfinite(scale) || !std::isfinite(scores->cap)) return;
    for (Operand* o : {&q, &k, &v}) {
      if (o == &v) before_ = product;  // V may be made between the two products
      four_axes(*o);
    }
    if (!heads_agree(q, k, v)) return;
    const Node* first = scores->product;
    const Dim batches[3] = {first->inputs[0]->type.shape[0], first->inputs[1]->type.shape[0], first->output()->type.shape[0]};
    if (rank == 3)
      for (Mask& m : scores->masks) m.merged = true;
    std::erase_if(scores->masks, nothing);
    Value* mask = nullptr;
    for (const Mask& m : scores->masks)
      if (!mask_fits(m, heads, batches, q, k)) return;
    for (const Mask& m : scores->masks) {
      Value* one = mask_of(m, heads);
      mask = mask ? graph_.emit("Add", "", 14, {one, mask}, Type::tensor(DType::kFloat), before_) : one;
    }
    if (scores->masks.size() > 1) mask->type.shape = mask_shape(scores->masks), mask->type.ranked = true;
    shape_readers(scores->passed, scores->product, heads, q, k);
    emit(product, q, k, v, mask, scale, scores->cap, zeroes, inner, heads);
  }

 private:
  // Where(IsNaN(p), 0, p), the only reader of p beside the IsNaN.
  static Node* skip_nan(const Value* p) {
    if (p->uses.size() != 2 || p->graph_output_uses) return nullptr;
    for (const Use& u : p->uses) {
      if (!u.node->is("Where") || u.index != 2 || !match::is_scalar(u.node->inputs[1], 0, 0)) continue;
      const Node* nan = match::only_made_by(u.node->inputs[0], "IsNaN");
      if (nan && nan->inputs[0] == p) return u.node;
    }
    return nullptr;
  }

  // Where(max of the mask over the keys == -inf, 0, p), as ONNX defines Attention; folded where the mask is a constant.
  static bool hides_rows(const Node* where, const Scores& scores, const char*& zeroes) {
    const Value* const hidden = where->inputs[0];
    if (!match::is_scalar(where->inputs[1], 0, 0)) return false;
    const Value* mask = scores.masks.size() == 1 && scores.masks[0].factor == 1 ? scores.masks[0].tensor : nullptr;
    if (hidden->is_constant()) {
      const Shape &from = hidden->type.shape, &to = where->inputs[2]->type.shape;
      for (int i = 1; i <= from.rank(); ++i) if (i > to.rank() || (from[from.rank() - i] != 1 && from[from.rank() - i] != to[to.rank() - i])) return false;
      const std::vector<double> is = hidden->constant.doubles();
      if (std::none_of(is.begin(), is.end(), [](double x) { return x != 0; })) return true;
      if (!mask || !mask->is_constant() || match::rank(mask) != from.rank() || from.back() != 1) return false;
      for (int i = 0; i + 1 < from.rank(); ++i) if (mask->type.shape[i] != from[i]) return false;
      const std::vector<double> bias = mask->constant.doubles();
      const auto keys = static_cast<ptrdiff_t>(bias.size() / is.size());
      for (size_t i = 0; i < is.size(); ++i) {
        const auto row = bias.begin() + static_cast<ptrdiff_t>(i) * keys;
        if (std::all_of(row, row + keys, [](double x) { return x == -INFINITY; }) != (is[i] != 0)) return false;
      }
    } else {
      const Node* equal = match::made_by(hidden, "Equal");
      if (!mask || !equal || match::scalar(equal->inputs[1]) != -INFINITY) return false;
      const Node* most = match::made_by(equal->inputs[0], "ReduceMax");  // a condition that layers share
      if (!most || most->inputs[0] != mask || !most->attr_int("keepdims", 1)) return false;
      const auto axis = most->input(1) ? match::scalar(most->inputs[1]) : std::nullopt;
      if (!axis || (*axis != -1 && *axis != match::rank(mask) - 1)) return false;
    }
    zeroes = "masked_to_zero";
    return true;
  }

  // Reshape [B,H,S,T] -> [BH,S,T] by the extents that inference knows.
  static bool same_tail(const Value* four, const Value* three) {
    const Shape &a = four->type.shape, &b = three->type.shape;
    for (int i : {1, 2})
      if (!is_symbol(a[i + 1]) && !is_symbol(b[i]) && a[i + 1] != b[i]) return false;
    return !is_symbol(a[1]);
  }

  // The number of heads that Reshapes merged into the batch of all three; 0 when they did not.
  static Dim merged_heads(const Value* q, const Operand& k, const Value* v) {
    double scale = 1;
    const Value* four[3] = {before_merge(peel_scale(const_cast<Value*>(q), scale)),
                            k.order == Order::kHeads ? before_merge(peel_scale(k.value, scale)) : nullptr, before_merge(v)};
    for (const Value* f : four)
      if (!f || f->type.shape[1] != four[0]->type.shape[1]) return 0;
    return four[0]->type.shape[1];
  }

  // One head for each of Q, or fewer that are repeated. Batches broadcast; where they are not known the operator compares them.
  static bool heads_agree(const Operand& q, const Operand& k, const Operand& v) {
    const auto fit = [](Dim a, Dim b) { return a == b || a == 1 || b == 1 || is_symbol(a) || is_symbol(b); };
    if (!fit(q.extent(0), k.extent(0)) || !fit(q.extent(0), v.extent(0)) || !fit(k.extent(0), v.extent(0))) return false;
    if (k.extent(1) != v.extent(1)) return false;
    if (!is_symbol(k.extent(2)) && !is_symbol(v.extent(2)) && k.extent(2) != v.extent(2)) return false;
    const Dim h = q.extent(1), g = k.extent(1);
    return h == g || (!is_symbol(h) && !is_symbol(g) && g > 0 && h % g == 0);
  }

  // Does a mask add zeros? Exporters write one where the scores are accumulated into an empty tensor.
  static bool nothing(const Mask& m) {
    const Node* n = m.tensor ? m.tensor->producer : nullptr;
    double times = m.factor;
    if (n && n->is("Mul"))
      if (const auto scaled = match::with_scalar(n)) {
        times *= scaled->second;
        n = scaled->first->producer;
      }
    if (!n || !n->is("ConstantOfShape") || !std::isfinite(times)) return false;
    const Tensor* value = n->attr_tensor("value");
    const double fill = value ? value->doubles()[0] : 0;
    return std::isfinite(fill) && fill * times == 0;
  }

  // Does the mask have an axis for batch and heads together?
  static bool is_merged(const Mask& m) {
    const Value* v = m.tensor ? m.tensor : m.condition;
    return m.merged && match::rank(v) == 3 && v->type.shape[0] != 1;
  }

  // A mask must not enlarge the scores. Unknown extents are taken to fit: preparation checks them.
  static bool mask_fits(const Mask& m, Dim heads, std::span<const Dim> batches, const Operand& q, const Operand& k) {
    const Value* v = m.tensor ? m.tensor : m.condition;
    if (!v->type.ranked || v->type.shape.rank() > 4) return false;
    const Shape& s = v->type.shape;
    const bool merged = is_merged(m);
    if (merged && heads && !comes_merged(v, heads, batches, 0) && (is_symbol(s[0]) || s[0] % heads)) return false;  // could be 1
    const Dim scores[4] = {q.extent(0) == 1 ? k.extent(0) : q.extent(0), q.extent(1), q.extent(2), k.extent(2)};
    for (int i = s.rank() - 1, axis = 3; i >= (merged ? 1 : 0); --i, --axis) {
      const Dim d = s[i];
      if (!is_symbol(d) && d != 1 && !is_symbol(scores[axis]) && d != scores[axis]) return false;
      if (is_symbol(d) && scores[axis] == 1) return false;
    }
    return !merged || heads || is_symbol(s[0]) || is_symbol(scores[0]) || s[0] == scores[0];
  }

  // Is the first extent that of batch and heads together: one of the scores' operands', or [B,H,...] before a Reshape? Through
  // pointwise operators: a broadcast cannot make it smaller.
  static bool comes_merged(const Value* v, Dim heads, std::span<const Dim> batches, int depth) {
    if (match::rank(v) != 3 || depth > 4) return false;
    if (std::find(batches.begin(), batches.end(), v->type.shape[0]) != batches.end()) return true;
    const Node* n = v->producer;
    if (!n) return false;
    if (n->is("Reshape")) return match::rank(n->inputs[0]) >= 2 && n->inputs[0]->type.shape[1] == heads;
    if (!n->is("Add") && !n->is("Sub") && !n->is("Mul") && !n->is("Div") && !n->is("Neg") && !has_perm(n, {0, 2, 1})) return false;
    return std::any_of(n->inputs.begin(), n->inputs.end(), [&](const Value* in) { return comes_merged(in, heads, batches, depth + 1); });
  }

  Value* ints(std::vector<int64_t> v) {
    Value* c = graph_.new_constant(Tensor::from_ints(DType::kInt64, {static_cast<Dim>(v.size())}, v.data()), "axes");
    return c;
  }
  Value* number(double x) {
    Value* c = graph_.new_constant(Tensor::of<float>({}, {static_cast<float>(x)}), "mask");
    return c;
  }

  Value* transposed(Value* v) {
    const int rank = match::rank(v);
    Shape s = v->type.shape;
    std::swap(s[rank - 2], s[rank - 1]);
    Value* t = graph_.emit("Transpose", "", 13, {v}, Type::tensor(v->type.dtype, s), before_);
    t->producer->set("perm", rank == 4 ? std::vector<int64_t>{0, 1, 3, 2} : std::vector<int64_t>{0, 2, 1});
    return t;
  }
  Value* with_axis(Value* v, int axis) {
    Shape s = v->type.shape;
    s.insert(axis, 1);
    return graph_.emit("Unsqueeze", "", 13, {v, ints({axis})}, Type::tensor(v->type.dtype, s), before_);
  }
  // [BH,S,D] as [B,H,S,D]: one Reshape cannot say it where both B and S are unknown, but it can with S in its place.
  Value* part(Value* v, Dim heads) {
    Shape s = v->type.shape;
    const Dim batch = is_symbol(s[0]) ? graph_.symbols().fresh() : s[0] / heads;
    Value* four = with_axis(v, 0);
    return graph_.emit("Reshape", "", 13, {four, ints({-1, heads, 0, 0})}, Type::tensor(v->type.dtype, {batch, heads, s[1], s[2]}), before_);
  }
  // Where batch and heads are one axis: parted, or all of them the batch of one head.
  void four_axes(Operand& o) {
    if (o.rank() == 4) return;
    const Dim heads = std::exchange(o.parts, 0);
    if (o.order == Order::kHeads) {
      o.value = heads ? part(o.value, heads) : with_axis(o.value, 1);
      return;
    }
    const Shape& s = o.value->type.shape;
    if (!heads) {
      o.value = with_axis(o.value, 2);
      return;
    }
    const Dim batch = is_symbol(s[1]) ? graph_.symbols().fresh() : s[1] / heads;
    Value* four = with_axis(o.value, 2);  // so that D has its place
    o.value = graph_.emit("Reshape", "", 13, {four, ints({0, -1, heads, 0})}, Type::tensor(DType::kFloat, {s[0], batch, heads, s[2]}), before_);
  }

  Value* mask_of(const Mask& m, Dim heads) {
    Value* v = m.tensor ? m.tensor : m.condition;
    if (is_merged(m)) v = heads ? part(v, heads) : with_axis(v, 1);
    const Type type = Type::tensor(DType::kFloat, v->type.shape);
    if (m.tensor) return m.factor == 1 ? v : graph_.emit("Mul", "", 14, {v, number(m.factor)}, type, before_);
    Value *low = number(m.low * m.factor), *zero = number(0);
    return graph_.emit("Where", "", 16, {v, m.inverted ? low : zero, m.inverted ? zero : low}, type, before_);
  }

  // Only its rank matters, until types are inferred again.
  Shape mask_shape(const std::vector<Mask>& masks) {
    int rank = 0;
    for (const Mask& m : masks) rank = std::max(rank, match::rank(m.tensor ? m.tensor : m.condition));
    Shape s;
    for (int i = 0; i < rank; ++i) s.push_back(graph_.symbols().fresh());
    return s;
  }

  // Who asks for the shape of the scores gets it from those of Q and K.
  void shape_readers(const std::vector<Value*>& passed, const Node* product, Dim heads, const Operand& q, const Operand& k) {
    // Where batches might broadcast the scores' is not that of Q.
    const bool one_batch = q.extent(0) == k.extent(0) || heads > 1;
    for (Value* v : passed) {
      const std::vector<Use> uses = v->uses;
      for (const Use& u : uses) {
        if (!one_batch || !u.node->is("Shape") || u.node->has("start") || u.node->has("end")) continue;
        const int rank = match::rank(v);
        std::vector<Value*> parts;
        const auto take = [&](Value* of, int64_t axis) {
          Value* shape = graph_.emit("Shape", "", 13, {of}, Type::tensor(DType::kInt64, {match::rank(of)}), u.node);
          Value* one = graph_.emit("Gather", "", 13, {shape, ints({axis})}, Type::tensor(DType::kInt64, {1}), u.node);
          parts.push_back(one);
        };
        if (rank == match::rank(product->inputs[0])) {
          for (int i = 0; i + 1 < rank; ++i) take(product->inputs[0], i);
          take(product->inputs[1], rank - 1);
        } else if (rank == 4) {
          for (int i = 0; i < 3; ++i) take(q.value, q.axis(i));
          take(k.value, k.axis(2));
        } else {
          continue;
        }
        Value* all = graph_.emit("Concat", "", 13, parts, Type::tensor(DType::kInt64, {rank}), u.node);
        all->producer->set("axis", int64_t{0});
        graph_.replace_uses(u.node->outputs[0], all);
      }
    }
  }

  void emit(Node* product, const Operand& q, const Operand& k, const Operand& v, Value* mask, double scale, double cap, const char* zeroes, int rank,
            Dim heads) {
    Value* y = product->outputs[0];
    Shape shape{q.extent(0) == 1 ? k.extent(0) : q.extent(0), q.extent(1), q.extent(2), v.extent(3)};
    if (heads) {  // a Reshape that parts heads and rows as they are here
      const Node* apart = match::only_reader(y, "Reshape");
      const Shape* to = apart && match::rank(apart->output()) == 4 ? &apart->output()->type.shape : nullptr;
      if (to && (*to)[1] == heads && ((*to)[2] == y->type.shape[1] || (*to)[2] == shape[2]) && (*to)[3] == y->type.shape[2]) {
        y = apart->output();
        heads = 0;
        rank = 4;
      }
    }
    // A Transpose that moves the rows in front of the heads, or of all
    Order order = Order::kHeads;
    if (Node* merge = heads ? nullptr : match::only_reader(y, "Transpose")) {
      if (rank == 4 && has_perm(merge, {0, 2, 1, 3})) order = Order::kRows;
      if (rank == 4 ? has_perm(merge, {2, 0, 1, 3}) : has_perm(merge, {1, 0, 2})) order = Order::kRowsOutside;
      if (order != Order::kHeads) y = merge->outputs[0];
    }
    if (order == Order::kRows) std::swap(shape[1], shape[2]);
    if (order == Order::kRowsOutside) shape = {shape[2], shape[0], shape[1], shape[3]};
    std::vector<Value*> inputs{q.value, k.value, v.value};
    if (mask) inputs.push_back(mask);
    Value* out = graph_.emit("Attention", kTiercelDomain, 1, inputs, Type::tensor(DType::kFloat, shape), before_);
    Node* n = out->producer;
    n->name = product->name;
    n->set("scale", static_cast<float>(scale));
    n->set("q_layout", std::string(name_of(q.order)));
    n->set("k_layout", std::string(name_of(k.order)));
    n->set("v_layout", std::string(name_of(v.order)));
    n->set("y_layout", std::string(name_of(order)));
    if (cap != 0) n->set("softcap", static_cast<float>(cap));
    if (zeroes) n->set(zeroes, int64_t{1});
    if (heads) {
      Shape one = out->type.shape;
      one[0] = 1;
      one[1] = graph_.symbols().fresh();
      out = graph_.emit("Reshape", "", 13, {out, ints({1, -1, 0, 0})}, Type::tensor(DType::kFloat, one), before_);
    }
    const int64_t alone = heads ? 0 : order == Order::kHeads ? 1 : 2;  // the axis of extent 1
    if (rank == 3) out = graph_.emit("Squeeze", "", 13, {out, ints({alone})}, y->type, before_);
    graph_.replace_uses(y, out);
  }

  Graph& graph_;
  Node* before_ = nullptr;
};

}  // namespace

void fuse_attention(Graph& graph) {
  std::vector<Node*> found;
  for (const auto& n : graph.nodes()) if (n->is("Softmax")) found.push_back(n.get());
  Rewriter rewriter(graph);
  for (Node* n : found) rewriter.run(n);
  graph.erase_dead();
}

void attention_heads(Graph& graph) {
  for (const auto& n : graph.nodes()) {
    if (!n->is("Attention", kTiercelDomain)) continue;
    const char* const names[] = {"q_layout", "k_layout", "v_layout"};
    const auto set = [&](int i, const Operand& o) {
      graph.set_input(n.get(), i, o.value);
      n->set(names[i], std::string(name_of(o.order)));
    };
    const auto seen = [&](int i, bool repeats) {
      double scale = 1;
      const Operand as_is{n->inputs[i], order_of(n.get(), names[i])}, o = unwrap(as_is, repeats, scale);
      return scale == 1 && o.rank() == 4 ? o : as_is;
    };
    set(0, seen(0, false));
    const Operand k = seen(1, true), v = seen(2, true);
    const bool both = k.heads() == v.heads();  // else one is seen to be repeated, the other not
    set(1, both ? k : seen(1, false));
    set(2, both ? v : seen(2, false));
    Value* y = n->outputs[0];
    Node* merge = order_of(n.get(), "y_layout") == Order::kHeads ? match::only_reader(y, "Transpose") : nullptr;
    const bool rows = has_perm(merge, {0, 2, 1, 3});
    if (!rows && !has_perm(merge, {2, 0, 1, 3})) continue;
    y->type = merge->outputs[0]->type;
    n->set("y_layout", std::string(name_of(rows ? Order::kRows : Order::kRowsOutside)));
    graph.replace_uses(merge->outputs[0], y);
  }
  graph.erase_dead();
}

}  // namespace tiercel

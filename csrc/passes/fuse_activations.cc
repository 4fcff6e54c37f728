#include "passes/fuse_activations.h"

#include <algorithm>
#include <array>
#include <limits>
#include <optional>

#include "passes/match.h"

namespace tiercel {
namespace {

// A polynomial in x (degree at most 3) and t = f(g(x)) (at most 1), f being the one function that is not a polynomial. Two
// spellings of an activation are the same when their polynomials are.
struct Poly {
  static constexpr int kX = 4, kT = 2;
  std::array<std::array<double, kT>, kX> c{};  // of x^i t^j
  bool constant() const {
    for (int i = 0; i < kX; ++i) for (int j = 0; j < kT; ++j) if (i + j > 0 && c[i][j] != 0) return false;
    return true;
  }
};

Poly plus(const Poly& a, const Poly& b, double sign) {
  Poly r = a;
  for (int i = 0; i < Poly::kX; ++i) for (int j = 0; j < Poly::kT; ++j) r.c[i][j] += sign * b.c[i][j];
  return r;
}
std::optional<Poly> times(const Poly& a, const Poly& b) {
  Poly r;
  for (int i = 0; i < Poly::kX; ++i) for (int j = 0; j < Poly::kT; ++j)
    for (int k = 0; k < Poly::kX; ++k) for (int l = 0; l < Poly::kT; ++l) {
      const double v = a.c[i][j] * b.c[k][l];
      if (v == 0) continue;
      if (i + k >= Poly::kX || j + l >= Poly::kT) return std::nullopt;
      r.c[i + k][j + l] += v;
    }
  return r;
}

constexpr int kDepth = 8;  // nodes between a value and x

// v as a polynomial in x and t; nullopt when something else is in it.
std::optional<Poly> poly_of(const Value* v, const Value* x, const Value* t, int depth = kDepth) {
  Poly p;
  if (!v) return std::nullopt;
  if (v == x) { p.c[1][0] = 1; return p; }
  if (v == t) { p.c[0][1] = 1; return p; }
  if (const auto s = match::scalar(v)) { p.c[0][0] = *s; return p; }
  const Node* n = v->producer;
  if (!n || !n->domain.empty() || depth == 0) return std::nullopt;
  if (n->opset < 7 && n->attr_int("broadcast", 0) && n->has("axis")) return std::nullopt;
  if (n->op_type == "Neg") {
    const auto a = poly_of(n->input(0), x, t, depth - 1);
    return a ? std::optional(plus({}, *a, -1)) : std::nullopt;
  }
  if (n->op_type == "Pow") {
    const auto e = match::scalar(n->input(1));
    if (!e || (*e != 1 && *e != 2 && *e != 3)) return std::nullopt;
    const auto a = poly_of(n->input(0), x, t, depth - 1);
    std::optional<Poly> r = a;
    for (int i = 1; r && i < static_cast<int>(*e); ++i) r = times(*r, *a);
    return r;
  }
  const bool sum = n->op_type == "Add", difference = n->op_type == "Sub", product = n->op_type == "Mul", quotient = n->op_type == "Div";
  if (!sum && !difference && !product && !quotient) return std::nullopt;
  const auto a = poly_of(n->input(0), x, t, depth - 1);
  if (!a) return std::nullopt;
  const auto b = poly_of(n->input(1), x, t, depth - 1);
  if (!b) return std::nullopt;
  if (sum || difference) return plus(*a, *b, sum ? 1 : -1);
  if (product) return times(*a, *b);
  if (!b->constant() || b->c[0][0] == 0) return std::nullopt;
  Poly inverse;
  inverse.c[0][0] = 1 / b->c[0][0];
  return times(*a, inverse);
}

struct Term { int i, j; double value; };  // value x^i t^j

bool is_poly(const std::optional<Poly>& p, std::initializer_list<Term> terms, double tolerance) {
  if (!p) return false;
  Poly want;
  double largest = 0;
  for (const Term& t : terms) { want.c[t.i][t.j] = t.value; largest = std::fmax(largest, std::fabs(t.value)); }
  for (int i = 0; i < Poly::kX; ++i) for (int j = 0; j < Poly::kT; ++j) {
    const double w = want.c[i][j];
    if (std::fabs(p->c[i][j] - w) > tolerance * (w != 0 ? std::fabs(w) : largest)) return false;
  }
  return true;
}
// The factor k when p is k x.
std::optional<double> slope(const std::optional<Poly>& p) {
  if (!p || p->c[1][0] == 0) return std::nullopt;
  Poly rest = *p;
  rest.c[1][0] = 0;
  return rest.constant() && rest.c[0][0] == 0 ? std::optional(p->c[1][0]) : std::nullopt;
}

// What a fused node is made of.
struct Fused {
  const char* op = nullptr;
  int opset = 0;
  std::vector<std::pair<const char*, Attribute>> attributes;
};

constexpr double kRootHalf = 0.70710678118654752, kRoot2OverPi = 0.79788456080286536, kCubic = 0.044715;

class Fuser {
 public:
  Fuser(Graph& graph, Node* function)
      : graph_(graph), f_(function), t_(function->outputs[0]),
        tolerance_(t_->type.dtype == DType::kFloat || t_->type.dtype == DType::kDouble ? 1e-4 : 2e-3) {}

  // The last value above f that is an activation of something below f becomes one node, of the furthest thing below that it can be.
  void run() {
    Value* root = nullptr;
    Value* argument = nullptr;
    int highest = -1;
    Fused best;
    for (Value* x : candidates()) {
      const auto g = poly_of(argument_value(), x, nullptr);
      Value* r = t_;
      for (int level = 0; level < kDepth; ++level) {
        if (match::same_shape(r, x) && r->type.dtype == x->type.dtype) {
          Fused found = recognise(g, poly_of(r, x, t_), x);
          if (found.op && level >= highest) { root = r; argument = x; highest = level; best = std::move(found); }
        }
        if (!r->has_one_use() || r->uses[0].node->outputs.empty()) break;
        Node* reader = r->uses[0].node;
        if (!reader->domain.empty() || !reader->subgraphs().empty()) break;
        r = reader->outputs[0];
        if (!r) break;
      }
    }
    if (root) replace(root, argument, best);
  }

 private:
  // What the function is applied to; Tanh(Softplus(x)) counts as a function of x.
  Value* argument_value() const {
    if (f_->op_type == "Tanh")
      if (Node* softplus = match::made_by(f_->input(0), "Softplus")) return softplus->input(0);
    return f_->input(0);
  }
  bool of_softplus() const { return argument_value() != f_->input(0); }

  // Values that may be x: those that the argument is computed from by polynomial operations, nearest first.
  std::vector<Value*> candidates() const {
    std::vector<Value*> found{argument_value()};
    for (size_t i = 0; i < found.size() && found.size() < 16; ++i) {
      const Node* n = found[i]->producer;
      if (!n || !n->domain.empty()) continue;
      if (n->op_type != "Add" && n->op_type != "Sub" && n->op_type != "Mul" && n->op_type != "Div" && n->op_type != "Pow" && n->op_type != "Neg") continue;
      for (Value* v : n->inputs)
        if (v && !v->is_constant() && std::find(found.begin(), found.end(), v) == found.end()) found.push_back(v);
    }
    return found;
  }

  bool clips(double low, double high) const {
    const auto bound = [&](int input, const char* attribute) -> std::optional<double> {
      if (f_->opset >= 11) return match::scalar(f_->input(input));
      return f_->has(attribute) ? std::optional<double>(f_->attr_float(attribute, 0)) : std::nullopt;
    };
    const auto a = bound(1, "min"), b = bound(2, "max");
    return a && b && *a == low && std::fabs(*b - high) <= 1e-6 * high;
  }

  // g: the argument in x; r: a value above in x and t.
  Fused recognise(const std::optional<Poly>& g, const std::optional<Poly>& r, const Value* x) const {
    const std::string& f = f_->op_type;
    const double e = tolerance_;
    if (!g || !r) return {};
    const bool gated = is_poly(r, {{1, 1, 1}}, e), halves = is_poly(r, {{1, 0, 0.5}, {1, 1, 0.5}}, e);  // x t, x/2 (1 + t)
    if (f == "Erf" && halves && is_poly(g, {{1, 0, kRootHalf}}, e)) return {"Gelu", 20, {}};
    if (f == "Tanh" && !of_softplus()) {
      if (halves && is_poly(g, {{1, 0, kRoot2OverPi}, {3, 0, kRoot2OverPi * kCubic}}, e)) return {"Gelu", 20, {{"approximate", std::string("tanh")}}};
      if (is_poly(r, {{0, 0, 0.5}, {0, 1, 0.5}}, e) && is_poly(g, {{1, 0, 0.5}}, e)) return {"Sigmoid", 13, {}};
    }
    if (f == "Tanh" && of_softplus() && gated && is_poly(g, {{1, 0, 1}}, e)) return {"Mish", 18, {}};
    if (f == "Sigmoid" && gated) {
      if (is_poly(g, {{1, 0, 2 * kRoot2OverPi}, {3, 0, 2 * kRoot2OverPi * kCubic}}, e)) return {"Gelu", 20, {{"approximate", std::string("tanh")}}};
      if (const auto k = slope(g)) return {"Swish", 24, {{"alpha", static_cast<float>(*k)}}};
    }
    if (f == "HardSigmoid" && gated && is_poly(g, {{1, 0, 1}}, e) && std::fabs(f_->attr_float("alpha", 0.2f) - 1.0 / 6) < 1e-4 &&
        std::fabs(f_->attr_float("beta", 0.5f) - 0.5) < 1e-6)
      return {"HardSwish", 14, {}};
    if (f == "Clip") {
      // min(max(a x + b, 0), h) / h, alone or times x
      for (const double h : {1.0, 6.0}) {
        if (!clips(0, h)) continue;
        const double a = g->c[1][0] / h, b = g->c[0][0] / h;
        Poly rest = *g;
        rest.c[1][0] = 0;
        if (!rest.constant() || !(a > 0)) continue;
        if (is_poly(r, {{1, 1, 1 / h}}, e) && std::fabs(a - 1.0 / 6) < 1e-4 && std::fabs(b - 0.5) < 1e-4) return {"HardSwish", 14, {}};
        if (is_poly(r, {{0, 1, 1 / h}}, e) && b > 0) return {"HardSigmoid", 6, {{"alpha", static_cast<float>(a)}, {"beta", static_cast<float>(b)}}};
      }
    }
    return {};
  }

  void replace(Value* root, Value* x, const Fused& fused);

  Graph& graph_;
  Node* f_;
  Value* t_;
  double tolerance_;
};

void substitute(Graph& graph, Value* root, Value* x, const Fused& fused) {
  Value* v = graph.emit(fused.op, "", fused.opset, {x}, root->type, root->producer);
  v->producer->name = root->producer->name;
  for (const auto& [key, value] : fused.attributes) v->producer->set(key, value);
  const bool output = root->graph_output_uses > 0;
  graph.replace_uses(root, v);
  if (output) std::swap(v->name, root->name);
}

void Fuser::replace(Value* root, Value* x, const Fused& fused) { substitute(graph_, root, x, fused); }

// 1 + e^(k x) as {x, k}
std::optional<std::pair<Value*, double>> one_plus_exp(const Value* v) {
  const auto sum = match::with_scalar(match::made_by(v, "Add"));
  if (!sum || sum->second != 1) return std::nullopt;
  Node* exp = match::made_by(sum->first, "Exp");
  if (!exp || !sum->first->has_one_use()) return std::nullopt;
  Value* x = exp->input(0);
  if (Node* neg = match::made_by(x, "Neg")) return std::pair{neg->input(0), -1.0};
  if (const auto scaled = match::with_scalar(match::made_by(x, "Mul"))) return std::pair{scaled->first, scaled->second};
  return std::pair{x, 1.0};
}

// Spellings that are not polynomials of one function.
void fuse_quotients(Graph& graph, Node* n) {
  Value* out = n->output(0);
  const auto become = [&](Value* x, Fused f) { if (match::same_shape(out, x)) substitute(graph, out, x, f); };
  if (n->op_type == "Reciprocal" || n->op_type == "Div") {
    const auto d = one_plus_exp(n->inputs.back());
    if (!d || d->second >= 0) return;
    if (n->op_type == "Reciprocal" || match::is_scalar(n->input(0), 1, 0)) {
      if (d->second == -1) become(d->first, {"Sigmoid", 13, {}});
    } else if (n->input(0) == d->first) {
      become(d->first, {"Swish", 24, {{"alpha", static_cast<float>(-d->second)}}});
    }
  } else if (n->op_type == "Log") {
    const auto d = one_plus_exp(n->input(0));
    if (d && d->second == 1) become(d->first, {"Softplus", 1, {}});
  } else if (n->op_type == "Max" && n->inputs.size() == 2 && n->opset >= 8) {
    for (int i = 0; i < 2; ++i) {
      Value *x = n->inputs[i], *other = n->inputs[1 - i];
      if (match::is_scalar(other, 0, 0)) return become(x, {"Relu", 14, {}});
      const auto scaled = match::with_scalar(match::made_by(other, "Mul"));
      if (scaled && scaled->first == x && scaled->second >= 0 && scaled->second <= 1)
        return become(x, {"LeakyRelu", 16, {{"alpha", static_cast<float>(scaled->second)}}});
    }
  } else if (n->op_type == "Clip" && n->opset >= 11 && !n->input(2) && match::is_scalar(n->input(1), 0, 0)) {
    become(n->input(0), {"Relu", 14, {}});
  }
}

}  // namespace

void fuse_activations(Graph& graph) {
  std::vector<Node*> nodes;
  for (const auto& n : graph.nodes()) {
    const Value* v = n->output(0);
    if (n->domain.empty() && v && v->type.is_tensor() && v->type.ranked && is_float(v->type.dtype) && v->type.layout == Layout::kPlain) nodes.push_back(n.get());
  }
  for (Node* n : nodes) fuse_quotients(graph, n);
  for (Node* n : nodes) {
    const std::string& op = n->op_type;
    if (op == "Erf" || op == "Tanh" || op == "Sigmoid" || op == "HardSigmoid" || op == "Clip") Fuser(graph, n).run();
  }
  // Sigmoids and Softplus that were found above may be part of something larger.
  std::vector<Node*> made;
  for (const auto& n : graph.nodes())
    if (n->is("Sigmoid") || n->is("HardSigmoid") || n->is("Tanh"))
      if (std::find(nodes.begin(), nodes.end(), n.get()) == nodes.end() || n->op_type == "Tanh") made.push_back(n.get());
  for (Node* n : made)
    if (n->output(0) && !n->output(0)->uses.empty() && n->output(0)->type.ranked) Fuser(graph, n).run();
}

}  // namespace tiercel

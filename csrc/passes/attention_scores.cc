#include "passes/attention_scores.h"

#include <algorithm>
#include <cmath>

namespace tiercel::attention_match {
namespace {

constexpr double kLow = -1e30;  // a milder value would leave the masked scores a say
constexpr int kDeepest = 12;

bool walk(Value* x, double factor, int depth, Scores& s);

// One addend, if the product is below the other.
bool sum(Value* rest, Value* mask, double sign, double factor, int depth, Scores& s) {
  Scores tried = s;
  if (!match::is_f32(mask) || match::rank(mask) < 0 || match::rank(mask) > match::rank(rest)) return false;
  const bool merged = tried.heads != 0;
  tried.masks.push_back({mask, nullptr, false, factor * sign, 0, merged});
  if (!walk(rest, factor, depth + 1, tried)) return false;
  s = std::move(tried);
  return true;
}

bool walk(Value* x, double factor, int depth, Scores& s) {
  if (depth > kDeepest || !one_reader(x) || !x->producer || !match::is_f32(x)) return false;
  s.passed.push_back(x);
  Node* n = x->producer;
  if (n->is("MatMul")) {
    s.product = n;
    s.scale *= factor;
    return true;
  }
  if (n->is("Where")) {
    for (const int i : {1, 2}) {
      const auto low = match::scalar(n->inputs[3 - i]);
      if (!low || !(*low * factor <= kLow) || match::rank(n->inputs[i]) != match::rank(x)) continue;
      if (match::rank(n->inputs[0]) < 0 || match::rank(n->inputs[0]) > match::rank(x)) return false;
      s.masks.push_back({nullptr, n->inputs[0], i == 2, factor, *low, s.heads != 0});
      return walk(n->inputs[i], factor, depth + 1, s);
    }
    return false;
  }
  if (n->is("Mul"))
    if (const auto m = match::with_scalar(n); m && match::rank(m->first) == match::rank(x)) return walk(m->first, factor * m->second, depth + 1, s);
  if (n->is("Div"))
    if (const auto d = match::scalar(n->inputs[1]); d && *d != 0 && match::rank(n->inputs[0]) == match::rank(x))
      return walk(n->inputs[0], factor / *d, depth + 1, s);
  if (n->is("Tanh") && s.cap == 0 && factor != 0) {  // factor * tanh(t Q K^T), and no mask below
    const size_t masks = s.masks.size();
    s.cap = std::fabs(factor);
    if (!walk(n->inputs[0], 1, depth + 1, s) || s.masks.size() != masks) return false;
    s.scale *= factor;
    return true;
  }
  if (n->is("Add") || n->is("Sub")) {
    const double sign = n->is("Sub") ? -1 : 1;
    if (match::rank(n->inputs[0]) == match::rank(x) && sum(n->inputs[0], n->inputs[1], sign, factor, depth, s)) return true;
    return sign == 1 && match::rank(n->inputs[1]) == match::rank(x) && sum(n->inputs[1], n->inputs[0], 1, factor, depth, s);
  }
  if (n->is("Reshape") && !s.heads && match::rank(x) == 4 && match::rank(n->inputs[0]) == 3) {
    const Shape& to = x->type.shape;
    if (is_symbol(to[1]) || to[1] <= 0) return false;
    s.heads = to[1];
    return walk(n->inputs[0], factor, depth + 1, s);
  }
  return false;
}

}  // namespace

Node* the_reader(const Value* v) {
  Node* found = nullptr;
  for (const Use& u : v->uses) {
    if (u.node->is("Shape")) continue;
    if (found) return nullptr;
    found = u.node;
  }
  return v->graph_output_uses ? nullptr : found;
}

bool one_reader(const Value* v) { return the_reader(v) != nullptr; }

std::optional<Scores> match_scores(Value* x) {
  Scores s;
  if (!walk(x, 1, 0, s)) return std::nullopt;
  return s;
}

}  // namespace tiercel::attention_match

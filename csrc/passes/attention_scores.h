// What softmax is taken of, in scaled dot-product attention: scale * Q K^T plus masks, in any order and spelling, or with a soft cap.
#pragma once
#include <optional>
#include <vector>

#include "passes/match.h"

namespace tiercel::attention_match {

// A term of the scores: a tensor times a factor; or, with a condition, `low` where it is false (where it is true when `inverted`).
struct Mask {
  Value* tensor = nullptr;
  Value* condition = nullptr;
  bool inverted = false;
  double factor = 1;  // of `tensor`, or of `low`
  double low = 0;
  bool merged = false;  // broadcasts to [BH,S,T], batch and heads one axis, not to [B,H,S,T]
};

struct Scores {
  Node* product = nullptr;  // MatMul of Q and K^T
  double scale = 1;
  double cap = 0;                 // not 0: scale is of cap * tanh(scale / cap * Q K^T)
  std::vector<Mask> masks;
  Dim heads = 0;                  // not 0: the product is [BH,S,T], and a Reshape parts it into [B,H,S,T]
  std::vector<Value*> passed;     // from softmax's input down to the product
};

std::optional<Scores> match_scores(Value* x);
// Does nothing but Shape and one node read v, and is it no output?
bool one_reader(const Value* v);
Node* the_reader(const Value* v);  // that node; null when there is another

}  // namespace tiercel::attention_match

// Operands of scaled dot-product attention as exporters write them: what the fusion asks of Q, K and V.
#pragma once
#include <initializer_list>

#include "passes/match.h"

namespace tiercel::attention_match {

// How the axes lie: [B,H,S,D], [B,S,H,D] or [S,B,H,D].
enum class Order { kHeads, kRows, kRowsOutside };
const char* name_of(Order order);  // "BHSD", ...
Order order_of(const Node* attention, const char* attribute);

struct Operand {
  Value* value = nullptr;  // of rank 4; of rank 3 while batch and heads are one axis: [BH,S,D] (kHeads) or [S,BH,D] (kRowsOutside)
  Order order = Order::kHeads;
  Dim parts = 0;           // not 0: the value has rank 3 and stands for one of rank 4 with this many heads
  int rank() const { return match::rank(value); }
  Dim heads() const { return rank() == 4 ? extent(1) : parts; }
  int axis(int logical) const;  // where an axis of [B,H,S,D] lies in a value of rank 4
  Dim extent(int logical) const { return value->type.shape[axis(logical)]; }
};

bool has_perm(const Node* transpose, std::initializer_list<int64_t> perm);

// Walks through multiplications and divisions by a number.
Value* peel_scale(Value* v, double& scale);

// The tensor before its heads were moved in front of the rows, before each of its heads was repeated for a group of queries
// (`repeats`: may be asked of K and V alone), and before a Reshape parted batch and heads. Scales on the way are collected.
Operand unwrap(Operand o, bool repeats, double& scale);

// K out of K^T: a Transpose of the last two axes, alone, together with the split of heads, or between two Reshapes that
// merge and part the leading axes. A null value when there is none.
Operand untransposed(Value* v, double& scale);

// The value of rank 4 that a Reshape merged into v, [B,H,S,D] -> [BH,S,D]; null when there is none, or H is not known.
Value* before_merge(const Value* v);

}  // namespace tiercel::attention_match

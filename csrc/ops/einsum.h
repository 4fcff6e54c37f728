// Equations of Einsum: "bij,bjk->bik".
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/shape.h"

namespace tiercel {

// A label for each axis of each operand, and of the result. Letters are labels; the axes under an ellipsis are negative, counted
// from its last one (-1), so that ellipses of different ranks broadcast.
struct EinsumEquation {
  std::vector<std::vector<int>> in;
  std::vector<int> out;
  std::string error;  // not empty: what is wrong with the equation
};
EinsumEquation parse_einsum(std::string_view text, const std::vector<int>& ranks);

// The extent of a label, where operands broadcast: a number other than 1 that one of them has; else the only symbol among them, kUndecided where
// there are several, 1 when they all are.
inline constexpr Dim kUndecided = -2;
Dim einsum_extent(const EinsumEquation& e, const std::vector<Shape>& shapes, int label);

}  // namespace tiercel

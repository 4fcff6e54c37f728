#include <cmath>

#include "kernels/pointwise/unary.h"

namespace tiercel::reference {

double unary(Unary f, double x) {
  switch (f) {
    case Unary::kAbs: return std::fabs(x);
    case Unary::kNeg: return -x;
    case Unary::kExp: return std::exp(x);
    case Unary::kLog: return std::log(x);
    case Unary::kSqrt: return std::sqrt(x);
    case Unary::kReciprocal: return 1 / x;
    case Unary::kFloor: return std::floor(x);
    case Unary::kCeil: return std::ceil(x);
    case Unary::kRound: return std::nearbyint(x);
    case Unary::kSign: return x > 0 ? 1 : x < 0 ? -1 : x;
    case Unary::kSin: return std::sin(x);
    case Unary::kCos: return std::cos(x);
    case Unary::kErf: return std::erf(x);
    case Unary::kSquare: return x * x;
  }
  return x;
}

}  // namespace tiercel::reference

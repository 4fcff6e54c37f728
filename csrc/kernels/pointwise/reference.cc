#include <cmath>

#include "kernels/pointwise/binary.h"
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
    case Unary::kTanh: return std::tanh(x);
    case Unary::kSigmoid: return 1 / (1 + std::exp(-x));
    case Unary::kTan: return std::tan(x);
    case Unary::kAsin: return std::asin(x);
    case Unary::kAcos: return std::acos(x);
    case Unary::kAtan: return std::atan(x);
    case Unary::kSinh: return std::sinh(x);
    case Unary::kCosh: return std::cosh(x);
    case Unary::kAsinh: return std::asinh(x);
    case Unary::kAcosh: return std::acosh(x);
    case Unary::kAtanh: return std::atanh(x);
  }
  return x;
}

double binary(Binary f, double a, double b) {
  switch (f) {
    case Binary::kAdd: return a + b;
    case Binary::kSub: return a - b;
    case Binary::kMul: return a * b;
    case Binary::kDiv: return a / b;
    case Binary::kMin: return std::isnan(a) || std::isnan(b) ? NAN : a < b ? a : b;
    case Binary::kMax: return std::isnan(a) || std::isnan(b) ? NAN : a > b ? a : b;
    case Binary::kPow: return std::pow(a, b);
    case Binary::kPRelu: return a < 0 ? a * b : a;
    default: return NAN;
  }
}

}  // namespace tiercel::reference

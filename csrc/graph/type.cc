#include "graph/type.h"

namespace tiercel {

std::string Type::str() const {
  std::string s = "tensor(" + std::string(dtype_name(dtype)) + ")";
  if (is_tensor()) return ranked ? s + shape.str() : s;
  switch (kind) {
    case Kind::kSequence: return "seq(" + s + ")";
    case Kind::kOptional: return "optional(" + s + ")";
    case Kind::kOptionalSequence: return "optional(seq(" + s + "))";
    default: return "map";
  }
}

}  // namespace tiercel

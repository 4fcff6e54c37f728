// Type: what is known of a value before it is computed.
#pragma once
#include <string>

#include "base/tensor.h"

namespace tiercel {

enum class Kind : uint8_t { kTensor, kSequence, kOptional, kOptionalSequence, kMap };

struct Type {
  Kind kind = Kind::kTensor;
  DType dtype = DType::kUndefined;  // of the tensor, or of the elements
  bool ranked = false;              // is `shape` meaningful?
  Layout layout = Layout::kPlain;
  Shape shape;                      // extents may be symbols

  static Type tensor(DType t) { Type y; y.dtype = t; return y; }
  static Type tensor(DType t, const Shape& s, Layout layout = Layout::kPlain) {
    Type y;
    y.dtype = t; y.ranked = true; y.shape = s; y.layout = layout;
    return y;
  }
  bool is_tensor() const { return kind == Kind::kTensor; }
  bool static_shape() const { return kind == Kind::kTensor && ranked && shape.known(); }
  std::string str() const;  // "tensor(float)[1,3,?]"
};


}  // namespace tiercel

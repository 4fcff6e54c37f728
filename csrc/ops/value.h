// RuntimeValue: what a value can be while a model runs: a tensor, a sequence of tensors, an optional of either, or nothing.
#pragma once
#include <memory>
#include <variant>
#include <vector>

#include "base/tensor.h"

namespace tiercel {

struct Sequence {
  DType dtype = DType::kUndefined;
  std::vector<Tensor> items;
};

class RuntimeValue {
 public:
  RuntimeValue() = default;  // an optional input left out, or an empty optional
  RuntimeValue(Tensor t) : v_(std::move(t)) {}
  RuntimeValue(std::shared_ptr<const Sequence> s) : v_(std::move(s)) {}
  bool empty() const { return v_.index() == 0; }
  bool is_tensor() const { return v_.index() == 1; }
  bool is_sequence() const { return v_.index() == 2; }
  const Tensor& tensor() const { return std::get<Tensor>(v_); }
  const std::shared_ptr<const Sequence>& sequence() const { return std::get<2>(v_); }

 private:
  std::variant<std::monostate, Tensor, std::shared_ptr<const Sequence>> v_;
};

}  // namespace tiercel

// From Graph to the messages of a model.
#pragma once
#include <unordered_map>

#include "graph/graph.h"
#include "onnx/message.h"

namespace tiercel::onnx {

// Tensors that go to a file beside the model, each at a page boundary; the same memory once.
class DataFile {
 public:
  static constexpr int64_t kPage = 4096;  // smaller tensors stay in the model
  explicit DataFile(std::string name) : name_(std::move(name)) {}
  const std::string& name() const { return name_; }
  int64_t place(const Tensor& t);  // its offset
  struct Piece { int64_t offset; Tensor tensor; };
  const std::vector<Piece>& pieces() const { return pieces_; }

 private:
  std::string name_;
  int64_t end_ = 0;
  std::vector<Piece> pieces_;
  std::unordered_map<const void*, size_t> placed_;
};

// Metadata of tensors and values that are not in row-major order; see tensor.h, Layout.
inline constexpr std::string_view kLayoutKey = "ai.tiercel.layout", kShapeKey = "ai.tiercel.shape";
inline constexpr std::string_view kBlockedLayout = "NCHW16c";

// The bytes of a tensor that is not of strings, and who keeps them; without a copy of a deferred one.
Tensor::Source bytes_of_tensor(const Tensor& t);

Message tensor_message(const Tensor& t, std::string_view name, DataFile* data);
Message type_message(const Type& t, const SymbolTable& symbols);
Message value_message(std::string_view name, const Type& t, const SymbolTable& symbols);
Message model_message(const Model& model, DataFile* data);  // data: null keeps all tensors inline
int64_t constant_bytes(const Graph& g);                      // bodies included

}  // namespace tiercel::onnx

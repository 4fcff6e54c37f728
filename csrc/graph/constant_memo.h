// Constants that passes compute of other constants, remembered: a graph that is optimised again, some of its weights changed, computes only those
// that depend on the changed ones. The others are the same memory as before, by which a session knows what it packed.
#pragma once
#include <functional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/tensor.h"

namespace tiercel {

// The bytes of a tensor, or those that a deferred one will copy: equal for tensors that share memory.
inline const void* memory_of(const Tensor& t) { return t.is_deferred() ? t.deferred_bytes().data : t.data(); }

class ConstantMemo {
 public:
  using Make = std::function<std::vector<Tensor>()>;
  // What `make` gave for the same memory of `from` under the same key, which says all else that the result depends on.
  std::vector<Tensor> get(std::string key, const std::vector<Tensor>& from, const Make& make);
  void begin();  // of an optimisation: what the last one did not ask for is forgotten

 private:
  struct Entry {
    std::vector<Tensor> from, made;  // `from` keeps its memory, so that no other tensor can have it
    bool used = true;
  };
  std::unordered_map<std::string, Entry> entries_;
};

}  // namespace tiercel

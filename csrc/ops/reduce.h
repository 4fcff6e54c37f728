// Reductions of tensors over any set of axes, as the Reduce* operators and others use them.
#pragma once
#include <vector>

#include "kernels/reduce/reduce.h"
#include "ops/numeric.h"

namespace tiercel {

enum class Reduction : uint8_t { kSum, kMean, kMax, kMin, kProd, kL1, kL2, kLogSum, kLogSumExp, kSumSquare };

// A shape as alternating kept and reduced axes: extents of 1 are dropped, neighbours of a kind are merged.
struct ReduceView {
  struct Axis { int64_t extent, stride; };  // stride in elements
  std::vector<Axis> kept, reduced;          // outermost first
  int64_t outputs = 1, count = 1;           // products of the kept and of the reduced extents
  bool inner_reduced = false;               // is the last axis a reduced one?
  ReduceView(const Shape& shape, const bool* reduce);
};

// A reduction of f32 for one shape. Work is cut by the reduced extents alone, so a result depends neither on the thread count
// nor on how many others are computed beside it.
class FloatReduction {
 public:
  FloatReduction(Reduction kind, const Shape& shape, const bool* reduce);
  int64_t workspace() const;  // bytes
  double work() const { return static_cast<double>(view_.outputs) * static_cast<double>(view_.count); }
  // Collective; without a barrier at its end.
  void run(const float* x, float* y, void* workspace, Worker& worker) const;

 private:
  void pass(ReduceMap map, const float* x, const float* shift, float* y, float* partial, Reduction finish, Worker& worker) const;
  void reduce_inner(ReduceMap map, const float* x, const float* shift, float* y, float* partial, Reduction finish, Worker& worker) const;
  void reduce_outer(ReduceMap map, const float* x, const float* shift, float* y, float* partial, Reduction finish, Worker& worker) const;
  void finish(Reduction kind, float* y, int64_t n, const float* shift) const;

  Reduction kind_;
  ReduceView view_;
  int64_t parts_ = 1;  // pieces that each output's sum is cut into
};

}  // namespace tiercel

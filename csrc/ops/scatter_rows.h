// Rows of updates that go to places of the data: how ScatterElements and ScatterND run. Where rows meet, they apply in their order, whatever the threads.
#pragma once
#include <span>
#include <vector>

#include "kernels/scatter/scatter.h"
#include "ops/indexing.h"

namespace tiercel {

// A lane is a set of rows that may meet: `steps` of them, each of `width` neighbouring elements in updates and data, of which each goes to one of
// `extent` places. Rows of different lanes never do. Which place: table[row], or, where that is kMixedRow, the row's own indices.
class ScatterRows {
 public:
  struct Axis { int64_t extent, data, updates, rows; };  // strides: in elements; in rows of the table

  // `combine`: null where rows are copied.
  ScatterRows(Element e, ScatterFn combine, int64_t width, int64_t extent, int64_t stride, Axis steps, std::span<const Axis> lanes);

  // Element by element, without a table: rows are one element wide, and a lane's updates and indices lie one after another.
  bool by_elements() const { return width_ == 1 && steps_.updates == 1 && steps_.rows == 1 && by_index_; }
  void has_indices() { by_index_ = true; }

  // Fails unless every index is in [-extent, extent). Fills the table where there is one: `rows` of `width` indices each. Collective, no barrier.
  template <class Index> void look_up(const Index* index, int64_t rows, int64_t width, int64_t* table, const std::string& label, Worker& w) const;
  // Collective; after a barrier behind look_up. `index`: null where no row is mixed.
  template <class Index> void apply(const void* updates, void* data, const int64_t* table, const Index* index, Worker& w) const;

 private:
  struct Part { int64_t col, cols, first, last; };  // columns of the rows, and the places [first, last)
  class Batch;
  struct Position;
  template <class Index> void elements(Batch& batch, const Index* index, int64_t n, int64_t data, int64_t step, int64_t updates, const Part& part) const;
  template <class Index> void run_lane(Batch& batch, const Position& at, const int64_t* table, const Index* index, const Part& part) const;

  ScatterFn f_;
  int64_t size_, width_, extent_, stride_, count_ = 1;  // count_: of lanes
  Axis steps_;
  std::vector<Axis> lanes_;
  bool by_index_ = false;
};

}  // namespace tiercel

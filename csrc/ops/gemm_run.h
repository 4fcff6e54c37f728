// Matrix products shared by a team: numpy's matmul as a batch of GEMMs, how B is brought into panels, and how the work is cut.
#pragma once
#include <optional>
#include <vector>

#include "kernels/gemm/gemm.h"
#include "ops/context.h"

namespace tiercel {

// Offsets, in elements, of one product of a batch.
struct GemmBatch {
  int64_t a, b, c;
};

// C[m,n] = A[m,k] B[k,n] for each entry of `batches`. Strides in elements; C is contiguous along n.
struct GemmProblem {
  int64_t m = 0, n = 0, k = 0;
  int64_t a_row = 0, a_k = 1, b_k = 0, b_col = 1, c_row = 0;
  std::vector<GemmBatch> batches;
  double flops() const;
};

// What MatMul's relatives ask for. trans_batch: the first axis is that of the rows, those between are batch axes.
struct MatMulForm {
  bool trans_a = false, trans_b = false, trans_batch_a = false, trans_batch_b = false;
};

// Output shape of numpy.matmul (1-D operands, broadcast batch axes), or an error through ctx.
Shape matmul_shape(const InferContext& ctx, const Shape& a, const Shape& b, const MatMulForm& form = {});
// The product of known shapes. `fold`: batch axes of A may become rows where B has none.
GemmProblem matmul_problem(const Shape& a, const Shape& b, const MatMulForm& form = {}, bool fold = true);

// An addend that broadcasts to the output: strides of its rows and columns, and an offset for each batch (empty: all zero).
struct AddendForm {
  int64_t row = 0, col = 0;
  std::vector<int64_t> batches;
  float scale = 1;
};
// `addend` against an output that `problem` fills; `squeezed_row`, `squeezed_col`: axes that the output lacks as an operand
// was 1-D. nullopt: it is not regular along the folded rows; ask again with a problem that is not folded.
std::optional<AddendForm> addend_form(const Shape& addend, const Shape& out, const GemmProblem& problem, bool squeezed_row,
                                      bool squeezed_col);

// How an f32 GemmProblem runs. Immutable: shared by all runs of a Program.
class GemmRun {
 public:
  GemmRun() = default;
  // B comes at run time.
  explicit GemmRun(GemmProblem problem);
  // B is input `input` of the node, a constant: packed through ctx.pack.
  GemmRun(const PrepareContext& ctx, int input, GemmProblem problem);

  float alpha = 1;
  AddendForm add[2];
  Activation activation;

  const GemmProblem& problem() const { return p_; }
  int64_t workspace(int threads) const;  // bytes
  double bytes() const;                  // memory traffic, for ctx.cost

  // Collective; no barrier at its end. `b` is not read when it was packed; null addends are none.
  void run(Worker& worker, const float* a, const float* b, float* c, const float* add0, const float* add1, void* workspace) const;

  // Rows [first, first + rows) alone, by the calling thread, where B is one packed matrix and A is not transposed. `a` and `c` begin at the first
  // of them; addends are as in run(). `next`: packed weights that this core will want after these.
  void strip(int64_t first, int64_t rows, const float* a, int64_t a_row, float* c, int64_t c_row, const float* add0, const float* add1,
             const float* next) const;
  const float* packed() const { return static_cast<const float*>(packed_.get()); }

 private:
  GemmEpilogue epilogue(size_t batch, int64_t i, int64_t j, const float* add0, const float* add1) const;
  enum class Source { kPacked, kInPlace, kPackOnce, kPackEach };  // B: constant; as it lies; packed by the team; by each task
  void plan();
  int64_t packed_floats() const { return dot_ ? p_.k * p_.n : gemm_packed_floats(gemm(), p_.k, p_.n); }
  int64_t task_floats() const { return round_up(p_.k * round_up(block_n_, gemm().lanes), 16); }  // B of one task, packed
  void pack(const float* b, int64_t first, int64_t last, float* packed) const;  // columns [first, last)

  GemmProblem p_;
  Source source_ = Source::kInPlace;
  bool dot_ = false;                    // few columns: GemmKernels::dot, B packed as rows along k
  Buffer packed_;
  std::vector<int64_t> packed_at_;      // by batch, in floats
  bool copy_a_ = false;                 // A is brought into rows first
  int64_t block_m_ = 1, block_n_ = 1;   // of a task
  int64_t tasks_m_ = 1, tasks_n_ = 1, grain_ = 1;
  // Tasks side by side go to one thread: they share rows of A where A is the larger operand (rows stay with the thread that made them),
  // else columns of B (every weight is read by one thread).
  bool by_rows_ = false;
  int64_t row_of(int64_t task) const { return (by_rows_ ? task / tasks_n_ : task % tasks_m_) * block_m_; }
  int64_t column_of(int64_t task) const { return (by_rows_ ? task % tasks_n_ : task / tasks_m_) * block_n_; }
};

// The other types (double, int32, int64, uint32, uint64); integers wrap around. Collective; no barrier at its end.
void plain_gemm_run(Worker& worker, DType dtype, const GemmProblem& problem, const void* a, const void* b, void* c);

}  // namespace tiercel

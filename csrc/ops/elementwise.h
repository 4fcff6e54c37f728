// What elementwise operators share: broadcasting resolved to a few loops, tiles that fit L1, NCHW16c, known small integers.
#pragma once
#include <optional>
#include <vector>

#include "kernels/cast/convert.h"
#include "ops/registry.h"

namespace tiercel {

// Elements of a tile: what is converted or gathered at a time, on the stack of the thread.
inline constexpr int64_t kTile = 1024;
inline constexpr int64_t kTileBytes = kTile * 8;
struct alignas(64) TileBuffer {
  char data[kTileBytes];
  int filled_for = -1;  // the scalar operand that lies here already
};

// How the elements of an operand lie in a tile: one by one, one for all, or 16 that repeat (channels of NCHW16c).
enum class Access : uint8_t { kVector, kScalar, kRow };

// An operand that broadcasts against a blocked tensor: blocked itself, one element, or plain with nothing but N and C above 1; the last is
// laid out as whole blocks first.
struct BlockedOperand {
  Shape shape;            // as it lies in memory, to broadcast against storage_shape of the result
  int64_t rows = 0, channels = 0;  // rows > 0: to be padded by pad_channels
  int64_t padded_count() const { return rows * round_up(channels, kChannelBlock); }
};
// nullopt when it cannot stay as it is. `out`: the logical shape of the result.
std::optional<BlockedOperand> blocked_operand(const Type& operand, const Shape& out);
void pad_channels(const float* x, float* y, int64_t rows, int64_t channels, float pad);

// The loops of an elementwise operator: adjacent extents that all operands walk alike are merged.
class Loops {
 public:
  Loops() = default;
  // Each operand's shape broadcasts to `out`, with leading extents left out as numpy does. `bytes`: of an element of each.
  Loops(const Shape& out, const std::vector<Shape>& operands, const std::vector<int>& bytes);

  // Converts operand i as it is read.
  void load_as(int i, Convert convert, int bytes) { operands_[i].load = convert; operands_[i].tile_bytes = bytes; }
  int64_t count() const { return count_; }
  bool plain(int i) const { return operands_[i].kind == kFull && !operands_[i].load; }  // one run of memory, as it is

  struct Tile {
    int64_t begin, n;
    int64_t index[kMaxRank];
  };
  // Calls f(tile) on tiles that cover [begin, end). `most`: elements a tile may have; kTile where fetch() needs a buffer.
  template <class F> void for_tiles(int64_t begin, int64_t end, int64_t most, F&& f) const {
    if (begin >= end) return;
    Tile t;
    t.begin = begin;
    start(t);
    while (t.begin < end) {
      t.n = std::min({most, end - t.begin, run_ - t.begin % run_});
      f(t);
      advance(t);
    }
  }
  // Operand i of a tile. Gives a pointer into `base` where it can, else fills `buffer`. `rows`, `scalars`: what the caller can
  // work with beside kVector.
  const void* fetch(int i, const void* base, const Tile& tile, TileBuffer& buffer, Access& access, bool scalars = false, bool rows = false) const;
  const void* fetch(int i, const void* base, const Tile& tile, TileBuffer& buffer) const {
    Access a;
    return fetch(i, base, tile, buffer, a);
  }
  // f(i, at): element i of the result comes from element at[k] of each operand k; for elements that cannot be copied as bytes.
  template <class F> void for_offsets(F&& f) const {
    Tile t;
    std::vector<int64_t> at(operands_.size());
    for (t.begin = 0; t.begin < count_; ++t.begin) {
      start(t);
      for (size_t k = 0; k < at.size(); ++k) {
        at[k] = 0;
        for (int d = 0; d < rank_; ++d) at[k] += t.index[d] * operands_[k].stride[d];
      }
      f(t.begin, at.data());
    }
  }
  // Does every fetch give a pointer into memory (so that tiles may be of any length)?
  bool direct(bool scalars, bool rows) const;

 private:
  enum Kind : uint8_t { kFull, kOne, kPattern };
  struct Operand {
    Kind kind = kFull;
    Access access = Access::kVector;  // within a run, for kPattern with runs
    int bytes = 0, tile_bytes = 0;
    int64_t stride[kMaxRank] = {};
    Convert load;
  };
  void start(Tile& t) const;
  void advance(Tile& t) const;
  void gather(const Operand& o, const char* base, const Tile& tile, char* to) const;

  int rank_ = 0;
  int64_t extent_[kMaxRank];
  int64_t count_ = 0;
  int64_t run_ = 1;      // elements of a run: the innermost extents, within which patterns are simple; count_ when there are none
  bool gathers_ = false; // runs are too short to be worth it: patterns are gathered
  std::vector<Operand> operands_;
};

void fill_tile(void* to, const void* value, int bytes, int64_t n);

// Sets to zero the channels past C of elements [begin, end) of a blocked f32 tensor.
void clear_padding(float* y, const Shape& shape, int64_t begin, int64_t end);

// Where the operands of a kernel lie: at its inputs, or, for plain ones among blocked (BlockedOperand::rows), in whole blocks that are
// packed once (constants) or laid out at the start of each run.
class Operands {
 public:
  // The shape input i takes part in the loops with, when the result is blocked.
  Shape add_blocked(PrepareContext& ctx, int i, float pad);
  int64_t scratch_bytes() const { return scratch_ * static_cast<int64_t>(sizeof(float)); }  // from the start of the workspace
  // Collective; after it base() is valid.
  void lay_out(const Args& args, Worker& worker) const;
  const void* base(const Args& args, int i) const {
    for (const Padded& p : padded_)
      if (p.input == i) return p.packed ? p.packed.get() : args.workspace<float>() + p.offset;
    return args.in(i);
  }

 private:
  struct Padded {
    int input;
    int64_t rows, channels, offset;
    float pad;
    Buffer packed;
  };
  std::vector<Padded> padded_;
  int64_t scratch_ = 0;  // floats of workspace
};

// ---- Inference -------------------------------------------------------------------------------------------------------

// Output = type of input 0, layout and all.
void infer_same(InferContext& ctx);
// The shape of input 1 as it broadcasts to input 0: itself, or, before opset 7, placed by `broadcast` and `axis`.
Shape aligned_operand(InferContext& ctx, const Shape& a, const Shape& b);
Shape aligned_operand(const Node& node, const Shape& a, const Shape& b);
// Type of a binary operator's output, dtype `result`; sets nothing but the type. Both inputs must be of one dtype unless `mixed`.
void infer_broadcast(InferContext& ctx, DType result, bool mixed = false);
// Fails unless `ok`: "input 0 should be <expected>, got tensor(string)".
void check_dtype(InferContext& ctx, int input, bool ok, const char* expected);
bool is_arithmetic(DType t);  // integers of whole bytes, f16, bf16, f32, f64

// The known elements of a small integer or bool input; nullopt when there are none.
std::optional<std::vector<Dim>> small_ints(InferContext& ctx, int i);
// A computed element: itself when dtype t holds it, else a fresh symbol.
Dim known(InferContext& ctx, DType t, __int128 value);

// f of the known elements of the inputs, broadcast (rank 0 or 1), becomes the output's known elements. f gets one element of each
// input and gives the result, or a symbol (ctx.fresh() when it cannot tell).
template <class F> void carry_ints(InferContext& ctx, F f) {
  std::vector<std::vector<Dim>> in;
  size_t n = 1;
  for (int i = 0; i < ctx.num_inputs(); ++i) {
    auto v = small_ints(ctx, i);
    if (!v) return;
    in.push_back(std::move(*v));
    if (in.back().size() != 1) n = in.back().size();
  }
  for (const auto& v : in) if (v.size() != 1 && v.size() != n) return;
  std::vector<Dim> out(n), element(in.size());
  for (size_t k = 0; k < n; ++k) {
    for (size_t i = 0; i < in.size(); ++i) element[i] = in[i][in[i].size() == 1 ? 0 : k];
    out[k] = f(element);
  }
  ctx.set_ints(0, std::move(out));
}

// ---- Running ---------------------------------------------------------------------------------------------------------

// The dtype that arithmetic on t is done in: f32 for the 16-bit floats, else t.
DType compute_dtype(DType t);
int element_bytes(DType t);  // whole bytes; 0 for strings and sub-byte types

// How a team shares the elements of a result: as they lie, `grain` at a time, or, of large blocked images, by pixels through all channels. Convolutions
// are cut by pixels, too: so a thread reads from its own caches what it wrote. But where an operand has one value a channel that was computed
// (squeeze-and-excitation), the channels' means were taken of the image, and threads have read it as it lies.
class ElementCut {
 public:
  ElementCut() = default;
  ElementCut(const PrepareContext& ctx, int64_t grain);  // of output 0
  template <class F> void run(Worker& worker, F&& f) const {  // f(begin, end)
    if (!chunks_) return worker.parallel_for(count_, grain_, f);
    worker.parallel_for(images_ * chunks_, 1, [&](int64_t i, int64_t end) {
      for (; i < end; ++i) {
        const int64_t c = i % chunks_, first = pixels_ * c / chunks_ * kChannelBlock, last = pixels_ * (c + 1) / chunks_ * kChannelBlock;
        for (int64_t plane = i / chunks_ * blocks_, after = plane + blocks_; plane < after; ++plane)
          f(plane * pixels_ * kChannelBlock + first, plane * pixels_ * kChannelBlock + last);
      }
    });
  }

 private:
  int64_t count_ = 0, grain_ = 1;
  int64_t chunks_ = 0, images_ = 0, blocks_ = 0, pixels_ = 0;  // chunks_: of an image; 0: as the elements lie
};

// A kernel out of `f(args, begin, end)` on chunks of the `count` elements of output 0, with its cost and the grain that goes with it.
// flops: an element's. Bytes: of all inputs and outputs.
template <class F> void run_elementwise(PrepareContext& ctx, int64_t count, double flops, F f) {
  double bytes = 0;
  for (int i = 0; i < ctx.num_inputs(); ++i)
    if (ctx.has_input(i)) bytes += static_cast<double>(bytes_of(ctx.dtype(i), storage_count(ctx.shape(i), ctx.layout(i))));
  for (int i = 0; i < ctx.num_outputs(); ++i)
    if (ctx.has_output(i)) bytes += static_cast<double>(bytes_of(ctx.out_dtype(i), storage_count(ctx.out_shape(i), ctx.out_layout(i))));
  ctx.cost(flops * static_cast<double>(count), bytes);
  const int64_t grain = flops <= 4 ? 32768 : flops <= 16 ? 16384 : 8192;
  ctx.run([cut = ElementCut(ctx, grain), f = std::move(f)](const Args& args, Worker& worker) {
    cut.run(worker, [&](int64_t begin, int64_t end) { f(args, begin, end); });
  });
}

}  // namespace tiercel

#include "ops/combine.h"

#include <limits>

namespace tiercel {
namespace {

class CombineKernel final : public Kernel {
 public:
  CombineKernel(PrepareContext& ctx, const Combination& c) : c_(c), out_shape_(ctx.out_shape(0)) {
    const Layout layout = ctx.out_layout(0);
    std::vector<Shape> shapes;
    std::vector<int> bytes;
    for (int i = 0; i < 2; ++i) {
      bytes.push_back(element_bytes(ctx.dtype(i)));
      if (layout == Layout::kPlain) {
        shapes.push_back(i == 0 ? ctx.shape(0) : c.second_shape ? *c.second_shape : aligned_operand(ctx.node, ctx.shape(0), ctx.shape(1)));
        continue;
      }
      shapes.push_back(operands_.add_blocked(ctx, i, c.pads[i]));
    }
    loops_ = Loops(storage_shape(out_shape_, layout), shapes, bytes);
    const DType reads[2] = {c.first, c.second};
    bool whole = true;  // no conversion of an operand
    for (int i = 0; i < 2; ++i) {
      const Convert load(ctx.dtype(i), reads[i]);
      if (load) loops_.load_as(i, load, element_bytes(reads[i])), whole = false;
    }
    cut_ = ElementCut(ctx, c.flops <= 4 ? 32768 : 8192);
    store_ = Convert(c.result, ctx.out_dtype(0));
    out_bytes_ = element_bytes(ctx.out_dtype(0));
    most_ = whole && !store_ && loops_.direct(c.pairs, c.pairs) ? std::numeric_limits<int64_t>::max() : kTile;
    clear_ = layout == Layout::kBlocked && out_shape_[1] % kChannelBlock != 0 && !c.keeps_zero;
    for (int i = 0; i < 2; ++i)
      if (bytes[i] == out_bytes_ && storage_count(ctx.shape(i), ctx.layout(i)) == loops_.count() && ctx.layout(i) == layout)
        ctx.inplace(0, i);
    double traffic = static_cast<double>(loops_.count() * out_bytes_);
    for (int i = 0; i < 2; ++i) traffic += static_cast<double>(storage_count(ctx.shape(i), ctx.layout(i)) * bytes[i]);
    ctx.cost(c.flops * static_cast<double>(loops_.count()), traffic);
  }

  void run(const Args& args, Worker& worker) const override {
    operands_.lay_out(args, worker);
    const void* const base[2] = {operands_.base(args, 0), operands_.base(args, 1)};
    char* const y = args.out<char>(0);
    cut_.run(worker, [&](int64_t begin, int64_t end) {
      TileBuffer a, b, result;
      loops_.for_tiles(begin, end, most_, [&](const Loops::Tile& t) {
        void* const to = store_ ? static_cast<void*>(result.data) : y + t.begin * out_bytes_;
        compute(base, t, a, b, to);
        if (store_) store_(to, y + t.begin * out_bytes_, t.n);
      });
      if (clear_) clear_padding(reinterpret_cast<float*>(y), out_shape_, begin, end);
    });
  }

 private:
  void compute(const void* const* base, const Loops::Tile& t, TileBuffer& a, TileBuffer& b, void* to) const {
    if (!c_.pairs) {
      const void* p = loops_.fetch(0, base[0], t, a);
      return c_.vectors(p, loops_.fetch(1, base[1], t, b), to, t.n);
    }
    Access p_access, q_access;
    const void* p = loops_.fetch(0, base[0], t, a, p_access, true, true);
    const void* q = loops_.fetch(1, base[1], t, b, q_access, true, p_access == Access::kVector);
    if (p_access == Access::kVector) {
      const Pair pair = q_access == Access::kVector ? Pair::kVV : q_access == Access::kScalar ? Pair::kVS : Pair::kVR;
      c_.pairs[static_cast<int>(pair)](p, q, to, t.n);
    } else {
      // Every run has an operand that goes along it: the second, when the first does not.
      c_.pairs[static_cast<int>(p_access == Access::kScalar ? Pair::kSV : Pair::kRV)](p, q, to, t.n);
    }
  }

  Combination c_;
  Shape out_shape_;
  Loops loops_;
  Convert store_;
  int out_bytes_ = 0;
  int64_t most_ = kTile;
  bool clear_ = false;
  Operands operands_;
  ElementCut cut_;
};

}  // namespace

void combine_elements(PrepareContext& ctx, const Combination& c) { ctx.kernel(std::make_unique<CombineKernel>(ctx, c)); }

}  // namespace tiercel

// Max, Min, Sum and Mean of one or more tensors, broadcast (from opset 8).
#include "kernels/pointwise/binary.h"
#include "ops/elementwise.h"
#include "ops/grad.h"

namespace tiercel {
namespace {

template <Binary B, bool mean> void infer(InferContext& ctx) {
  ctx.check(ctx.num_inputs() > 0, "at least one input is required");
  const DType t = ctx.dtype(0);
  check_dtype(ctx, 0, is_arithmetic(t) && (B != Binary::kAdd || is_float(t)), B == Binary::kAdd ? "a tensor of floats" : "a numeric tensor");
  bool ranked = ctx.ranked(0);
  Layout layout = ctx.type(0).layout;
  for (int i = 1; i < ctx.num_inputs(); ++i) {
    if (ctx.dtype(i) != t) ctx.fail("all inputs should have the same type");
    ranked = ranked && ctx.ranked(i);
    if (ctx.type(i).layout == Layout::kBlocked) layout = Layout::kBlocked;
  }
  if (!ranked) return ctx.set_output(0, Type::tensor(t));
  Shape out = ctx.shape(0);
  for (int i = 1; i < ctx.num_inputs(); ++i) {
    if (ctx.node.opset < 8) {
      ctx.check(out.rank() == ctx.shape(i).rank(), "all shapes should be equal before opset 8");
      for (int d = 0; d < out.rank(); ++d) out[d] = unify(ctx, out[d], ctx.shape(i)[d], "extents of the inputs before opset 8");
    } else {
      out = broadcast_shapes(ctx, out, ctx.shape(i));
    }
  }
  if (layout == Layout::kBlocked)
    for (int i = 0; i < ctx.num_inputs(); ++i)
      ctx.check(t == DType::kFloat && ctx.node.opset >= 8 && blocked_operand(ctx.type(i), out).has_value(),
                "these operands cannot be combined in the blocked layout");
  ctx.set_output(0, Type::tensor(t, out, layout));
  if (is_integer(t))
    carry_ints(ctx, [&](const auto& v) {
      Dim r = v[0];
      for (Dim d : v) {
        if (d == r) continue;
        if (is_symbol(d) || is_symbol(r)) return ctx.fresh();
        r = B == Binary::kMin ? std::min(r, d) : std::max(r, d);
      }
      return r;
    });
}

class VariadicKernel final : public Kernel {
 public:
  VariadicKernel(PrepareContext& ctx, Binary f, bool mean) : inputs_(ctx.num_inputs()), mean_(mean), out_shape_(ctx.out_shape(0)) {
    const DType t = ctx.dtype(0), compute = compute_dtype(t);
    const Layout layout = ctx.out_layout(0);
    std::vector<Shape> shapes;
    bool plain = false;  // then the padding of a blocked result is not zero
    for (int i = 0; i < inputs_; ++i) {
      shapes.push_back(layout == Layout::kPlain ? ctx.shape(i) : operands_.add_blocked(ctx, i, 0));
      plain |= ctx.layout(i) == Layout::kPlain;
    }
    clear_ = layout == Layout::kBlocked && plain;
    bytes_ = element_bytes(t);
    loops_ = Loops(storage_shape(out_shape_, layout), shapes, std::vector<int>(shapes.size(), bytes_));
    cut_ = ElementCut(ctx, 16384);
    store_ = Convert(compute, t);
    if (const Convert load(t, compute); load)
      for (int i = 0; i < inputs_; ++i) loops_.load_as(i, load, element_bytes(compute));
    f_ = binary_fn(f, compute);
    divide_ = binary_fn(Binary::kDiv, compute);
    const float n32 = static_cast<float>(inputs_);
    const double n64 = inputs_;
    fill_tile(divisor_, compute == DType::kFloat ? static_cast<const void*>(&n32) : &n64, element_bytes(compute), mean ? kTile : 0);
    const double n = static_cast<double>(loops_.count());
    ctx.cost(inputs_ * n, (inputs_ + 1) * n * bytes_);
  }

  void run(const Args& args, Worker& worker) const override {
    operands_.lay_out(args, worker);
    cut_.run(worker, [&](int64_t begin, int64_t end) {
      TileBuffer a, b, result;
      loops_.for_tiles(begin, end, kTile, [&](const Loops::Tile& tile) {
        char* const y = args.out<char>(0) + tile.begin * bytes_;
        void* const to = store_ ? static_cast<void*>(result.data) : y;
        const void* p = loops_.fetch(0, operands_.base(args, 0), tile, a);
        for (int i = 1; i < inputs_; ++i) {
          f_(p, loops_.fetch(i, operands_.base(args, i), tile, b), to, tile.n);
          p = to;
        }
        if (mean_) divide_(to, divisor_, to, tile.n);
        if (store_) store_(to, y, tile.n);
      });
      if (clear_) clear_padding(args.out<float>(0), out_shape_, begin, end);
    });
  }

 private:
  int inputs_, bytes_ = 0;
  bool mean_, clear_ = false;
  ElementCut cut_;
  Shape out_shape_;
  Loops loops_;
  Operands operands_;
  Convert store_;
  BinaryFn f_ = nullptr, divide_ = nullptr;
  alignas(64) char divisor_[kTileBytes];
};

template <Binary B, bool mean> void prepare(PrepareContext& ctx) {
  if (ctx.num_inputs() == 1) return ctx.alias(0, 0);
  ctx.kernel(std::make_unique<VariadicKernel>(ctx, B, mean));
}

static const OpRegistration rows({
    {"Max", "", 1, infer<Binary::kMax, false>, prepare<Binary::kMax, false>, nullptr, kAnyLayout},
    {"Min", "", 1, infer<Binary::kMin, false>, prepare<Binary::kMin, false>, nullptr, kAnyLayout},
    {"Sum", "", 1, infer<Binary::kAdd, false>, prepare<Binary::kAdd, false>, nullptr, kAnyLayout},
    {"Mean", "", 1, infer<Binary::kAdd, true>, prepare<Binary::kAdd, true>, nullptr, kAnyLayout},
});

// ---- Gradients ----------------------------------------------------------------------------------------------------------

void grad_extreme(GradContext& c) {  // equal ones share
  GraphWriter& w = c.w;
  std::vector<Value*> masks;
  Value* count = nullptr;
  for (int i = 0; i < static_cast<int>(c.dx.size()); ++i) {
    masks.push_back(w.op("Cast", {w.op("Equal", {c.x(i), c.y()})}, {{"to", static_cast<int64_t>(w.dtype(c.y()))}}));
    count = count ? w.add(count, masks.back()) : masks.back();
  }
  Value* const each = w.div(c.dy(), count);
  for (int i = 0; i < static_cast<int>(masks.size()); ++i)
    if (c.wants(i)) c.set_summed(i, w.mul(each, masks[static_cast<size_t>(i)]));
}
void grad_sum(GradContext& c) {
  for (int i = 0; i < static_cast<int>(c.dx.size()); ++i) c.set_summed(i, c.dy());
}
void grad_mean(GradContext& c) {
  Value* const each = c.w.scale(c.dy(), 1.0 / static_cast<double>(c.dx.size()));
  for (int i = 0; i < static_cast<int>(c.dx.size()); ++i) c.set_summed(i, each);
}

static const GradRegistration grads({{"Max", "", grad_extreme}, {"Min", "", grad_extreme}, {"Sum", "", grad_sum}, {"Mean", "", grad_mean}});

}  // namespace
}  // namespace tiercel

#include "ops/pointwise_chain.h"

#include <new>

#include "ops/activation.h"
#include "ops/elementwise.h"

namespace tiercel {
namespace {

constexpr std::string_view kUnaryNames[] = {
#define TIERCEL_ROW(name) #name,
    TIERCEL_VECTOR_UNARY(TIERCEL_ROW) TIERCEL_LIBRARY_UNARY(TIERCEL_ROW)
#undef TIERCEL_ROW
};
constexpr std::string_view kBinaryNames[kNumVectorBinary] = {"Add", "Sub", "Mul", "Div", "Min", "Max", "Pow", "PRelu"};

template <size_t n> int find(const std::string_view (&names)[n], std::string_view name) {
  for (size_t i = 0; i < n; ++i) if (names[i] == name) return static_cast<int>(i);
  return -1;
}

bool set_operation(PointwiseStep& s, std::string_view name) {
  if (const int b = find(kBinaryNames, name); b >= 0) {
    s.kind = PointwiseStep::kBinary;
    s.binary = static_cast<Binary>(b);
  } else if (const int u = find(kUnaryNames, name); u >= 0) {
    s.kind = PointwiseStep::kUnary;
    s.unary = static_cast<Unary>(u);
  } else if (const auto a = activation_kind(name)) {
    s.kind = PointwiseStep::kActivation;
    s.activation.kind = *a;
  } else {
    return false;
  }
  return true;
}

std::string_view name_of(const PointwiseStep& s) {
  switch (s.kind) {
    case PointwiseStep::kUnary: return kUnaryNames[static_cast<int>(s.unary)];
    case PointwiseStep::kBinary: return kBinaryNames[static_cast<int>(s.binary)];
    default: return activation_name(s.activation.kind);
  }
}

// ---- Kernel ----------------------------------------------------------------------------------------------------------

class ChainKernel final : public Kernel {
 public:
  explicit ChainKernel(PrepareContext& ctx) : inputs_(ctx.num_inputs()), out_shape_(ctx.out_shape(0)) {
    const Layout layout = ctx.out_layout(0);
    const bool blocked = layout == Layout::kBlocked;
    std::vector<Shape> shapes;
    for (int i = 0; i < inputs_; ++i) shapes.push_back(blocked ? operands_.add_blocked(ctx, i, 0) : ctx.shape(i));
    loops_ = Loops(storage_shape(out_shape_, layout), shapes, std::vector<int>(shapes.size(), sizeof(float)));
    clear_ = blocked;
    for (int i = 0; i < inputs_; ++i)
      if (loops_.plain(i) && storage_count(ctx.shape(i), ctx.layout(i)) == loops_.count()) ctx.inplace(0, i);

    const std::vector<PointwiseStep> steps = pointwise_steps(ctx.node);
    assign_buffers(steps);
    double flops = 0, bytes = 4.0 * static_cast<double>(loops_.count());
    for (const PointwiseStep& s : steps) flops += s.flops();
    for (int i = 0; i < inputs_; ++i) bytes += 4.0 * static_cast<double>(storage_count(ctx.shape(i), ctx.layout(i)));
    ctx.cost(flops * static_cast<double>(loops_.count()), bytes);
    cut_ = ElementCut(ctx, flops <= 16 ? 32 * kTile : flops <= 64 ? 16 * kTile : 8 * kTile);
    scratch_offset_ = round_up(operands_.scratch_bytes(), kAlignment);
    ctx.workspace(scratch_offset_ + ctx.threads() * buffers_ * static_cast<int64_t>(sizeof(TileBuffer)));
  }

  void run(const Args& args, Worker& worker) const override {
    operands_.lay_out(args, worker);
    TileBuffer* const buffers = reinterpret_cast<TileBuffer*>(args.workspace<char>() + scratch_offset_) + worker.index() * buffers_;
    cut_.run(worker, [&](int64_t begin, int64_t end) {
      for (int i = 0; i < buffers_; ++i) buffers[i].filled_for = -1;
      loops_.for_tiles(begin, end, kTile, [&](const Loops::Tile& tile) { run_tile(args, tile, buffers); });
      if (clear_) clear_padding(args.out<float>(0), out_shape_, begin, end);
    });
  }

 private:
  struct Step {
    PointwiseStep::Kind kind;
    UnaryFn unary;
    const BinaryFn* pairs;
    Activation activation;
    int a, b;    // registers
    int buffer;  // of the result; -1: the output itself
  };

  // A buffer for each input (used when it has to be gathered) and for each result, reused when its last reader is past.
  void assign_buffers(const std::vector<PointwiseStep>& steps) {
    const int n = static_cast<int>(steps.size());
    std::vector<int> last(n + inputs_, -1), place(n + inputs_, -1), free;
    for (int i = 0; i < n; ++i) {
      last[steps[i].a] = i;
      if (steps[i].b >= 0) last[steps[i].b] = i;
    }
    buffers_ = inputs_;
    for (int i = 0; i < n; ++i) {
      const PointwiseStep& s = steps[i];
      // The result may lie over an operand that dies here: the functions allow it.
      for (int r : {s.a, s.b})
        if (r >= inputs_ && last[r] == i && place[r] >= 0) { free.push_back(place[r]); place[r] = -1; }
      int buffer = -1;
      if (i + 1 < n) {
        if (free.empty()) free.push_back(buffers_++);
        buffer = free.back();
        free.pop_back();
        place[inputs_ + i] = buffer;
        if (last[inputs_ + i] < 0) { free.push_back(buffer); place[inputs_ + i] = -1; }  // nobody reads it
      }
      Step step{s.kind, nullptr, nullptr, s.activation, s.a, s.b, buffer};
      if (s.kind == PointwiseStep::kUnary) step.unary = unary_fn(s.unary, DType::kFloat);
      if (s.kind == PointwiseStep::kBinary) step.pairs = tiercel::binary().f32[static_cast<int>(s.binary)];
      steps_.push_back(step);
    }
  }

  void run_tile(const Args& args, const Loops::Tile& tile, TileBuffer* buffers) const {
    constexpr int kMost = 64;
    const void* at[kMost];
    Access access[kMost];
    for (int i = 0; i < inputs_; ++i)
      at[i] = loops_.fetch(i, operands_.base(args, i), tile, buffers[i], access[i], true, true);
    float* const y = args.out<float>(0) + tile.begin;
    int r = inputs_;
    for (const Step& s : steps_) {
      float* const to = s.buffer < 0 ? y : reinterpret_cast<float*>(buffers[s.buffer].data);
      const void *a = at[s.a], *b = s.b < 0 ? nullptr : at[s.b];
      const Access pa = access[s.a], pb = s.b < 0 ? Access::kVector : access[s.b];
      if (s.kind == PointwiseStep::kBinary) {
        Pair pair = Pair::kVV;
        if (pa == Access::kVector) pair = pb == Access::kVector ? Pair::kVV : pb == Access::kScalar ? Pair::kVS : Pair::kVR;
        else if (pb == Access::kVector) pair = pa == Access::kScalar ? Pair::kSV : Pair::kRV;
        else {
          spread(a, pa, to, tile.n);
          if (a == b && s.a == s.b) b = to;
          a = to;
          pair = s.a == s.b ? Pair::kVV : pb == Access::kScalar ? Pair::kVS : Pair::kVR;
        }
        s.pairs[static_cast<int>(pair)](a, b, to, tile.n);
      } else {
        if (pa != Access::kVector) { spread(a, pa, to, tile.n); a = to; }
        if (s.kind == PointwiseStep::kUnary) s.unary(a, to, tile.n);
        else unary().activate(s.activation, static_cast<const float*>(a), to, tile.n);
      }
      at[r] = to;
      access[r++] = Access::kVector;
    }
  }

  // A scalar or a row of 16, repeated.
  static void spread(const void* from, Access access, float* to, int64_t n) {
    if (access == Access::kScalar) return fill_tile(to, from, sizeof(float), n);
    for (int64_t i = 0; i < n; i += kChannelBlock) std::copy_n(static_cast<const float*>(from), kChannelBlock, to + i);
  }

  int inputs_, buffers_ = 0;
  Shape out_shape_;
  Loops loops_;
  Operands operands_;
  std::vector<Step> steps_;
  bool clear_ = false;
  int64_t scratch_offset_ = 0;
  ElementCut cut_;
};

// ---- Operator --------------------------------------------------------------------------------------------------------

void infer(InferContext& ctx) {
  const std::vector<PointwiseStep> steps = pointwise_steps(ctx.node);
  ctx.check(!steps.empty() && static_cast<int>(steps.size()) + ctx.num_inputs() <= 64, "between 1 and 64 registers are supported");
  Layout layout = Layout::kPlain;
  bool ranked = true;
  for (int i = 0; i < ctx.num_inputs(); ++i) {
    check_dtype(ctx, i, ctx.dtype(i) == DType::kFloat, "tensor(float)");
    ranked = ranked && ctx.ranked(i);
    if (ctx.type(i).layout == Layout::kBlocked) layout = Layout::kBlocked;
  }
  if (!ranked) return ctx.set_output(0, Type::tensor(DType::kFloat));
  Shape out = ctx.shape(0);
  for (int i = 1; i < ctx.num_inputs(); ++i) out = broadcast_shapes(ctx, out, ctx.shape(i));
  if (layout == Layout::kBlocked)
    for (int i = 0; i < ctx.num_inputs(); ++i)
      ctx.check(out.rank() >= 2 && blocked_operand(ctx.type(i), out).has_value(), "these operands cannot be combined in the blocked layout");
  ctx.set_output(0, Type::tensor(DType::kFloat, out, layout));
}

void prepare(PrepareContext& ctx) { ctx.kernel(std::make_unique<ChainKernel>(ctx)); }

static const OpRegistration rows({{"Pointwise", kTiercelDomain, 1, infer, prepare, nullptr, kAnyLayout}});

}  // namespace

double PointwiseStep::flops() const {
  if (kind == kBinary) return binary == Binary::kPow ? 40 : binary == Binary::kDiv ? 4 : 1;
  if (kind == kActivation)
    switch (activation.kind) {
      case ActivationKind::kNone: case ActivationKind::kRelu: case ActivationKind::kLeakyRelu: case ActivationKind::kClip:
      case ActivationKind::kHardSigmoid: case ActivationKind::kHardSwish: case ActivationKind::kThresholdedRelu:
      case ActivationKind::kAffine: return 2;
      default: return 25;
    }
  if (static_cast<int>(unary) >= kNumVectorUnary) return 100;
  switch (unary) {
    case Unary::kExp: case Unary::kLog: case Unary::kSin: case Unary::kCos: case Unary::kErf: case Unary::kTanh: case Unary::kSigmoid: return 20;
    case Unary::kSqrt: case Unary::kReciprocal: return 4;
    default: return 1;
  }
}

std::optional<PointwiseStep> pointwise_step(const Node& node) {
  PointwiseStep s;
  if (const auto a = as_activation(node)) {
    s.kind = PointwiseStep::kActivation;
    s.activation = *a;
    return s;
  }
  if (!node.domain.empty()) return std::nullopt;
  const int operands = static_cast<int>(node.inputs.size());
  if (node.op_type == "Sum" && operands == 2) {
    s.kind = PointwiseStep::kBinary;
    s.binary = Binary::kAdd;
  } else if (activation_kind(node.op_type) || !set_operation(s, node.op_type)) {
    return std::nullopt;
  }
  if (operands != s.operands() || (operands == 2 && node.opset < 8)) return std::nullopt;  // numpy's broadcasting alone
  return s;
}

void set_pointwise_steps(Node& node, const std::vector<PointwiseStep>& steps) {
  std::vector<std::string> ops;
  std::vector<int64_t> operands;
  std::vector<float> params;
  for (const PointwiseStep& s : steps) {
    ops.emplace_back(name_of(s));
    operands.insert(operands.end(), {s.a, s.b});
    params.insert(params.end(), {s.activation.alpha, s.activation.beta});
  }
  node.set("ops", std::move(ops));
  node.set("operands", std::move(operands));
  node.set("params", std::move(params));
}

std::vector<PointwiseStep> pointwise_steps(const Node& node) {
  const auto ops = node.attr_strings("ops");
  const auto operands = node.attr_ints("operands");
  const auto params = node.attr_floats("params");
  const auto broken = [&](const auto&... what) { fail(Code::kInvalidGraph, node.label(), ": ", what...); };
  if (operands.size() != 2 * ops.size() || params.size() != 2 * ops.size())
    broken("operands and params should have two elements for each of the ", ops.size(), " ops");
  std::vector<PointwiseStep> steps;
  for (size_t i = 0; i < ops.size(); ++i) {
    PointwiseStep s;
    if (!set_operation(s, ops[i])) broken("\"", ops[i], "\" is not an elementwise operation");
    s.activation.alpha = params[2 * i];
    s.activation.beta = params[2 * i + 1];
    const int64_t registers = static_cast<int64_t>(node.inputs.size() + i);
    for (int k = 0; k < s.operands(); ++k)
      if (operands[2 * i + k] < 0 || operands[2 * i + k] >= registers) broken("step ", i, " reads register ", operands[2 * i + k], " of ", registers);
    s.a = static_cast<int>(operands[2 * i]);
    s.b = s.operands() == 2 ? static_cast<int>(operands[2 * i + 1]) : -1;
    steps.push_back(s);
  }
  return steps;
}

}  // namespace tiercel

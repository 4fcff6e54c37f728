#include "ops/numeric.h"

#include "kernels/cast/half.h"

namespace tiercel {
namespace {

class NoCache final : public PackCache {
 public:
  Buffer get(const Value*, const std::string&, const std::function<Buffer()>& pack) override { return pack(); }
};

class HalfKernel final : public Kernel {
 public:
  struct Operand { int slot; DType dtype; int64_t count, at; };
  HalfKernel(std::unique_ptr<Kernel> inner, int inputs, int outputs, std::vector<Operand> in, std::vector<Operand> out, int64_t bytes)
      : inner_(std::move(inner)), inputs_(inputs), outputs_(outputs), in_(std::move(in)), out_(std::move(out)), bytes_(bytes) {}

  void run(const Args& args, Worker& worker) const override {
    char* scratch = args.workspace<char>();
    std::vector<void*> table(static_cast<size_t>(inputs_ + outputs_));
    std::vector<int32_t> slots(table.size());
    for (int i = 0; i < inputs_ + outputs_; ++i) {
      void* p = i < inputs_ ? const_cast<void*>(args.in(i)) : args.out(i - inputs_);
      table[static_cast<size_t>(i)] = p;
      slots[static_cast<size_t>(i)] = p ? i : -1;
    }
    for (const Operand& o : in_) {
      float* to = reinterpret_cast<float*>(scratch + o.at);
      const char* from = static_cast<const char*>(args.in(o.slot));
      worker.parallel_for(o.count, 16384, [&](int64_t b, int64_t e) { halves_to_floats(o.dtype, from + 2 * b, to + b, e - b); });
      table[static_cast<size_t>(o.slot)] = to;
    }
    for (const Operand& o : out_) table[static_cast<size_t>(o.slot)] = scratch + o.at;
    worker.barrier();
    inner_->run(Args(table.data(), slots.data(), inputs_, scratch + bytes_), worker);
    worker.barrier();
    for (const Operand& o : out_) {
      const float* from = reinterpret_cast<const float*>(scratch + o.at);
      char* to = static_cast<char*>(args.out(o.slot - inputs_));
      worker.parallel_for(o.count, 16384, [&](int64_t b, int64_t e) { floats_to_halves(o.dtype, from + b, to + 2 * b, e - b); });
    }
  }

 private:
  std::unique_ptr<Kernel> inner_;
  int inputs_, outputs_;
  std::vector<Operand> in_, out_;
  int64_t bytes_;
};

}  // namespace

void halves_to_floats(DType t, const void* from, float* to, int64_t n) {
  const HalfKernels& k = half();
  (t == DType::kFloat16 ? k.f16_to_f32 : k.bf16_to_f32)(static_cast<const uint16_t*>(from), to, n);
}

void floats_to_halves(DType t, const float* from, void* to, int64_t n) {
  const HalfKernels& k = half();
  (t == DType::kFloat16 ? k.f32_to_f16 : k.f32_to_bf16)(from, static_cast<uint16_t*>(to), n);
}

void prepare_half(PrepareContext& ctx, PrepareFn prepare) {
  const int n = ctx.num_inputs(), m = ctx.num_outputs();
  std::vector<HalfKernel::Operand> in, out;
  int64_t bytes = 0;
  const auto add = [&](auto& list, int slot, DType t, const Shape& shape, Layout layout) {
    const int64_t count = storage_count(shape, layout);
    list.push_back({slot, t, count, bytes});
    bytes += round_up(4 * count, static_cast<int64_t>(kAlignment));
  };
  std::vector<ValueInfo> in_infos(static_cast<size_t>(n)), out_infos(static_cast<size_t>(m));
  std::vector<const ValueInfo*> in_pointers(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) {
    if (!ctx.has_input(i)) continue;
    ValueInfo& v = in_infos[static_cast<size_t>(i)];
    v.type = Type::tensor(ctx.dtype(i), ctx.shape(i), ctx.layout(i));
    v.ints = ctx.ints(i);
    v.constant = ctx.constant(i);
    in_pointers[static_cast<size_t>(i)] = &v;
    if (!is_half(ctx.dtype(i))) continue;
    add(in, i, ctx.dtype(i), ctx.shape(i), ctx.layout(i));
    v.type.dtype = DType::kFloat;
    v.constant = nullptr;
  }
  for (int i = 0; i < m; ++i) {
    if (!ctx.has_output(i)) continue;
    out_infos[static_cast<size_t>(i)].type = Type::tensor(ctx.out_dtype(i), ctx.out_shape(i), ctx.out_layout(i));
    if (!is_half(ctx.out_dtype(i))) continue;
    add(out, n + i, ctx.out_dtype(i), ctx.out_shape(i), ctx.out_layout(i));
    out_infos[static_cast<size_t>(i)].type.dtype = DType::kFloat;
  }
  if (in.empty() && out.empty()) return prepare(ctx);
  NoCache packs;
  PrepareContext inner(ctx.node, in_pointers, out_infos, packs, ctx.threads());
  prepare(inner);
  if (!inner.kernel_) {  // aliases only: they hold for any dtype
    for (auto [o, i] : inner.aliases_) ctx.alias(o, i);
    return;
  }
  ctx.kernel(std::make_unique<HalfKernel>(std::move(inner.kernel_), n, m, std::move(in), std::move(out), bytes));
  ctx.workspace(bytes + inner.workspace_);
  if (inner.cost_) ctx.cost(inner.cost_->flops, inner.cost_->bytes);
  if (inner.serial_) ctx.serial();
}

void check_real(const InferContext& ctx, int i) {
  ctx.check(is_real(ctx.dtype(i)), "input ", i, " should be float, double, float16 or bfloat16, got ", dtype_name(ctx.dtype(i)));
}

}  // namespace tiercel

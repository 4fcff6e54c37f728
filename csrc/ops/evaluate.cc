#include "ops/evaluate.h"

namespace tiercel {
namespace {

class NoCache final : public PackCache {
 public:
  Buffer get(const Value*, const std::string&, const std::function<Buffer()>& pack) override { return pack(); }
};

}  // namespace

Prepared prepare_node(const Node& node, const OpRow& row, std::span<const ValueInfo* const> in, SymbolTable& symbols,
                      PackCache& packs, int threads) {
  std::vector<ValueInfo> out(node.outputs.size());
  InferContext infer(node, in, out, symbols);
  row.infer(infer);
  Prepared p;
  for (size_t i = 0; i < out.size(); ++i) {
    p.outputs.push_back(out[i].type);
    if (node.outputs[i] && !out[i].type.static_shape())
      fail(Code::kRuntimeException, node.label(), ": the shape of output ", i, " depends on data");
  }
  PrepareContext ctx(node, in, out, packs, threads);
  row.prepare(ctx);
  p.kernel = std::move(ctx.kernel_);
  p.aliases = std::move(ctx.aliases_);
  p.workspace = ctx.workspace_;
  p.cost = ctx.cost_;
  p.serial = ctx.serial_;
  return p;
}

std::vector<RuntimeValue> evaluate(const Node& node, const std::vector<RuntimeValue>& inputs, BodyRunner* bodies) {
  const OpRow& row = op_of(node);
  std::vector<ValueInfo> infos(inputs.size());
  std::vector<const ValueInfo*> in(inputs.size());
  bool tensors = true;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].empty()) continue;
    in[i] = &infos[i];
    if (!inputs[i].is_tensor()) {
      tensors = false;
      infos[i].type.kind = Kind::kSequence;
      infos[i].type.dtype = inputs[i].sequence()->dtype;
      continue;
    }
    const Tensor& t = inputs[i].tensor();
    infos[i].type = Type::tensor(t.dtype(), t.shape(), t.layout());
    infos[i].constant = &t;
  }
  SymbolTable symbols;
  bool prepared = row.prepare && tensors;
  if (prepared && row.eval) {  // prefer the prepared form; eval where the data decide the shapes
    std::vector<ValueInfo> out(node.outputs.size());
    InferContext infer(node, in, out, symbols);
    row.infer(infer);
    for (size_t i = 0; i < out.size(); ++i) if (node.outputs[i] && !out[i].type.static_shape()) prepared = false;
  }
  if (!prepared) {
    if (!row.eval) fail(Code::kNotImplemented, node.label(), ": not supported for sequences and optionals");
    EvalContext ctx(node, inputs, static_cast<int>(node.outputs.size()), bodies);
    Worker w = alone();
    row.eval(ctx, w);
    return std::move(ctx.outputs());
  }
  std::vector<ValueInfo> out(node.outputs.size());
  InferContext infer(node, in, out, symbols);
  row.infer(infer);
  for (size_t i = 0; i < out.size(); ++i)
    if (node.outputs[i] && !out[i].type.static_shape())
      fail(Code::kRuntimeException, node.label(), ": the shape of output ", i, " depends on data");
  std::vector<Tensor> results = evaluate_inferred(node, row, in, out);
  std::vector<RuntimeValue> outputs(results.size());
  for (size_t i = 0; i < outputs.size(); ++i) if (node.outputs[i]) outputs[i] = std::move(results[i]);
  return outputs;
}

std::vector<Tensor> evaluate_inferred(const Node& node, const OpRow& row, std::span<const ValueInfo* const> in, std::span<const ValueInfo> out) {
  NoCache cache;
  PrepareContext ctx(node, in, out, cache);
  row.prepare(ctx);
  constexpr size_t kFew = 8;  // operands
  void* few[kFew];
  int32_t few_slots[kFew];
  const size_t operands = in.size() + out.size();
  std::vector<void*> many(operands > kFew ? operands : 0);
  std::vector<int32_t> many_slots(many.size());
  void** table = many.empty() ? few : many.data();
  int32_t* slots = many.empty() ? few_slots : many_slots.data();
  auto slot = [&, n = 0](void* data) mutable { slots[n] = data ? n : -1; table[n++] = data; };
  for (const ValueInfo* i : in) slot(i ? i->constant->data() : nullptr);
  std::vector<Tensor> outputs(out.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!node.outputs[i]) { slot(nullptr); continue; }
    const Type& type = out[i].type;
    Tensor& t = outputs[i];
    for (auto [o, from] : ctx.aliases_)
      if (o == static_cast<int>(i)) {
        const Tensor& source = *in[from]->constant;
        t = Tensor(type.dtype, type.shape, source.data(), source.owner(), type.layout);
      }
    if (!t.defined()) t = Tensor(type.dtype, type.shape, type.layout);
    slot(t.data());
  }
  if (ctx.kernel_) {
    const Buffer scratch = ctx.workspace_ ? allocate(static_cast<size_t>(ctx.workspace_)) : nullptr;
    Worker w = alone();
    ctx.kernel_->run(Args(table, slots, static_cast<int>(in.size()), scratch.get()), w);
  }
  return outputs;
}

}  // namespace tiercel

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
  NoCache cache;
  const Prepared p = prepare_node(node, row, in, symbols, cache);
  std::vector<void*> table;
  std::vector<int32_t> slots;
  auto slot = [&](void* data) { slots.push_back(data ? static_cast<int32_t>(table.size()) : -1); if (data) table.push_back(data); };
  for (const RuntimeValue& v : inputs) slot(v.empty() ? nullptr : v.tensor().data());
  std::vector<RuntimeValue> outputs(node.outputs.size());
  for (size_t i = 0; i < outputs.size(); ++i) {
    if (!node.outputs[i]) { slot(nullptr); continue; }
    Tensor t;
    for (auto [o, from] : p.aliases)
      if (o == static_cast<int>(i)) {
        const Tensor& source = inputs[from].tensor();
        t = Tensor(p.outputs[i].dtype, p.outputs[i].shape, source.data(), source.owner(), p.outputs[i].layout);
      }
    if (!t.defined()) t = Tensor(p.outputs[i].dtype, p.outputs[i].shape, p.outputs[i].layout);
    slot(t.data());
    outputs[i] = t;
  }
  if (p.kernel) {
    Buffer scratch = p.workspace ? allocate(p.workspace) : nullptr;
    Worker w = alone();
    p.kernel->run(Args(table.data(), slots.data(), static_cast<int>(inputs.size()), scratch.get()), w);
  }
  return outputs;
}

}  // namespace tiercel

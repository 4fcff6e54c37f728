#include "autodiff/gradients.h"

#include <algorithm>
#include <memory>

#include "ops/grad.h"

namespace tiercel {
namespace {

bool differentiable(const Type& t) {
  return t.is_tensor() && (t.dtype == DType::kFloat || t.dtype == DType::kDouble || t.dtype == DType::kFloat16 || t.dtype == DType::kBFloat16);
}

class Backward {
 public:
  Backward(GraphWriter& w, std::span<Value* const> wrt) : w_(w) {
    for (const auto& n : w.graph().nodes()) order_.push_back(n.get());
    sums_.resize(static_cast<size_t>(w.graph().num_values()));
    from_.assign(sums_.size(), nullptr);
    depends_.assign(sums_.size(), false);
    for (const Value* v : wrt) depends_[at(v)] = true;
    for (const Node* n : order_) {
      const GradRow* row = find_grad(n->op_type, n->domain);
      if (row && !row->grad) continue;
      for (Value* in : n->inputs)
        if (in && depends_[at(in)]) {
          for (const Value* out : n->outputs)
            if (out && !depends_[at(out)]) depends_[at(out)] = true, from_[at(out)] = in;
          break;
        }
    }
  }

  void seed(const GradientSeed& s) {
    w_.name = "gradient";
    if (!differentiable(w_.type(s.output)))
      fail(Code::kInvalidArgument, "\"", s.output->name, "\" is a ", w_.type(s.output).str(), ": only floats have gradients");
    Value* g = s.gradient ? s.gradient : w_.expand_like(w_.scalar_like(1, s.output), s.output);
    sums_[at(s.output)].push_back(g);
  }

  void run() {
    for (auto n = order_.rbegin(); n != order_.rend(); ++n) visit(**n);
  }

  Value* of(const Value* v) { return total(v); }
  bool depends(const Value* v) const { return depends_[at(v)]; }

  // The way from the values asked for to v: "w" -> MatMul node "a" -> ...
  std::string way_to(const Value* v) const {
    std::vector<std::string> steps;
    for (; from_[at(v)]; v = from_[at(v)]) steps.push_back(v->producer->label());
    std::string s = "\"" + v->name + "\"";
    std::reverse(steps.begin(), steps.end());
    for (const std::string& step : steps) s += " -> " + step;
    return s;
  }

  // The first node on a way from v that lets no gradient back, for v that has none; null: none of them does.
  const Node* blocked_by(const Value* v, std::string* way) const {
    std::vector<std::pair<const Value*, std::string>> open{{v, "\"" + v->name + "\""}};
    std::vector<bool> seen(sums_.size(), false);
    for (size_t i = 0; i < open.size(); ++i) {
      const auto [value, path] = open[i];
      for (const Use& use : value->uses) {
        const Node* n = use.node;
        if (std::find(order_.begin(), order_.end(), n) == order_.end()) continue;
        const GradRow* row = find_grad(n->op_type, n->domain);
        if (row && !row->grad) continue;
        for (const Value* out : n->outputs) {
          if (!out || seen[at(out)]) continue;
          seen[at(out)] = true;
          const std::string further = path + " -> " + n->label();
          if (!row || !differentiable(w_.type(out))) {
            *way = further;
            return n;
          }
          open.emplace_back(out, further);
        }
      }
    }
    return nullptr;
  }

 private:
  static size_t at(const Value* v) { return static_cast<size_t>(v->id); }

  Value* total(const Value* v) {
    auto& list = sums_[at(v)];
    if (list.empty()) return nullptr;
    if (list.size() > 1) {
      w_.name = "gradient of " + v->name;
      Value* sum = list[0];
      for (size_t i = 1; i < list.size(); ++i) sum = w_.add(sum, list[i]);
      list.assign(1, sum);
    }
    return list[0];
  }

  void visit(Node& n) {
    std::vector<Value*> dy;
    bool any = false;
    for (const Value* out : n.outputs) {
      dy.push_back(out && depends_[at(out)] ? total(out) : nullptr);
      any |= dy.back() != nullptr;
    }
    if (!any) return;
    const GradRow* row = find_grad(n.op_type, n.domain);
    const auto wanted = std::make_unique<bool[]>(n.inputs.size() + 1);
    bool wants = false;
    const Value* first = nullptr;
    for (size_t i = 0; i < n.inputs.size(); ++i) {
      const Value* in = n.inputs[i];
      wanted[i] = in && depends_[at(in)] && differentiable(w_.type(in));
      if (wanted[i] && !first) first = in;
      wants |= wanted[i];
    }
    if (!wants) return;
    if (!row)
      fail(Code::kNotImplemented, n.label(), " has no gradient, but it stands between the result and what the gradient is asked of: ", way_to(first),
           " -> ", n.label());
    w_.name = n.name.empty() ? "gradient of " + n.op_type : n.name + "/gradient";
    GradContext ctx(n, w_, dy, {wanted.get(), n.inputs.size()});
    row->grad(ctx);
    for (size_t i = 0; i < n.inputs.size(); ++i)
      if (ctx.dx[i]) sums_[at(n.inputs[i])].push_back(ctx.dx[i]);
  }

  GraphWriter& w_;
  std::vector<Node*> order_;
  std::vector<std::vector<Value*>> sums_;  // contributions, by value id
  std::vector<bool> depends_;              // on what the gradient is asked of
  std::vector<Value*> from_;               // the operand through which it does
};

}  // namespace

std::vector<Value*> gradients(GraphWriter& writer, std::span<const GradientSeed> seeds, std::span<Value* const> wrt) {
  Backward b(writer, wrt);
  for (const GradientSeed& s : seeds) b.seed(s);
  b.run();
  std::vector<Value*> result;
  for (Value* v : wrt) {
    result.push_back(b.of(v));
    if (result.back()) continue;
    const bool reaches = std::any_of(seeds.begin(), seeds.end(), [&](const GradientSeed& s) { return b.depends(s.output); });
    std::string way;
    if (reaches)
      if (const Node* n = b.blocked_by(v, &way))
        fail(Code::kNotImplemented, n->label(), " cannot be differentiated, and no other way leads from \"", v->name, "\" to the result: ", way);
  }
  return result;
}

}  // namespace tiercel

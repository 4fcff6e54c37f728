#include "autodiff/gradients.h"

#include <algorithm>
#include <memory>
#include <set>

#include "autodiff/reach.h"
#include "ops/grad.h"
#include "passes/expand.h"
#include "passes/passes.h"

namespace tiercel {
namespace {

// The first node on a way from one of `values` that lets no gradient back; null: none of them does.
const Node* find_block(std::vector<std::pair<const Value*, std::string>> open, const std::set<const Node*>* nodes, std::string* way) {
  std::set<const Value*> seen;
  for (size_t i = 0; i < open.size(); ++i) {
    const auto [value, path] = open[i];
    for (const Use& use : value->uses) {
      const Node* n = use.node;
      if (nodes && !nodes->count(n)) continue;
      const GradRow* row = find_grad(n->op_type, n->domain);
      if (row && !row->grad) continue;
      const std::string further = path + " -> " + n->label();
      std::vector<bool> in(n->inputs.size(), false);
      in[static_cast<size_t>(use.index)] = true;
      if (row)
        for (const auto& [key, body] : n->subgraphs()) {
          const std::vector<bool> at = reached_in_body(*n, *body, in);
          std::vector<std::pair<const Value*, std::string>> inner;
          for (size_t k = 0; k < at.size(); ++k)
            if (at[k]) inner.emplace_back(body->inputs()[k], further + ", in its body: \"" + body->inputs()[k]->name + "\"");
          if (const Node* blocked = find_block(std::move(inner), nullptr, way)) return blocked;
        }
      const std::vector<bool> out = reached(*n, in);
      for (size_t k = 0; k < out.size(); ++k) {
        const Value* v = n->outputs[k];
        if (!v || !out[k] || !seen.insert(v).second) continue;
        if (!row || (v->type.dtype != DType::kUndefined && !differentiable(v->type))) {
          *way = further;
          return n;
        }
        open.emplace_back(v, further);
      }
    }
  }
  return nullptr;
}

class Backward {
 public:
  Backward(GraphWriter& w, std::span<Value* const> wrt, const GradientOptions& options) : w_(w), options_(options) {
    for (const auto& n : w.graph().nodes()) order_.push_back(n.get());
    nodes_.insert(order_.begin(), order_.end());
    sums_.resize(static_cast<size_t>(w.graph().num_values()));
    from_.assign(sums_.size(), nullptr);
    depends_.assign(sums_.size(), false);
    fixed_.assign(sums_.size(), false);
    for (const Value* v : options.fixed) fixed_[at(v)] = true;
    for (const Value* v : wrt) depends_[at(v)] = true;
    std::vector<bool> in;
    for (const Node* n : order_) {
      in.clear();
      Value* first = nullptr;
      for (Value* v : n->inputs) {
        in.push_back(v && depends_[at(v)]);
        if (in.back() && !first) first = v;
      }
      if (!first) continue;
      const std::vector<bool> out = reached(*n, in);
      for (size_t i = 0; i < out.size(); ++i)
        if (const Value* v = n->outputs[i]; v && out[i] && !depends_[at(v)] && !fixed_[at(v)]) depends_[at(v)] = true, from_[at(v)] = first;
    }
  }

  void seed(const GradientSeed& s) {
    w_.name = "gradient";
    if (!differentiable(w_.type(s.output)))
      fail(Code::kInvalidArgument, "\"", s.output->name, "\" is a ", w_.type(s.output).str(), ": only floats have gradients");
    Value* g = s.gradient;
    if (!g && w_.type(s.output).kind == Kind::kSequence)
      g = w_.map({s.output}, [](GraphWriter& w, std::span<Value* const> items) { return w.expand_like(w.scalar_like(1, items[0]), items[0]); });
    else if (!g)
      g = w_.expand_like(w_.scalar_like(1, s.output), s.output);
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
    std::string s = options_.way + "\"" + v->name + "\"";
    std::reverse(steps.begin(), steps.end());
    for (const std::string& step : steps) s += " -> " + step;
    return s;
  }

  // The first node on a way from v that lets no gradient back, for v that has none; null: none of them does.
  const Node* blocked_by(const Value* v, std::string* way) const { return find_block({{v, "\"" + v->name + "\""}}, &nodes_, way); }

 private:
  static size_t at(const Value* v) { return static_cast<size_t>(v->id); }

  Value* total(const Value* v) {
    auto& list = sums_[at(v)];
    if (list.empty()) return nullptr;
    if (list.size() > 1) {
      w_.name = "gradient of " + v->name;
      Value* sum = list[0];
      for (size_t i = 1; i < list.size(); ++i) sum = w_.sum(sum, list[i]);
      list.assign(1, sum);
    }
    return list[0];
  }

  void visit(Node& n) {
    std::vector<Value*> dy;
    bool any = false;
    for (const Value* out : n.outputs) {
      dy.push_back(out && depends_[at(out)] && !fixed_[at(out)] ? total(out) : nullptr);
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
    ctx.way = way_to(first) + " -> " + n.label();
    const std::vector<Value*> inputs = n.inputs;  // a rule may give the node more of them
    row->grad(ctx);
    for (size_t i = 0; i < inputs.size(); ++i)
      if (ctx.dx[i]) sums_[at(inputs[i])].push_back(ctx.dx[i]);
  }

  GraphWriter& w_;
  const GradientOptions& options_;
  std::vector<Node*> order_;
  std::set<const Node*> nodes_;            // the same
  std::vector<std::vector<Value*>> sums_;  // contributions, by value id
  std::vector<bool> depends_;              // on what the gradient is asked of
  std::vector<bool> fixed_;
  std::vector<Value*> from_;               // the operand through which it does
};

}  // namespace

std::vector<Value*> gradients(GraphWriter& writer, std::span<const GradientSeed> seeds, std::span<Value* const> wrt,
                              const GradientOptions& options) {
  Backward b(writer, wrt, options);
  for (const GradientSeed& s : seeds) b.seed(s);
  b.run();
  std::vector<Value*> result;
  for (Value* v : wrt) {
    result.push_back(b.of(v));
    if (result.back() || !options.strict) continue;
    const bool reaches = std::any_of(seeds.begin(), seeds.end(), [&](const GradientSeed& s) { return b.depends(s.output); });
    std::string way;
    if (reaches)
      if (const Node* n = b.blocked_by(v, &way))
        fail(Code::kNotImplemented, n->label(), " cannot be differentiated, and no other way leads from \"", v->name, "\" to the result: ", way);
  }
  return result;
}

namespace {

// Each body is gone through several times for each time that the one around it is.
constexpr int kMaxNesting = 12;

void check_nesting(const Graph& graph, int depth) {
  if (depth > kMaxNesting) fail(Code::kNotImplemented, "gradients: bodies are nested more than ", kMaxNesting, " deep in the graph \"", graph.name, "\"");
  for (const auto& n : graph.nodes())
    for (const auto& [key, body] : n->subgraphs()) check_nesting(*body, depth + 1);
}

}  // namespace

void make_differentiable(Graph& graph) {
  check_nesting(graph, 0);
  infer_all(graph);
  for (const auto expand : {expand_microsoft, expand_microsoft_attention, expand_microsoft_grouped, expand_attention, expand_rotary, expand_einsum}) {
    for_each_graph(graph, expand);
    infer_all(graph);
  }
}

}  // namespace tiercel

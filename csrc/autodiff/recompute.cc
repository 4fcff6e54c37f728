#include "autodiff/recompute.h"

#include <fnmatch.h>

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <unordered_set>

#include "base/status.h"
#include "ops/registry.h"

namespace tiercel {
namespace {

constexpr int kDepth = 4;  // nodes of a cheap chain

// One pass over memory, or none.
bool is_cheap(const Node& n) {
  static const std::unordered_set<std::string> names{
      "Add", "Sub", "Mul", "Div", "Neg", "Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Pow", "Erf", "Sin", "Cos", "Min", "Max", "Sum", "Where", "Clip", "Cast",
      "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Sign", "Relu", "LeakyRelu", "PRelu", "Elu", "Celu", "Selu", "Gelu",
      "FastGelu", "QuickGelu", "Silu", "Swish", "Mish", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSigmoid", "HardSwish", "ThresholdedRelu", "Dropout",
      "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"};
  return names.count(n.op_type) > 0;
}

// Is a copy of the node the same as the node? Dropout in training draws by seed, step and place.
bool repeatable(const Node& n) {
  const OpRow* row = find_op(n.op_type, n.domain, n.opset);
  if (!row || !row->prepare || !const_cast<Node&>(n).subgraphs().empty()) return false;
  return !(row->flags & (kRandom | kCollective | kUpdates)) || n.is("Dropout", kTiercelDomain);
}

// Shapes are known when a Program is built: the value itself is not read.
bool reads_shape(const Node& n) { return n.is("Shape") || n.is("Size"); }

double elements(const Type& t) {
  double n = 1;
  if (t.ranked) for (const Dim d : t.shape) if (!is_symbol(d)) n *= static_cast<double>(d);
  return n;
}

class Recompute {
 public:
  Recompute(Graph& g, const Node* last, const RecomputeOptions& o) : graph_(g), options_(o) {
    for (const auto& n : g.nodes()) {
      place_.emplace(n.get(), static_cast<int>(nodes_.size()));
      nodes_.push_back(n.get());
    }
    last_ = place_.at(last);
    for (int i = 0; i <= last_; ++i)
      for (Value* v : nodes_[static_cast<size_t>(i)]->outputs)
        if (v) spans_[v] = span_of(v);
  }

  void run() {
    if (options_.segments || !options_.keep.empty()) choose_segments();
    else if (options_.cheap) choose_cheap();
    std::vector<std::pair<int, Value*>> order;
    for (Value* v : dropped_) order.emplace_back(spans_.at(v).first, v);
    std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first != b.first ? a.first < b.first : a.second->id < b.second->id; });
    for (const auto& [at, v] : order) {
      Value* const again = copy(v, nodes_[static_cast<size_t>(at)]);
      for (const Use& use : std::vector<Use>(v->uses))
        if (const auto p = place_.find(use.node); p != place_.end() && p->second > last_ && !reads_shape(*use.node)) graph_.set_input(use.node, use.index, again);
    }
  }

 private:
  struct Span { int forward = -1, first = -1, last = -1; };  // the last reader of the forward pass; first and last of the backward one (-1: none)

  Span span_of(const Value* v) const {
    Span s;
    for (const Use& use : v->uses) {
      const int at = place_.at(use.node);
      if (at <= last_) { s.forward = std::max(s.forward, at); continue; }
      if (reads_shape(*use.node)) continue;
      s.first = s.first < 0 ? at : std::min(s.first, at);
      s.last = std::max(s.last, at);
    }
    return s;
  }

  bool stays(const Value* v) const { return !v->producer || v->graph_output_uses || !repeatable(*v->producer); }

  // Nodes that give v at place `at`, of a chain of cheap ones on what is kept anyway; more than kDepth: there is none.
  int depth(const Value* v, int at, int so_far = 0) const {
    if (!v || !v->producer) return 0;
    if (so_far > kDepth) return kDepth + 1;
    const Span& s = spans_.at(v);
    if (!dropped_.count(const_cast<Value*>(v)) && s.last >= at) return 0;
    if (stays(v) || !is_cheap(*v->producer)) return kDepth + 1;
    int most = 0;
    for (const Value* in : v->producer->inputs) most = std::max(most, depth(in, at, so_far + 1));
    return most + 1;
  }

  void choose_cheap() {
    for (int i = 0; i <= last_; ++i)
      for (Value* v : nodes_[static_cast<size_t>(i)]->outputs) {
        if (!v || spans_.at(v).first < 0 || stays(v) || !is_cheap(*v->producer) || (v->type.ranked && v->type.shape.rank() == 0)) continue;
        int most = 0;
        for (const Value* in : v->producer->inputs) most = std::max(most, depth(in, spans_.at(v).first));
        if (most < kDepth) dropped_.insert(v);
      }
  }

  void choose_segments() {
    std::unordered_set<const Value*> kept;
    int end = 0;  // from here on everything is kept: the backward pass reads it first
    if (!options_.keep.empty()) {
      for (const std::string& pattern : options_.keep) {
        bool any = false;
        for (const auto& [v, span] : spans_)
          if (!v->name.empty() && fnmatch(pattern.c_str(), v->name.c_str(), 0) == 0) {
            any = true;
            kept.insert(v);
            end = std::max(end, place_.at(v->producer));
          }
        if (!any) fail(Code::kInvalidArgument, "recompute: no value of the forward pass matches \"", pattern, "\"");
      }
    } else {
      double total = 0;
      int count = 0;
      const auto size = [&](const Node* n) {
        double sum = 0;
        for (Value* v : n->outputs) if (v && spans_.at(v).first >= 0 && !stays(v)) sum += elements(v->type);
        return sum;
      };
      for (int i = 0; i <= last_; ++i) {
        const double s = size(nodes_[static_cast<size_t>(i)]);
        total += s;
        count += s > 0;
      }
      const int segments = options_.segments == RecomputeOptions::kSqrt ? std::max(2, static_cast<int>(std::lround(std::sqrt(count)))) : options_.segments;
      std::vector<int> cuts;
      double so_far = 0;
      for (int i = 0; i <= last_ && static_cast<int>(cuts.size()) + 1 < segments; ++i) {
        so_far += size(nodes_[static_cast<size_t>(i)]);
        if (so_far >= total * static_cast<double>(cuts.size() + 1) / segments) cuts.push_back(cheapest(i, total / segments / 4));
      }
      for (const auto& [v, span] : spans_)
        for (const int cut : cuts)
          if (place_.at(v->producer) <= cut && span.forward > cut) kept.insert(v);
      if (!cuts.empty()) end = cuts.back();
    }
    for (int i = 0; i < end; ++i)
      for (Value* v : nodes_[static_cast<size_t>(i)]->outputs)
        if (v && spans_.at(v).first >= 0 && !kept.count(v) && !stays(v)) dropped_.insert(v);
    for (const Value* v : kept) kept_.insert(v);
  }

  // A cut near node `at` that few elements cross; `reach`: elements of results that it may move on by.
  int cheapest(int at, double reach) const {
    int best = at;
    double least = INFINITY, passed = 0;
    for (int i = at; i < last_; ++i) {
      double crossing = 0;
      for (const auto& [v, span] : spans_)
        if (place_.at(v->producer) <= i && span.forward > i) crossing += elements(v->type);
      if (crossing < least) least = crossing, best = i;
      for (const Value* v : nodes_[static_cast<size_t>(i)]->outputs) if (v) passed += elements(v->type);
      if (passed > reach) break;
    }
    return best;
  }

  // v again, just before `reader`.
  Value* copy(Value* v, Node* reader) {
    if (!v || !v->producer || stays(v)) return v;
    if (const auto it = copies_.find(v); it != copies_.end()) return it->second;
    const bool chain = !options_.segments && options_.keep.empty();
    if (!dropped_.count(v) && (chain ? spans_.at(v).last >= place_.at(reader) : kept_.count(v) > 0 || spans_.at(v).first >= 0)) return v;
    Node* const n = v->producer;
    std::vector<Value*> in, out(n->outputs.size(), nullptr);
    for (Value* operand : n->inputs) in.push_back(copy(operand, reader));
    for (size_t i = 0; i < out.size(); ++i) {
      Value* const old = n->outputs[i];
      if (!old || (old != v && !dropped_.count(old))) continue;
      out[i] = graph_.add_value("", old->type);
      out[i]->name = cat("tiercel_again_", out[i]->id);
      copies_[old] = out[i];
    }
    Node* const again = graph_.add_node(n->op_type, n->domain, n->opset, std::move(in), std::move(out), reader);
    again->name = n->name.empty() ? std::string() : n->name + "/again";
    again->attributes = n->attributes;
    again->set(kRecomputed, int64_t{1});  // so that it is never merged with the first
    return copies_.at(v);
  }

  static constexpr const char* kRecomputed = "tiercel_recomputed";
  Graph& graph_;
  const RecomputeOptions& options_;
  std::vector<Node*> nodes_;
  std::unordered_map<const Node*, int> place_;
  int last_ = 0;
  std::unordered_map<const Value*, Span> spans_;
  std::unordered_set<Value*> dropped_;
  std::unordered_set<const Value*> kept_;
  std::unordered_map<const Value*, Value*> copies_;
};

}  // namespace

void recompute(Graph& graph, const Node* last, const RecomputeOptions& options) {
  if (options.segments && options.segments != RecomputeOptions::kSqrt && options.segments < 2)
    fail(Code::kInvalidArgument, "recompute takes at least 2 segments, not ", options.segments);
  Recompute(graph, last, options).run();
}

}  // namespace tiercel

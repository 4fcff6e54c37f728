// The gradient of Einsum: for each operand another Einsum, of dy and of the other operands, to the operand's labels.
#include <algorithm>
#include <map>

#include "ops/einsum.h"
#include "ops/grad_tools.h"

namespace tiercel {
namespace {

using namespace grad_tools;
using Labels = std::vector<int>;
bool has(const Labels& l, int label) { return std::find(l.begin(), l.end(), label) != l.end(); }

class Rule {
 public:
  Rule(GradContext& c, EinsumEquation e) : c_(c), w_(c.w), e_(std::move(e)) {
    const auto name_all = [&](const Labels& l) { for (int label : l) if (!letters_.count(label)) letters_.emplace(label, '?'); };
    for (const Labels& l : e_.in) name_all(l);
    std::string free = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    c.check(letters_.size() <= free.size(), "the equation has ", letters_.size(), " labels, axes under the ellipsis counted, more than there are letters");
    size_t next = 0;
    for (auto& [label, letter] : letters_) letter = free[next++];
  }

  Value* of(int i) {
    Value* const x = c_.x(i);
    const Labels& axes = e_.in[static_cast<size_t>(i)];
    Labels mine;  // each label once, in its first place
    std::vector<size_t> place;
    for (size_t k = 0; k < axes.size(); ++k) {
      if (has(mine, axes[k])) continue;
      mine.push_back(axes[k]);
      place.push_back(k);
    }
    Labels there = e_.out, kept;  // labels that dy or another operand has
    std::string text = spell(e_.out);
    std::vector<Value*> operands{c_.dy()};
    for (size_t k = 0; k < e_.in.size(); ++k) {
      if (static_cast<int>(k) == i) continue;
      operands.push_back(c_.x(static_cast<int>(k)));
      text += "," + spell(e_.in[k]);
      there.insert(there.end(), e_.in[k].begin(), e_.in[k].end());
    }
    std::vector<std::pair<size_t, int>> order;  // by axis of x
    for (size_t l = 0; l < mine.size(); ++l) if (has(there, mine[l])) order.emplace_back(place[l], mine[l]);
    std::sort(order.begin(), order.end());
    for (const auto& [axis, label] : order) kept.push_back(label);
    Value* g = kept == e_.out && operands.size() == 1 ? c_.dy() : w_.op("Einsum", operands, {{"equation", text + "->" + spell(kept)}});
    std::vector<int64_t> ones;
    for (size_t k = 0; k < axes.size(); ++k)
      if (std::none_of(order.begin(), order.end(), [&](const auto& o) { return o.first == k; })) ones.push_back(static_cast<int64_t>(k));
    g = unsqueeze(w_, g, ones);
    // What is missing is the same for all; what was broadcast is summed.
    Value* const shape = w_.shape_of(x);
    if (!w_.same_shape(g, x)) {
      g = w_.op("Expand", {g, shape});
      g = w_.same_shape(g, x) ? g : w_.op("SumTo", {g, shape}, {}, kTiercelDomain);
    }
    for (size_t k = 0; k < axes.size(); ++k) {  // a label that stands twice: the diagonal
      const size_t first = place[static_cast<size_t>(std::find(mine.begin(), mine.end(), axes[k]) - mine.begin())];
      if (first != k) g = only_where(w_, diagonal(x, first, k, axes.size()), g);
    }
    return g;
  }

 private:
  std::string spell(const Labels& l) const {
    std::string s;
    for (int label : l) s += letters_.at(label);
    return s;
  }
  Value* diagonal(Value* x, size_t a, size_t b, size_t rank) {
    const auto along = [&](size_t axis) {
      std::vector<int64_t> shape(rank, 1);
      shape[axis] = -1;
      return w_.op("Reshape", {count_up(w_, extent(w_, x, static_cast<int64_t>(axis))), w_.ints(shape)});
    };
    return w_.op("Equal", {along(a), along(b)});
  }

  GradContext& c_;
  GraphWriter& w_;
  EinsumEquation e_;
  std::map<int, char> letters_;
};

void grad(GradContext& c) {
  std::vector<int> ranks;
  for (int i = 0; i < static_cast<int>(c.dx.size()); ++i) ranks.push_back(c.rank(c.x(i)));
  EinsumEquation e = parse_einsum(c.node.attr_string("equation", ""), ranks);
  c.check(e.error.empty(), e.error);
  Rule rule(c, std::move(e));
  for (int i = 0; i < static_cast<int>(c.dx.size()); ++i) if (c.wants(i)) c.set(i, rule.of(i));
}
const GradRegistration grads({{"Einsum", "", grad}});

}  // namespace
}  // namespace tiercel

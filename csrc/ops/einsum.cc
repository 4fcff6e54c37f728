// Einsum: products of operands summed over the labels that the result lacks. What passes can say as MatMul they rewrite
// (passes/expand_einsum.cc); this is the definition, for everything else.
#include "ops/einsum.h"

#include <algorithm>
#include <cctype>
#include <map>

#include "ops/movement.h"
#include "ops/numeric.h"

namespace tiercel {
namespace {

// One term: letters, at most one "..." whose axes are what `rank` leaves.
std::string parse_term(std::string_view term, int rank, std::vector<int>& labels) {
  const auto letters = std::count_if(term.begin(), term.end(), [](unsigned char c) { return std::isalpha(c) != 0; });
  bool ellipsis = false;
  for (size_t i = 0; i < term.size(); ++i) {
    const auto c = static_cast<unsigned char>(term[i]);
    if (std::isalpha(c)) {
      labels.push_back(c);
    } else if (term.substr(i, 3) == "..." && !ellipsis) {
      for (int k = rank - static_cast<int>(letters); k > 0; --k) labels.push_back(-k);
      ellipsis = true;
      i += 2;
    } else {
      return cat("'", term, "' should hold letters and at most one ellipsis");
    }
  }
  if (rank >= 0 && static_cast<int>(labels.size()) != rank) return cat("'", term, "' labels ", labels.size(), " axes of ", rank);
  return {};
}

}  // namespace

EinsumEquation parse_einsum(std::string_view given, const std::vector<int>& ranks) {
  EinsumEquation e;
  std::string text;
  for (char c : given) if (c != ' ') text += c;
  const size_t arrow = text.find("->");
  std::string_view left = std::string_view(text).substr(0, arrow);
  std::map<int, int> seen;
  for (size_t i = 0;; ++i) {
    const size_t comma = left.find(',');
    if (i >= ranks.size()) { e.error = "it has more terms than there are inputs"; return e; }
    e.error = parse_term(left.substr(0, comma), ranks[i], e.in.emplace_back());
    if (!e.error.empty()) return e;
    for (int l : e.in.back()) ++seen[l];
    if (comma == std::string_view::npos) break;
    left.remove_prefix(comma + 1);
  }
  if (e.in.size() != ranks.size()) { e.error = cat("it has ", e.in.size(), " terms for ", ranks.size(), " inputs"); return e; }
  const int under = seen.empty() ? 0 : std::max(0, -seen.begin()->first);  // axes under the longest ellipsis
  if (arrow == std::string::npos) {  // those under ellipses, then the letters that stand once
    for (const auto& [label, times] : seen) if (label < 0 || times == 1) e.out.push_back(label);
    return e;
  }
  const std::string_view right = std::string_view(text).substr(arrow + 2);
  const bool ellipsis = right.find("...") != std::string_view::npos;
  const int letters = static_cast<int>(right.size()) - (ellipsis ? 3 : 0);
  e.error = parse_term(right, letters + (ellipsis ? under : 0), e.out);
  if (!e.error.empty()) return e;
  for (size_t i = 0; i < e.out.size(); ++i) {
    if (!seen.count(e.out[i])) e.error = cat("the result's label '", static_cast<char>(e.out[i]), "' stands in no input");
    if (std::count(e.out.begin(), e.out.end(), e.out[i]) > 1) e.error = cat("the result repeats '", static_cast<char>(e.out[i]), "'");
  }
  return e;
}

Dim einsum_extent(const EinsumEquation& e, const std::vector<Shape>& shapes, int label) {
  Dim symbol = 1;
  for (size_t i = 0; i < e.in.size(); ++i)
    for (size_t k = 0; k < e.in[i].size(); ++k) {
      const Dim d = shapes[i][static_cast<int>(k)];
      if (e.in[i][k] != label || d == 1) continue;
      if (!is_symbol(d)) return d;
      symbol = symbol == 1 || symbol == d ? d : kUndecided;
    }
  return symbol;
}

namespace {

void infer(InferContext& ctx) {
  ctx.input(0);
  std::vector<int> ranks;
  std::vector<Shape> shapes;
  for (int i = 0; i < ctx.num_inputs(); ++i) {
    ctx.check(ctx.dtype(i) == ctx.dtype(0), "all inputs should have one type");
    if (!ctx.ranked(i)) return ctx.set_output(0, Type::tensor(ctx.dtype(0)));
    ranks.push_back(ctx.shape(i).rank());
    shapes.push_back(ctx.shape(i));
  }
  const std::string text = ctx.node.attr_string("equation", "");
  const EinsumEquation e = parse_einsum(text, ranks);
  ctx.check(e.error.empty(), "equation \"", text, "\": ", e.error);
  for (size_t i = 0; i < e.in.size(); ++i)
    for (size_t k = 0; k < e.in[i].size(); ++k) {
      const Dim d = shapes[i][static_cast<int>(k)], all = einsum_extent(e, shapes, e.in[i][k]);
      for (size_t j = 0; j < k; ++j)
        if (const Dim before = shapes[i][static_cast<int>(j)]; e.in[i][j] == e.in[i][k])
          ctx.check(is_symbol(d) || is_symbol(before) || d == before, "equation \"", text, "\": axes ", j, " and ", k, " of input ", i,
                    " have one label, so they should have one extent, not ", before, " and ", d);
      ctx.check(is_symbol(d) || d == 1 || d == all, "equation \"", text, "\": axis ", k, " of input ", i, " has extent ", d,
                " where another of the same label has ", all);
    }
  ctx.check(e.out.size() <= static_cast<size_t>(kMaxRank), "the result would have ", e.out.size(), " axes");
  Shape y;
  for (int label : e.out) {
    const Dim d = einsum_extent(e, shapes, label);
    y.push_back(d == kUndecided ? ctx.fresh() : d);
  }
  ctx.set_output(0, ctx.dtype(0), y);
}

// Loops over labels: those of the result outside, those summed over inside.
struct Plan {
  struct Loop {
    int64_t extent;
    std::vector<int64_t> strides;  // of each operand, 0 where it lacks the label
  };
  std::vector<Loop> outer, inner;
  size_t operands = 0;
  int64_t results = 1, terms = 1;
};

template <class T> void sum_products(const Plan& p, const Args& a, Worker& w) {
  using Sum = std::conditional_t<std::is_same_v<T, float>, double, std::conditional_t<std::is_integral_v<T>, uint64_t, T>>;
  std::vector<const T*> x;
  for (size_t i = 0; i < p.operands; ++i) x.push_back(a.in<T>(static_cast<int>(i)));
  w.parallel_for(p.results, grain_for(p.terms * static_cast<int64_t>(p.operands)), [&](int64_t begin, int64_t end) {
    std::vector<int64_t> at(p.operands), index(p.inner.size());
    for (int64_t r = begin; r < end; ++r) {
      std::fill(at.begin(), at.end(), 0);
      int64_t rest = r;
      for (size_t l = p.outer.size(); l-- > 0; rest /= p.outer[l].extent)
        for (size_t i = 0; i < p.operands; ++i) at[i] += rest % p.outer[l].extent * p.outer[l].strides[i];
      std::fill(index.begin(), index.end(), 0);
      Sum sum = 0;
      for (int64_t t = 0; t < p.terms; ++t) {
        Sum product = 1;
        for (size_t i = 0; i < p.operands; ++i) product *= static_cast<Sum>(x[i][at[i]]);
        sum += product;
        for (size_t l = p.inner.size(); l-- > 0;) {
          const bool carry = ++index[l] == p.inner[l].extent;
          for (size_t i = 0; i < p.operands; ++i) at[i] += p.inner[l].strides[i] * (carry ? 1 - p.inner[l].extent : 1);
          if (!carry) break;
          index[l] = 0;
        }
      }
      a.out<T>(0)[r] = static_cast<T>(sum);
    }
  });
}

void prepare(PrepareContext& ctx) {
  std::vector<int> ranks;
  std::vector<Shape> shapes;
  for (int i = 0; i < ctx.num_inputs(); ++i) {
    ranks.push_back(ctx.shape(i).rank());
    shapes.push_back(ctx.shape(i));
  }
  const EinsumEquation e = parse_einsum(ctx.node.attr_string("equation", ""), ranks);
  std::vector<int> labels = e.out;
  for (const auto& term : e.in)
    for (int l : term) if (std::find(labels.begin(), labels.end(), l) == labels.end()) labels.push_back(l);
  Plan p;
  p.operands = shapes.size();
  for (size_t n = 0; n < labels.size(); ++n) {
    Plan::Loop loop{einsum_extent(e, shapes, labels[n]), {}};
    for (size_t i = 0; i < shapes.size(); ++i) {
      const Strides strides = strides_of(shapes[i]);
      int64_t stride = 0;  // a label that stands twice in a term walks the diagonal
      for (size_t k = 0; k < e.in[i].size(); ++k)
        if (e.in[i][k] == labels[n] && shapes[i][static_cast<int>(k)] != 1) stride += strides[k];
      loop.strides.push_back(stride);
    }
    (n < e.out.size() ? p.results : p.terms) *= loop.extent;
    (n < e.out.size() ? p.outer : p.inner).push_back(std::move(loop));
  }
  ctx.cost(2.0 * static_cast<double>(p.results) * static_cast<double>(p.terms), 0);
  const DType t = ctx.dtype(0);
  if (t == DType::kFloat) return ctx.run([p](const Args& a, Worker& w) { sum_products<float>(p, a, w); });
  const bool known = with_plain_type(t, [&](auto tag) {
    using T = typename decltype(tag)::type;
    ctx.run([p](const Args& a, Worker& w) { sum_products<T>(p, a, w); });
  });
  if (!known) ctx.fail("Einsum of tensor(", dtype_name(t), ") is not supported");
}

const OpRegistration rows({{"Einsum", "", 12, infer, half_as_float<prepare>}});

}  // namespace
}  // namespace tiercel

// TfIdfVectorizer: how often each n-gram of a pool occurs in a row, as counts, presence or weighted counts. Items of an n-gram
// may lie up to max_skip_count apart.
#include <map>
#include <memory>

#include "ops/movement.h"

namespace tiercel {
namespace {

// Pool items by number: equal items, equal numbers. -1: not in the pool.
struct Pool {
  std::vector<int64_t> integers;
  std::vector<std::string> strings;
  std::map<int64_t, int> by_integer;
  std::map<std::string, int> by_string;
  size_t size() const { return integers.size() + strings.size(); }
  int id(size_t i) {
    return strings.empty() ? by_integer.try_emplace(integers[i], static_cast<int>(by_integer.size())).first->second
                           : by_string.try_emplace(strings[i], static_cast<int>(by_string.size())).first->second;
  }
};

struct Gram {
  int64_t place = -1;  // of its count in the output
  std::map<int, Gram> longer;
};

struct Form {
  int64_t shortest, longest, skips, width = 0;
  enum { kTf, kIdf, kTfIdf } mode;
  std::vector<float> weights;  // by output place; empty: 1
  Pool pool;
  Gram root;
};

std::shared_ptr<const Form> form_of(const Node& node) {
  auto bad = [&](const auto&... what) { fail(Code::kInvalidGraph, node.label(), ": ", what...); };
  auto f = std::make_shared<Form>();
  f->shortest = node.attr_int("min_gram_length", 1);
  f->longest = node.attr_int("max_gram_length", 1);
  f->skips = node.attr_int("max_skip_count", 0);
  if (f->shortest < 1 || f->longest < f->shortest || f->skips < 0 || f->skips > INT32_MAX) bad("gram lengths should be 1 at least, skips not negative");
  const std::string mode = node.attr_string("mode", "TF");
  if (mode == "TF") f->mode = Form::kTf;
  else if (mode == "IDF") f->mode = Form::kIdf;
  else if (mode == "TFIDF") f->mode = Form::kTfIdf;
  else bad("mode '", mode, "' is not known");
  f->pool.integers = node.attr_ints("pool_int64s");
  f->pool.strings = node.attr_strings("pool_strings");
  if (f->pool.integers.empty() == f->pool.strings.empty()) bad("one of pool_int64s and pool_strings should be given");
  const auto counts = node.attr_ints("ngram_counts"), indexes = node.attr_ints("ngram_indexes");
  f->weights = node.attr_floats("weights");
  for (int64_t i : indexes) {
    if (i < 0 || i > INT32_MAX) bad("ngram index ", i, " is out of range");
    f->width = std::max(f->width, i + 1);
  }
  if (f->width == 0) bad("ngram_indexes should not be empty");
  if (!f->weights.empty() && f->weights.size() != indexes.size()) bad("weights and ngram_indexes should have one length");
  size_t gram = 0;
  if (!f->weights.empty()) f->weights.resize(static_cast<size_t>(f->width), 1.0f);  // weight i is that of output place i
  for (size_t n = 1; n <= counts.size(); ++n) {
    const int64_t begin = counts[n - 1], end = n < counts.size() ? counts[n] : static_cast<int64_t>(f->pool.size());
    if (begin < 0 || end < begin || end > static_cast<int64_t>(f->pool.size()) || (end - begin) % static_cast<int64_t>(n) != 0)
      bad("ngram_counts does not fit the pool at length ", n);
    for (int64_t at = begin; at < end; at += static_cast<int64_t>(n), ++gram) {
      if (gram >= indexes.size()) bad("ngram_indexes has ", indexes.size(), " entries, the pool more n-grams");
      if (static_cast<int64_t>(n) < f->shortest || static_cast<int64_t>(n) > f->longest) continue;
      Gram* g = &f->root;
      for (size_t k = 0; k < n; ++k) g = &g->longer[f->pool.id(static_cast<size_t>(at) + k)];
      g->place = indexes[gram];
    }
  }
  return f;
}

void infer(InferContext& ctx) {
  const auto f = form_of(ctx.node);
  const bool strings = ctx.dtype(0) == DType::kString;
  ctx.check(strings || ctx.dtype(0) == DType::kInt32 || ctx.dtype(0) == DType::kInt64, "the input should be strings, int32 or int64");
  ctx.check(strings == !f->pool.strings.empty(), "the pool's type is not the input's");
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(DType::kFloat));
  const Shape& s = ctx.shape(0);
  ctx.check(s.rank() <= 2, "the input should be [C] or [N, C]");
  const Shape r = s.rank() == 2 ? Shape{s[0], f->width} : Shape{f->width};
  if (r.known()) check_fits(ctx, DType::kFloat, r);
  ctx.set_output(0, DType::kFloat, r);
}

void count(const Form& f, const std::vector<int>& row, float* out) {
  const auto n = static_cast<int64_t>(row.size());
  int64_t shortest = f.shortest;
  for (int64_t step = 1; step <= std::min(f.skips + 1, std::max<int64_t>(n, 1)); ++step) {
    for (int64_t start = 0; start < n; ++start) {
      if (shortest > 1 && step > (n - 1 - start) / (shortest - 1)) break;
      const Gram* g = &f.root;
      int64_t length = 1;
      for (int64_t at = start; length <= f.longest && at < n; ++length, at += step) {
        const auto found = g->longer.find(row[static_cast<size_t>(at)]);
        if (found == g->longer.end()) break;
        g = &found->second;
        if (length >= shortest && g->place >= 0) out[g->place] += 1;
      }
    }
    if (shortest == 1 && ++shortest > f.longest) break;  // single items count once, whatever the step
  }
}

void prepare(PrepareContext& ctx) {
  const auto f = form_of(ctx.node);
  const Shape& s = ctx.shape(0);
  const int64_t rows = s.rank() == 2 ? s[0] : 1, cols = s.rank() == 0 ? 1 : s.back();
  ctx.run([=, dtype = ctx.dtype(0)](const Args& a, Worker& w) {
    w.parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
      std::vector<int> row(static_cast<size_t>(cols));
      for (int64_t r = begin; r < end; ++r) {
        auto lookup = [](const auto& map, const auto& key) {
          const auto it = map.find(key);
          return it == map.end() ? -1 : it->second;
        };
        for (int64_t c = 0; c < cols; ++c) {
          const int64_t i = r * cols + c;
          row[static_cast<size_t>(c)] = dtype == DType::kString  ? lookup(f->pool.by_string, a.in<std::string>(0)[i])
                                        : dtype == DType::kInt64 ? lookup(f->pool.by_integer, a.in<int64_t>(0)[i])
                                                                 : lookup(f->pool.by_integer, int64_t{a.in<int32_t>(0)[i]});
        }
        float* out = a.out<float>(0) + r * f->width;
        std::fill_n(out, f->width, 0.0f);
        count(*f, row, out);
        if (f->mode == Form::kTf) continue;
        for (int64_t i = 0; i < f->width; ++i) {
          if (f->mode == Form::kIdf && out[i] > 0) out[i] = 1;
          if (!f->weights.empty()) out[i] *= f->weights[static_cast<size_t>(i)];
        }
      }
    });
  });
}

const OpRegistration rows({{"TfIdfVectorizer", "", 9, infer, prepare}});

}  // namespace
}  // namespace tiercel

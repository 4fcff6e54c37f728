// StringConcat, StringSplit, StringNormalizer, RegexFullMatch: of UTF-8 strings.
#include <unordered_set>

#include "ops/movement.h"
#include "ops/regex.h"

namespace tiercel {
namespace {

void check_strings(const InferContext& ctx, int i) {
  ctx.check(ctx.dtype(i) == DType::kString, "input ", i, " should hold strings");
}

// ---- StringConcat: broadcast, element by element

void infer_concat(InferContext& ctx) {
  check_strings(ctx, 0);
  check_strings(ctx, 1);
  if (!ctx.ranked(0) || !ctx.ranked(1)) return ctx.set_output(0, Type::tensor(DType::kString));
  ctx.set_output(0, DType::kString, broadcast_shapes(ctx, ctx.shape(0), ctx.shape(1)));
}

void prepare_concat(PrepareContext& ctx) {
  const Shape out = ctx.out_shape(0);
  auto broadcast = [&](int i) {
    const Shape& s = ctx.shape(i);
    const Strides from = strides_of(s);
    Strides r{};
    for (int k = 0; k < s.rank(); ++k) if (s[k] != 1) r[static_cast<size_t>(k + out.rank() - s.rank())] = from[static_cast<size_t>(k)];
    return r;
  };
  ctx.run([=, n = out.count(), a_strides = broadcast(0), b_strides = broadcast(1)](const Args& args, Worker& w) {
    w.parallel_for(n, 256, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        int64_t a = 0, b = 0, t = i;
        for (int k = out.rank() - 1; k >= 0; --k) {
          const int64_t at = t % out[k];
          t /= out[k];
          a += at * a_strides[static_cast<size_t>(k)];
          b += at * b_strides[static_cast<size_t>(k)];
        }
        args.out<std::string>(0)[i] = args.in<std::string>(0)[a] + args.in<std::string>(1)[b];
      }
    });
  });
}

// ---- StringSplit

void infer_split(InferContext& ctx) {
  check_strings(ctx, 0);
  if (!ctx.ranked(0)) {
    ctx.set_output(0, Type::tensor(DType::kString));
    return ctx.set_output(1, Type::tensor(DType::kInt64));
  }
  Shape parts = ctx.shape(0);
  parts.push_back(ctx.fresh());
  ctx.set_output(0, DType::kString, parts);
  ctx.set_output(1, DType::kInt64, ctx.shape(0));
}

// As Python's str.split: without a delimiter runs of whitespace separate, and none stands at the ends.
std::vector<std::string> split(const std::string& s, const std::string& delimiter, int64_t limit) {
  std::vector<std::string> parts;
  size_t at = 0;
  if (delimiter.empty()) {
    const char* const space = " \t\n\v\f\r\x1c\x1d\x1e\x1f";
    for (;;) {
      at = s.find_first_not_of(space, at);
      if (at == std::string::npos) return parts;
      const size_t end = static_cast<int64_t>(parts.size()) < limit ? s.find_first_of(space, at) : std::string::npos;
      parts.push_back(s.substr(at, end == std::string::npos ? end : end - at));
      if (end == std::string::npos) return parts;
      at = end;
    }
  }
  for (;;) {
    const size_t end = static_cast<int64_t>(parts.size()) < limit ? s.find(delimiter, at) : std::string::npos;
    parts.push_back(s.substr(at, end == std::string::npos ? end : end - at));
    if (end == std::string::npos) return parts;
    at = end + delimiter.size();
  }
}

void eval_split(EvalContext& ctx, Worker&) {
  const Tensor& t = ctx.tensor(0);
  ctx.check(t.dtype() == DType::kString, "the input should hold strings");
  const std::string delimiter = ctx.node.attr_string("delimiter", "");
  const int64_t given = ctx.node.attr_int("maxsplit", -1), limit = given < 0 ? INT64_MAX : given;
  std::vector<std::vector<std::string>> all;
  size_t most = 0;
  for (int64_t i = 0; i < t.count(); ++i) {
    all.push_back(split(t.as<std::string>()[i], delimiter, limit));
    most = std::max(most, all.back().size());
  }
  Shape shape = t.shape();
  shape.push_back(static_cast<Dim>(most));
  Tensor parts(DType::kString, shape), counts(DType::kInt64, t.shape());
  for (size_t i = 0; i < all.size(); ++i) {
    counts.as<int64_t>()[i] = static_cast<int64_t>(all[i].size());
    std::move(all[i].begin(), all[i].end(), parts.as<std::string>() + i * most);
  }
  ctx.set(0, parts);
  if (ctx.has_output(1)) ctx.set(1, counts);
}

// ---- StringNormalizer: stop words dropped, case changed; [C] or [1, C]

// Simple case mappings of Latin, Greek, Cyrillic and Armenian.
char32_t change_case(char32_t c, bool upper) {
  struct Block { char32_t first, last; int distance; };  // of capital letters; small ones stand `distance` later
  static constexpr Block kBlocks[] = {{'A', 'Z', 32}, {0xc0, 0xd6, 32}, {0xd8, 0xde, 32}, {0x391, 0x3a1, 32}, {0x3a3, 0x3ab, 32},
                                      {0x400, 0x40f, 80}, {0x410, 0x42f, 32}, {0x531, 0x556, 48}};
  for (const Block& b : kBlocks) {
    const auto d = static_cast<char32_t>(b.distance);
    if (!upper && c >= b.first && c <= b.last) return c + d;
    if (upper && c >= b.first + d && c <= b.last + d) return c - d;
  }
  // Pairs of a capital and the small letter after it.
  const bool even = (c >= 0x100 && c <= 0x137 && c != 0x130 && c != 0x131) || (c >= 0x14a && c <= 0x177) || (c >= 0x460 && c <= 0x481) ||
                    (c >= 0x48a && c <= 0x4bf) || (c >= 0x4d0 && c <= 0x52f) || (c >= 0x1e00 && c <= 0x1e95) || (c >= 0x1ea0 && c <= 0x1eff);
  const bool odd = (c >= 0x139 && c <= 0x148) || (c >= 0x179 && c <= 0x17e);
  if (even) return upper ? c & ~char32_t{1} : c | 1;
  if (odd) return upper ? (c - 1) | 1 : c + (c & 1);
  if (c == 0xff && upper) return 0x178;
  if (c == 0x178 && !upper) return 0xff;
  return c;
}

std::string change_case(const std::string& s, bool upper) {
  std::u32string wide = decode_utf8(s);
  for (char32_t& c : wide) c = change_case(c, upper);
  return encode_utf8(wide);
}

void infer_normalizer(InferContext& ctx) {
  check_strings(ctx, 0);
  const std::string action = ctx.node.attr_string("case_change_action", "NONE");
  ctx.check(action == "NONE" || action == "LOWER" || action == "UPPER", "case_change_action '", action, "' is not known");
  if (!ctx.ranked(0)) return ctx.set_output(0, Type::tensor(DType::kString));
  Shape s = ctx.shape(0);
  ctx.check(s.rank() == 1 || (s.rank() == 2 && (s[0] < 0 || s[0] == 1)), "the input should be [C] or [1, C]");
  s[s.rank() - 1] = ctx.fresh();
  ctx.set_output(0, DType::kString, s);
}

void eval_normalizer(EvalContext& ctx, Worker&) {
  const Tensor& t = ctx.tensor(0);
  const Shape& s = t.shape();
  ctx.check(t.dtype() == DType::kString && (s.rank() == 1 || (s.rank() == 2 && s[0] == 1)), "the input should be strings in [C] or [1, C]");
  const std::string action = ctx.node.attr_string("case_change_action", "NONE");
  const bool sensitive = ctx.node.attr_int("is_case_sensitive", 0) != 0;
  std::unordered_set<std::string> stop;
  for (const std::string& w : ctx.node.attr_strings("stopwords")) stop.insert(sensitive ? w : change_case(w, false));
  std::vector<std::string> kept;
  for (int64_t i = 0; i < t.count(); ++i) {
    const std::string& w = t.as<std::string>()[i];
    if (stop.count(sensitive ? w : change_case(w, false))) continue;
    kept.push_back(action == "NONE" ? w : change_case(w, action == "UPPER"));
  }
  if (kept.empty()) kept.emplace_back();
  const auto n = static_cast<Dim>(kept.size());
  Tensor out(DType::kString, s.rank() == 1 ? Shape{n} : Shape{1, n});
  std::move(kept.begin(), kept.end(), out.as<std::string>());
  ctx.set(0, out);
}

// ---- RegexFullMatch

void infer_regex(InferContext& ctx) {
  check_strings(ctx, 0);
  ctx.check(ctx.node.has("pattern"), "attribute 'pattern' is required");
  try {
    Regex{ctx.node.attr_string("pattern", "")};
  } catch (const Error& e) {
    ctx.fail(e.what());
  }
  Type t = ctx.type(0);
  t.dtype = DType::kBool;
  ctx.set_output(0, t);
}

void prepare_regex(PrepareContext& ctx) {
  ctx.run([n = ctx.shape(0).count(), regex = Regex(ctx.node.attr_string("pattern", ""))](const Args& a, Worker& w) {
    w.parallel_for(n, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) a.out<bool>(0)[i] = regex.full_match(a.in<std::string>(0)[i]);
    });
  });
}

const OpRegistration rows({
    {"StringConcat", "", 20, infer_concat, prepare_concat},
    {"StringSplit", "", 20, infer_split, nullptr, eval_split},
    {"StringNormalizer", "", 10, infer_normalizer, nullptr, eval_normalizer},
    {"RegexFullMatch", "", 20, infer_regex, prepare_regex},
});

}  // namespace
}  // namespace tiercel

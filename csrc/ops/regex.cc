#include "ops/regex.h"

#include <algorithm>

#include "base/status.h"

namespace tiercel {
namespace {

constexpr char32_t kLast = 0x10ffff;
constexpr int kMaxRepeat = 1000;            // RE2's own limit
constexpr size_t kMaxProgram = 100000;
constexpr int kMaxDepth = 200;

bool is_word(char32_t c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_'; }

}  // namespace

std::u32string decode_utf8(std::string_view s) {
  std::u32string r;
  for (size_t i = 0; i < s.size();) {
    const auto b = static_cast<unsigned char>(s[i]);
    const int n = b < 0x80 ? 1 : b >= 0xc2 && b < 0xe0 ? 2 : b >= 0xe0 && b < 0xf0 ? 3 : b >= 0xf0 && b < 0xf5 ? 4 : 1;
    char32_t c = n == 1 ? b : b & (0x7f >> n);
    bool whole = i + static_cast<size_t>(n) <= s.size();
    for (int k = 1; whole && k < n; ++k) {
      const auto next = static_cast<unsigned char>(s[i + static_cast<size_t>(k)]);
      whole = (next & 0xc0) == 0x80;
      c = c << 6 | (next & 0x3f);
    }
    r += whole ? c : char32_t{b};
    i += whole ? static_cast<size_t>(n) : 1;
  }
  return r;
}

std::string encode_utf8(std::u32string_view s) {
  std::string r;
  for (char32_t c : s) {
    if (c < 0x80) r += static_cast<char>(c);
    else if (c < 0x800) { r += static_cast<char>(0xc0 | c >> 6); r += static_cast<char>(0x80 | (c & 63)); }
    else if (c < 0x10000) {
      r += static_cast<char>(0xe0 | c >> 12);
      r += static_cast<char>(0x80 | (c >> 6 & 63));
      r += static_cast<char>(0x80 | (c & 63));
    } else {
      r += static_cast<char>(0xf0 | c >> 18);
      for (int shift : {12, 6, 0}) r += static_cast<char>(0x80 | (c >> shift & 63));
    }
  }
  return r;
}

// Recursive descent. Each piece appends its instructions; repetitions and branches cut them out and paste them where they go.
class RegexParser {
 public:
  RegexParser(Regex& regex, std::string_view pattern) : r_(regex), p_(decode_utf8(pattern)) {}

  void run() {
    alternation();
    if (at_ < p_.size()) bad("unmatched ')'");
    emit(Regex::Op::kMatch);
  }

 private:
  using Op = Regex::Op;
  using Ranges = Regex::Ranges;
  struct Flags { bool fold = false, dot_all = false, lines = false; };

  [[noreturn]] void bad(const char* what) const {
    fail(Code::kInvalidArgument, "regular expression \"", encode_utf8(p_), "\": ", what, " at character ", at_);
  }
  bool more() const { return at_ < p_.size(); }
  char32_t peek(size_t ahead = 0) const { return at_ + ahead < p_.size() ? p_[at_ + ahead] : 0; }
  bool take(const char* text) {
    size_t n = 0;
    for (; text[n]; ++n) if (at_ + n >= p_.size() || p_[at_ + n] != static_cast<char32_t>(text[n])) return false;
    at_ += n;
    return true;
  }
  int emit(Op op, int x = 0, int y = 0) {
    if (r_.program_.size() >= kMaxProgram) bad("the expression is too large");
    r_.program_.push_back({op, x, y});
    return static_cast<int>(r_.program_.size()) - 1;
  }
  int here() const { return static_cast<int>(r_.program_.size()); }

  // Instructions from `begin` on, taken out; their targets count from there.
  std::vector<Regex::Instruction> cut(int begin) {
    std::vector<Regex::Instruction> f(r_.program_.begin() + begin, r_.program_.end());
    r_.program_.resize(static_cast<size_t>(begin));
    for (auto& i : f) {
      if (i.op == Op::kSplit || i.op == Op::kJump) i.x -= begin;
      if (i.op == Op::kSplit) i.y -= begin;
    }
    return f;
  }
  void paste(const std::vector<Regex::Instruction>& f) {
    const int begin = here();
    for (const auto& i : f) {
      const bool jumps = i.op == Op::kSplit || i.op == Op::kJump;
      emit(i.op, jumps ? i.x + begin : i.x, i.op == Op::kSplit ? i.y + begin : i.y);
    }
  }

  void alternation() {
    if (++depth_ > kMaxDepth) bad("too deeply nested");
    const Flags outer = flags_;
    std::vector<int> ends;
    for (;;) {
      const int begin = here();
      while (more() && peek() != '|' && peek() != ')') repetition();
      if (!more() || peek() != '|') break;
      ++at_;
      const auto branch = cut(begin);
      const int split = emit(Op::kSplit, begin + 1, -1);
      paste(branch);
      ends.push_back(emit(Op::kJump));
      r_.program_[static_cast<size_t>(split)].y = here();
    }
    for (int e : ends) r_.program_[static_cast<size_t>(e)].x = here();
    flags_ = outer;
    --depth_;
  }

  void repetition() {
    const int begin = here();
    if (!piece()) return;  // flags, or an empty \Q\E
    int low = 0, high = -1;
    if (take("*")) {}
    else if (take("+")) low = 1;
    else if (take("?")) high = 1;
    else if (peek() != '{' || !braces(low, high)) return;
    take("?");  // laziness does not change whether a text matches
    const auto once = cut(begin);
    for (int i = 0; i < low; ++i) paste(once);
    if (high < 0) {
      const int split = emit(Op::kSplit, here() + 1, -1);
      paste(once);
      emit(Op::kJump, split);
      r_.program_[static_cast<size_t>(split)].y = here();
    } else {
      std::vector<int> splits;
      for (int i = low; i < high; ++i) {
        splits.push_back(emit(Op::kSplit, here() + 1, -1));
        paste(once);
      }
      for (int k : splits) r_.program_[static_cast<size_t>(k)].y = here();
    }
    if (peek() == '*' || peek() == '+' || peek() == '?') bad("a repetition of a repetition");
  }

  // {n}, {n,}, {n,m}; anything else is text.
  bool braces(int& low, int& high) {
    size_t i = at_ + 1;
    auto number = [&](int& n) {
      const size_t first = i;
      n = 0;
      for (; i < p_.size() && p_[i] >= '0' && p_[i] <= '9'; ++i) n = std::min(n * 10 + static_cast<int>(p_[i] - '0'), kMaxRepeat + 1);
      return i > first;
    };
    if (!number(low)) return false;
    high = low;
    if (i < p_.size() && p_[i] == ',') {
      ++i;
      if (!number(high)) high = -1;
    }
    if (i >= p_.size() || p_[i] != '}') return false;
    if (low > kMaxRepeat || high > kMaxRepeat || (high >= 0 && high < low)) bad("a repetition count is out of range");
    at_ = i + 1;
    return true;
  }

  bool piece() {
    const char32_t c = p_[at_++];
    switch (c) {
      case '(': return group();
      case '[': set(bracket()); return true;
      case '.': set(flags_.dot_all ? Ranges{{0, kLast}} : Ranges{{0, '\n' - 1}, {'\n' + 1, kLast}}); return true;
      case '^': emit(flags_.lines ? Op::kLineBegin : Op::kBegin); return true;
      case '$': emit(flags_.lines ? Op::kLineEnd : Op::kEnd); return true;
      case '*': case '+': case '?': --at_; bad("nothing to repeat");
      case '\\': return escape();
      default: literal(c); return true;
    }
  }

  bool group() {
    if (take("?")) {
      if (take("P<") || (peek() == '<' && peek(1) != '=' && peek(1) != '!' && take("<"))) {
        while (more() && peek() != '>') ++at_;
        if (!take(">")) bad("a group's name has no end");
      } else {
        Flags f = flags_;
        bool on = true;
        for (;;) {
          if (take(":")) break;
          if (take(")")) { flags_ = f; return false; }
          if (take("-")) on = false;
          else if (take("i")) f.fold = on;
          else if (take("s")) f.dot_all = on;
          else if (take("m")) f.lines = on;
          else if (!take("U")) bad("this kind of group is not supported");
        }
        const Flags outer = flags_;
        flags_ = f;
        alternation();
        flags_ = outer;
        if (!take(")")) bad("a group has no end");
        return true;
      }
    }
    alternation();
    if (!take(")")) bad("a group has no end");
    return true;
  }

  static void add_class(Ranges& to, char32_t name) {
    switch (name) {
      case 'd': to.push_back({'0', '9'}); break;
      case 's': for (char32_t c : {U'\t', U'\n', U'\f', U'\r', U' '}) to.push_back({c, c}); break;
      default: to.insert(to.end(), {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}});
    }
  }

  static Ranges inverse(Ranges r) {
    std::sort(r.begin(), r.end());
    Ranges out;
    char32_t from = 0;
    for (const auto& [a, b] : r) {
      if (a > from) out.push_back({from, a - 1});
      from = std::max<char32_t>(from, b + 1);
    }
    if (from <= kLast) out.push_back({from, kLast});
    return out;
  }

  // \d \D \s \S \w \W: appended to `to`; false when the escape is another.
  bool class_escape(Ranges& to, char32_t c) {
    const char32_t lower = c | 32;
    if (lower != 'd' && lower != 's' && lower != 'w') return false;
    Ranges r;
    add_class(r, lower);
    if (c != lower) r = inverse(std::move(r));
    to.insert(to.end(), r.begin(), r.end());
    return true;
  }

  // The character that an escape (its backslash and first letter taken) stands for.
  char32_t escaped(char32_t c) {
    switch (c) {
      case 'n': return '\n';
      case 't': return '\t';
      case 'r': return '\r';
      case 'f': return '\f';
      case 'v': return '\v';
      case 'a': return '\a';
      case 'x': {
        auto digit = [](char32_t d) { return d >= '0' && d <= '9' ? static_cast<int>(d - '0') : (d | 32) >= 'a' && (d | 32) <= 'f' ? static_cast<int>((d | 32) - 'a') + 10 : -1; };
        char32_t v = 0;
        if (take("{")) {
          while (digit(peek()) >= 0 && v <= kLast) v = v * 16 + static_cast<char32_t>(digit(p_[at_++]));
          if (!take("}") || v > kLast) bad("a wrong \\x{...}");
          return v;
        }
        for (int i = 0; i < 2; ++i) {
          if (digit(peek()) < 0) bad("\\x needs two digits");
          v = v * 16 + static_cast<char32_t>(digit(p_[at_++]));
        }
        return v;
      }
      default: break;
    }
    if (c >= '0' && c <= '7') {
      char32_t v = c - '0';
      for (int i = 0; i < 2 && peek() >= '0' && peek() <= '7'; ++i) v = v * 8 + (p_[at_++] - '0');
      return v;
    }
    if (is_word(c)) { --at_; bad("this escape is not supported"); }
    return c;
  }

  bool escape() {
    if (!more()) bad("a backslash at the end");
    const char32_t c = p_[at_++];
    Ranges r;
    if (class_escape(r, c)) { set(std::move(r)); return true; }
    switch (c) {
      case 'b': emit(Op::kWord); return true;
      case 'B': emit(Op::kNotWord); return true;
      case 'A': emit(Op::kBegin); return true;
      case 'z': emit(Op::kEnd); return true;
      case 'C': set({{0, kLast}}); return true;
      case 'Q': {
        bool any = false;
        while (more() && !take("\\E")) { literal(p_[at_++]); any = true; }
        return any;
      }
      default: literal(escaped(c)); return true;
    }
  }

  Ranges bracket() {
    const bool negated = take("^");
    Ranges r;
    for (bool first = true; first || peek() != ']'; first = false) {
      if (!more()) bad("a '[' has no end");
      if (take("[:")) { named(r); continue; }
      char32_t low = p_[at_++];
      if (low == '\\') {
        if (!more()) bad("a backslash at the end");
        const char32_t c = p_[at_++];
        if (class_escape(r, c)) continue;
        low = escaped(c);
      }
      char32_t high = low;
      if (peek() == '-' && peek(1) != ']' && at_ + 1 < p_.size()) {
        ++at_;
        high = p_[at_++];
        if (high == '\\') {
          if (!more()) bad("a backslash at the end");
          high = escaped(p_[at_++]);
        }
        if (high < low) bad("a range runs backwards");
      }
      r.push_back({low, high});
    }
    ++at_;
    if (flags_.fold) fold(r);
    return negated ? inverse(std::move(r)) : r;
  }

  void named(Ranges& to) {
    const bool negated = take("^");
    struct Named { const char* name; Ranges ranges; };
    static const Named kNames[] = {
        {"alnum:]", {{'0', '9'}, {'A', 'Z'}, {'a', 'z'}}}, {"alpha:]", {{'A', 'Z'}, {'a', 'z'}}}, {"ascii:]", {{0, 127}}},
        {"blank:]", {{'\t', '\t'}, {' ', ' '}}}, {"cntrl:]", {{0, 31}, {127, 127}}}, {"digit:]", {{'0', '9'}}},
        {"graph:]", {{'!', '~'}}}, {"lower:]", {{'a', 'z'}}}, {"print:]", {{' ', '~'}}},
        {"punct:]", {{'!', '/'}, {':', '@'}, {'[', '`'}, {'{', '~'}}}, {"space:]", {{'\t', '\r'}, {' ', ' '}}},
        {"upper:]", {{'A', 'Z'}}}, {"word:]", {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}},
        {"xdigit:]", {{'0', '9'}, {'A', 'F'}, {'a', 'f'}}}};
    for (const Named& n : kNames)
      if (take(n.name)) {
        const Ranges r = negated ? inverse(n.ranges) : n.ranges;
        to.insert(to.end(), r.begin(), r.end());
        return;
      }
    bad("an unknown [:name:]");
  }

  static void fold(Ranges& r) {
    const size_t n = r.size();
    for (size_t i = 0; i < n; ++i) {
      const auto [a, b] = r[i];
      const char32_t ua = std::max<char32_t>(a, 'A'), ub = std::min<char32_t>(b, 'Z'), la = std::max<char32_t>(a, 'a'), lb = std::min<char32_t>(b, 'z');
      if (ua <= ub) r.push_back({ua + 32, ub + 32});
      if (la <= lb) r.push_back({la - 32, lb - 32});
    }
  }

  void literal(char32_t c) {
    Ranges r{{c, c}};
    if (flags_.fold) fold(r);
    set(std::move(r));
  }

  void set(Ranges r) {
    std::sort(r.begin(), r.end());
    size_t i = r_.sets_.size();
    while (i > 0 && r_.sets_[i - 1] != r && r_.sets_.size() - i < 64) --i;  // the recent ones, which repetitions use again
    if (i > 0 && r_.sets_[i - 1] == r) --i;
    else { i = r_.sets_.size(); r_.sets_.push_back(std::move(r)); }
    emit(Op::kSet, static_cast<int>(i));
  }

  Regex& r_;
  const std::u32string p_;
  size_t at_ = 0;
  int depth_ = 0;
  Flags flags_;
};

Regex::Regex(std::string_view pattern) { RegexParser(*this, pattern).run(); }

// Adds what can be reached from instruction `at` without reading a character.
void Regex::follow(int at, const std::u32string& text, size_t place, std::vector<int>& list, std::vector<uint32_t>& seen, uint32_t mark) const {
  std::vector<int> open{at};
  while (!open.empty()) {
    const int i = open.back();
    open.pop_back();
    if (std::exchange(seen[static_cast<size_t>(i)], mark) == mark) continue;
    const Instruction& n = program_[static_cast<size_t>(i)];
    const bool before = place > 0 && is_word(text[place - 1]), after = place < text.size() && is_word(text[place]);
    bool passes = false;
    switch (n.op) {
      case Op::kSplit: open.push_back(n.y); open.push_back(n.x); break;
      case Op::kJump: open.push_back(n.x); break;
      case Op::kBegin: passes = place == 0; break;
      case Op::kEnd: passes = place == text.size(); break;
      case Op::kLineBegin: passes = place == 0 || text[place - 1] == '\n'; break;
      case Op::kLineEnd: passes = place == text.size() || text[place] == '\n'; break;
      case Op::kWord: passes = before != after; break;
      case Op::kNotWord: passes = before == after; break;
      case Op::kSet: case Op::kMatch: list.push_back(i); break;
    }
    if (passes) open.push_back(i + 1);
  }
}

bool Regex::full_match(std::string_view utf8) const {
  const std::u32string text = decode_utf8(utf8);
  std::vector<uint32_t> seen(program_.size(), 0);
  std::vector<int> now, next;
  uint32_t mark = 1;
  follow(0, text, 0, now, seen, mark);
  for (size_t i = 0; i < text.size() && !now.empty(); ++i) {
    next.clear();
    ++mark;
    for (int at : now) {
      const Instruction& n = program_[static_cast<size_t>(at)];
      if (n.op != Op::kSet) continue;
      const Ranges& r = sets_[static_cast<size_t>(n.x)];
      if (std::any_of(r.begin(), r.end(), [&](const auto& range) { return text[i] >= range.first && text[i] <= range.second; }))
        follow(at + 1, text, i + 1, next, seen, mark);
    }
    std::swap(now, next);
  }
  return std::any_of(now.begin(), now.end(), [&](int at) { return program_[static_cast<size_t>(at)].op == Op::kMatch; });
}

}  // namespace tiercel

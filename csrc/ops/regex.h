// Regular expressions in RE2's syntax, matched in time linear in the text (Thompson's construction, CACM 1968), over Unicode
// code points. Groups group; what they captured is not kept. Not supported, and an error: Unicode properties (\pL).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tiercel {

class Regex {
 public:
  explicit Regex(std::string_view pattern);  // throws Error(kInvalidArgument) that says where it is wrong
  bool full_match(std::string_view text) const;

 private:
  friend class RegexParser;
  enum class Op : uint8_t { kSet, kSplit, kJump, kBegin, kEnd, kLineBegin, kLineEnd, kWord, kNotWord, kMatch };
  using Ranges = std::vector<std::pair<char32_t, char32_t>>;
  struct Instruction {
    Op op;
    int x = 0, y = 0;  // targets; of kSet: index in sets_
  };
  void follow(int at, const std::u32string& text, size_t place, std::vector<int>& list, std::vector<uint32_t>& seen, uint32_t mark) const;

  std::vector<Instruction> program_;
  std::vector<Ranges> sets_;
};

// Code points of UTF-8; a byte that does not fit stands for itself.
std::u32string decode_utf8(std::string_view s);
std::string encode_utf8(std::u32string_view s);

}  // namespace tiercel

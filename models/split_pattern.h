// One pre-tokenizer regex: cuts text into matches and what lies between them ("isolated" in HuggingFace's terms).
#pragma once
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quire {

class SplitPattern {
 public:
  // PCRE2 syntax with UTF and UCP; \s and \S mean Unicode White_Space, as in the regex engines these patterns are
  // written for (PCRE2's own \s also takes U+180E). Error with the place of the fault if it does not compile; \C, which
  // cuts characters, does not.
  explicit SplitPattern(std::string pattern);
  ~SplitPattern();
  SplitPattern(SplitPattern&&) noexcept;

  // Appends the pieces of each of `texts` (well-formed UTF-8), which together are all of it. Safe from several threads.
  // Error if a match takes far more steps than the text is long (a pattern that backtracks without end), or all of them
  // together take much longer than any honest pattern does: `patience` seconds of this thread's time, and 5 us a byte.
  void split(std::span<const std::string_view> texts, std::vector<std::string_view>& pieces,
             double patience = 5.0) const;

 private:
  struct Code;
  struct Match;
  void split_one(std::string_view text, Match& match, std::vector<std::string_view>& pieces) const;
  bool find(std::string_view text, size_t from, Match& match) const;

  std::string pattern_;
  std::unique_ptr<Code> code_;
};

}  // namespace quire

#include "models/split_pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <time.h>

#include <algorithm>

#include "base/error.h"
#include "base/printable.h"
#include "base/utf8.h"

namespace quire {

namespace {

// Insides of a character class: Unicode White_Space and its complement.
constexpr const char* kSpace = R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
constexpr const char* kNotSpace =
    R"(\x{0}-\x{8}\x{E}-\x{1F}!-\x{84}\x{86}-\x{9F}\x{A1}-\x{167F}\x{1681}-\x{1FFF}\x{200B}-\x{2027}\x{202A}-\x{202E})"
    R"(\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{D7FF}\x{E000}-\x{10FFFF})";

// Replaces \s and \S, inside and outside of classes.
std::string with_unicode_space(const std::string& pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c != '\\' || i + 1 == pattern.size()) {
      const bool opens = c == '[' && !in_class;
      if (opens) in_class = true;
      if (c == ']') in_class = false;
      out += c;
      if (opens && i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
      if (opens && i + 1 < pattern.size() && pattern[i + 1] == ']') out += pattern[++i];  // a ']' put first is a member
      continue;
    }
    const char next = pattern[++i];
    if (next != 's' && next != 'S') {
      out += c, out += next;
    } else if (in_class) {
      out += next == 's' ? kSpace : kNotSpace;
    } else {
      out += fmt::format("[{}{}]", next == 's' ? "" : "^", kSpace);
    }
  }
  return out;
}

constexpr size_t kMaxPattern = 10000;  // bytes; those of real models have a few hundred

double thread_seconds() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

std::string pcre2_message(int code) {
  PCRE2_UCHAR text[256];
  if (pcre2_get_error_message(code, text, sizeof(text)) < 0) return fmt::format("PCRE2 error {}", code);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct SplitPattern::Code {
  pcre2_code* code = nullptr;
  ~Code() { pcre2_code_free(code); }
};

struct SplitPattern::Match {  // what one call of split() needs beside the compiled pattern
  Match(const pcre2_code* code, double seconds) : deadline(thread_seconds() + seconds) {
    data = pcre2_match_data_create_from_pattern(code, nullptr);
    context = pcre2_match_context_create(nullptr);
    check(data && context, "tokenizer: out of memory while matching");
    pcre2_set_heap_limit(context, 256 * 1024);  // KiB
  }
  ~Match() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
  }
  Match(const Match&) = delete;
  Match& operator=(const Match&) = delete;

  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  double deadline;  // of this thread's own time
  int calls = 0;
};

SplitPattern::SplitPattern(std::string pattern) : pattern_(std::move(pattern)), code_(std::make_unique<Code>()) {
  check(pattern_.size() <= kMaxPattern, "tokenizer: a split pattern of {} bytes; at most {} are supported",
        pattern_.size(), kMaxPattern);
  const std::string source = with_unicode_space(pattern_);
  constexpr uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT;
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(source.data()), source.size(), options, &error, &offset, nullptr);
  check(code_->code, "tokenizer: split pattern '{}' does not compile: {} (before '{}')", printable(pattern_, 300),
        pcre2_message(error), printable(source.substr(std::min<size_t>(offset, source.size()), 20)));
  pcre2_jit_compile(code_->code, PCRE2_JIT_COMPLETE);  // where there is no JIT the interpreter gives the same answers
}

SplitPattern::~SplitPattern() = default;
SplitPattern::SplitPattern(SplitPattern&&) noexcept = default;

void SplitPattern::split(std::span<const std::string_view> texts, std::vector<std::string_view>& pieces,
                         double patience) const {
  size_t bytes = 0;
  for (const std::string_view text : texts) bytes += text.size();
  Match match(code_->code, patience + 5e-6 * double(bytes));
  for (const std::string_view text : texts) split_one(text, match, pieces);
}

// Whether a match begins at text[from] or within the bytes after it; one that does is in match.data.
bool SplitPattern::find(std::string_view text, size_t from, Match& match) const {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  constexpr uint32_t options = PCRE2_NO_UTF_CHECK;
  int rc = pcre2_match(code_->code, subject, text.size(), from, options, match.data, match.context);
  if (rc == PCRE2_ERROR_JIT_STACKLIMIT)  // the JIT's stack is small; the interpreter's is the heap
    rc = pcre2_match(code_->code, subject, text.size(), from, options | PCRE2_NO_JIT, match.data, match.context);
  if (rc == PCRE2_ERROR_NOMATCH) return false;
  check(rc >= 0, "tokenizer: split pattern '{}' on {} bytes of text, from byte {}: {}", printable(pattern_, 300),
        text.size(), from, pcre2_message(rc));
  return true;
}

void SplitPattern::split_one(std::string_view text, Match& match, std::vector<std::string_view>& pieces) const {
  // Steps from one start. Honest patterns take a few a character (the longest backtrack is over one run of spaces).
  pcre2_set_match_limit(match.context, static_cast<uint32_t>(std::min<size_t>(100000 + 16 * text.size(), UINT32_MAX)));
  // Starts of one call: with the steps they bound how long it takes, and between calls one can look at the clock.
  constexpr size_t kStarts = 64;
  size_t done = 0, from = 0;
  while (from < text.size()) {
    check(++match.calls % 16 != 0 || thread_seconds() <= match.deadline,
          "tokenizer: split pattern '{}' takes too long on {} bytes of text", printable(pattern_, 300), text.size());
    const size_t last = std::min(from + kStarts, text.size());
    pcre2_set_offset_limit(match.context, last);
    if (!find(text, from, match)) {
      from = last + 1;
      while (from < text.size() && (static_cast<uint8_t>(text[from]) & 0xC0) == 0x80) ++from;  // whole characters
      continue;
    }
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.data);
    const size_t begin = std::max<size_t>(range[0], done);  // \K and lookbehind must not take back what is given out
    const size_t end = std::max<size_t>(range[1], begin);
    if (begin == end) {  // an empty match cuts nothing
      from = std::max(from, end);
      from += std::max<size_t>(1, utf8_sequence(text, from));
      continue;
    }
    if (begin > done) pieces.push_back(text.substr(done, begin - done));
    pieces.push_back(text.substr(begin, end - begin));
    done = from = end;
  }
  if (done < text.size()) pieces.push_back(text.substr(done));
}

}  // namespace quire

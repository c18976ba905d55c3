// Case and character classes. PCRE2, which the tokenizer needs anyway, has Unicode's tables: its \p{..} classes, and
// case mapping in substitutions.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "base/utf8.h"
#include "engine/jinja/text.h"
#include "engine/jinja/value.h"

namespace quire::jinja {

namespace {

class Pattern {
 public:
  explicit Pattern(const char* pattern) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error,
                          &offset, nullptr);
    if (!code_) refuse("PCRE2 error {} in '{}'", error, pattern);
  }
  ~Pattern() { pcre2_code_free(code_); }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  bool matches(std::string_view text) const {
    pcre2_match_data* data = pcre2_match_data_create_from_pattern(code_, nullptr);
    const int rc = pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0, 0, data, nullptr);
    pcre2_match_data_free(data);
    return rc >= 0;
  }

  // Every match replaced; `text` is well-formed UTF-8.
  std::string substitute(std::string_view text, const char* replacement) const {
    std::string out(text.size() * 3 + 16, '\0');  // one code point becomes one, of at most three times the bytes
    PCRE2_SIZE size = out.size();
    const int rc = pcre2_substitute(code_, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), 0,
                                    PCRE2_SUBSTITUTE_GLOBAL | PCRE2_SUBSTITUTE_EXTENDED | PCRE2_NO_UTF_CHECK, nullptr,
                                    nullptr, reinterpret_cast<PCRE2_SPTR>(replacement), PCRE2_ZERO_TERMINATED,
                                    reinterpret_cast<PCRE2_UCHAR*>(out.data()), &size);
    if (rc < 0) refuse("PCRE2 error {} while changing case", rc);
    out.resize(size);
    return out;
  }

 private:
  pcre2_code* code_;
};

std::string change_case(std::string_view text, const char* replacement) {
  static const Pattern kAll("(?s).+");
  std::string out;
  while (!text.empty()) {
    const size_t valid = utf8_valid_prefix(text);
    if (valid) out += kAll.substitute(text.substr(0, valid), replacement);
    if (valid < text.size()) out += text[valid];
    text.remove_prefix(std::min(text.size(), valid + 1));
  }
  return out;
}

bool valid_and_matches(const Pattern& pattern, std::string_view character) {
  return utf8_sequence(character, 0) == character.size() && !character.empty() && pattern.matches(character);
}

}  // namespace

std::string to_upper(std::string_view text) {
  // PCRE2 maps sharp s to its capital, as simple case mapping has it; Python writes two letters.
  if (find_text(text, "ß", 0) == std::string::npos) return change_case(text, "\\U$0");
  return change_case(replace(text, "ß", "SS", -1), "\\U$0");
}

std::string to_lower(std::string_view text) { return change_case(text, "\\L$0"); }

bool is_letter(std::string_view character) {
  static const Pattern kLetter("\\A\\p{L}\\z");
  return valid_and_matches(kLetter, character);
}

bool is_digit(std::string_view character) {
  static const Pattern kDigit("\\A\\p{Nd}\\z");
  return valid_and_matches(kDigit, character);
}

std::string capitalize(std::string_view text) {
  if (text.empty()) return "";
  const size_t first = std::max<size_t>(1, utf8_sequence(text, 0));
  return to_upper(text.substr(0, first)) + to_lower(text.substr(first));
}

std::string title_method(std::string_view text) {
  std::string out;
  size_t start = 0;
  bool in_word = false;
  const auto flush = [&](size_t end) {
    const std::string_view run = text.substr(start, end - start);
    out += in_word ? capitalize(run) : std::string(run);
    start = end;
  };
  size_t at = 0;
  for (const std::string_view c : characters(text)) {
    if (is_letter(c) != in_word) flush(at), in_word = !in_word;
    at += c.size();
  }
  flush(at);
  return out;
}

std::string title_filter(std::string_view text) {
  const auto starts_word = [](std::string_view c) {
    return is_space(c) || c == "-" || c == "(" || c == "{" || c == "[" || c == "<";
  };
  std::string out;
  size_t start = 0, at = 0;
  for (const std::string_view c : characters(text)) {
    at += c.size();
    if (!starts_word(c)) continue;
    out += capitalize(text.substr(start, at - start));  // the separator has no case
    start = at;
  }
  return out + capitalize(text.substr(start));
}

}  // namespace quire::jinja

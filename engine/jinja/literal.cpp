#include "engine/jinja/literal.h"

#include <charconv>

#include "base/error.h"
#include "base/utf8.h"
#include "engine/jinja/lexer.h"

namespace quire::jinja {

namespace {

bool is_digit_of(char c, int base) {
  const int value = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : 99;
  return value < base;
}

// Digits from `at` on, single underscores between them left out.
std::string digits(std::string_view text, size_t& at, int base) {
  std::string out;
  while (at < text.size()) {
    if (text[at] == '_' && !out.empty() && at + 1 < text.size() && is_digit_of(text[at + 1], base)) ++at;
    if (!is_digit_of(text[at], base)) break;
    out += text[at++];
  }
  return out;
}

int64_t to_integer(const std::string& s, int base, int line) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), value, base);
  if (error != std::errc() || end != s.data() + s.size())
    fail_at(line, fmt::format("number '{}' does not fit 64 bits", s));
  return value;
}

// "u00e9": `count` hexadecimal digits from `at` on.
uint32_t hex(std::string_view text, size_t at, size_t count, int line) {
  uint32_t value = 0;
  const bool enough = at + count <= text.size();
  const char* const end = text.data() + at + count;
  if (!enough || std::from_chars(text.data() + at, end, value, 16).ptr != end)
    fail_at(line, fmt::format("a string has an escape without its {} hexadecimal digits", count));
  return value;
}

}  // namespace

NumberLiteral read_number(std::string_view text, bool integer_only, int line) {
  size_t at = 0;
  if (text[0] == '0' && text.size() > 2) {
    const char letter = static_cast<char>(text[1] | 0x20);
    const int base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 0;
    if (base && is_digit_of(text[2], base)) {
      at = 2;
      const std::string s = digits(text, at, base);
      return {true, to_integer(s, base, line), 0, at};
    }
  }
  std::string s = digits(text, at, 10);
  bool is_float = false;
  const auto fraction_at = [&](size_t i) { return i + 1 < text.size() && is_digit_of(text[i + 1], 10); };
  if (!integer_only && at < text.size() && text[at] == '.' && fraction_at(at)) {
    ++at;
    s += '.' + digits(text, at, 10);
    is_float = true;
  }
  if (!integer_only && at < text.size() && (text[at] == 'e' || text[at] == 'E')) {
    const bool has_sign = at + 1 < text.size() && (text[at + 1] == '+' || text[at + 1] == '-');
    if (fraction_at(at + has_sign)) {
      s += 'e';
      if (text[at + 1] == '-') s += '-';
      at += 1 + has_sign;
      s += digits(text, at, 10);
      is_float = true;
    }
  }
  if (is_float) {
    double value = 0;
    std::from_chars(s.data(), s.data() + s.size(), value);
    return {false, 0, value, at};
  }
  if (s.size() > 1 && s[0] == '0' && s.find_first_not_of('0') != std::string::npos)
    fail_at(line, fmt::format("number '{}' starts with 0", s));
  return {true, to_integer(s, 10, line), 0, at};
}

std::string unescaped(std::string_view text, int line) {
  std::string out;
  const auto put = [&](uint32_t c) {
    if (c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) fail_at(line, "a string has an escape that is no character");
    utf8_append(out, c);
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out += text[i];
      continue;
    }
    const char c = text[++i];
    static constexpr std::string_view kFrom = "\\'\"abfnrtv", kTo = "\\'\"\a\b\f\n\r\t\v";
    if (const size_t k = kFrom.find(c); k != std::string_view::npos) {
      out += kTo[k];
    } else if (c == '\n') {  // the string goes on in the next line
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t count = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      put(hex(text, i + 1, count, line));
      i += count;
    } else if (c >= '0' && c <= '7') {
      uint32_t value = 0;
      size_t n = 0;
      for (; n < 3 && i + n < text.size() && text[i + n] >= '0' && text[i + n] <= '7'; ++n)
        value = value * 8 + static_cast<uint32_t>(text[i + n] - '0');
      put(value);
      i += n - 1;
    } else if (c == 'N') {
      fail_at(line, "strings with \\N{...} are not supported");
    } else {
      out += '\\', out += c;
    }
  }
  return out;
}

}  // namespace quire::jinja

#include "engine/jinja/lexer.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "base/printable.h"
#include "engine/jinja/literal.h"
#include "engine/jinja/text.h"

namespace quire::jinja {

void fail_at(int line, const std::string& message) { fail(fmt::format("chat template, line {}: {}", line, message)); }

std::string describe(const Token& token) {
  switch (token.kind) {
    case Token::Kind::data:
      return "text";
    case Token::Kind::print_begin:
      return "'{{'";
    case Token::Kind::print_end:
      return "'}}'";
    case Token::Kind::block_begin:
      return "'{%'";
    case Token::Kind::block_end:
      return "'%}'";
    case Token::Kind::text:
      return fmt::format("string '{}'", printable(token.text, 40));
    case Token::Kind::integer:
      return fmt::format("{}", token.integer);
    case Token::Kind::number:
      return fmt::format("{}", token.number);
    case Token::Kind::end:
      return "the end of the template";
    default:
      return fmt::format("'{}'", printable(token.text, 40));
  }
}

namespace {

bool is_ascii_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_ascii_digit(char c) { return c >= '0' && c <= '9'; }

// "\r\n" and "\r" become "\n"; one newline at the very end goes.
std::string normalized(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(normalized(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) next_section();
    add(Token::Kind::end);
    return std::move(tokens_);
  }

 private:
  bool sees(std::string_view s, size_t at) const { return source_.compare(at, s.size(), s) == 0; }
  bool sees(std::string_view s) const { return sees(s, at_); }
  char peek(size_t ahead = 0) const { return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0'; }

  void add(Token::Kind kind, std::string text = {}) { tokens_.push_back({kind, line_, std::move(text)}); }

  void advance(size_t n) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(at_),
                                         source_.begin() + static_cast<ptrdiff_t>(at_ + n), '\n'));
    at_ += n;
    if (n) line_starting_ = source_[at_ - 1] == '\n';
  }

  void skip_space() {
    const std::string_view rest = std::string_view(source_).substr(at_);
    advance(rest.size() - strip(rest, std::nullopt, true, false).size());
  }

  // Template text before the tag that opens at `tag`, whose sign ('-', '+' or none) is `sign`.
  void add_data(size_t begin, size_t tag, char sign, bool is_print) {
    std::string_view text = std::string_view(source_).substr(begin, tag - begin);
    if (sign == '-') {
      text = strip(text, std::nullopt, false, true);
    } else if (sign != '+' && !is_print) {
      const size_t newline = text.rfind('\n');
      const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
      if ((line > 0 || line_starting_) && strip(text.substr(line), std::nullopt, true, false).empty())
        text = text.substr(0, line);
    }
    if (!text.empty()) add(Token::Kind::data, std::string(text));
    advance(tag - at_);
  }

  char sign_at(size_t at, bool plus) const {
    const char c = at < source_.size() ? source_[at] : '\0';
    return c == '-' || (plus && c == '+') ? c : '\0';
  }

  // One stretch of text and the tag after it.
  void next_section() {
    size_t tag = at_;
    const auto opens = [&](size_t i) {
      return source_[i] == '{' && i + 1 < source_.size() &&
             (source_[i + 1] == '{' || source_[i + 1] == '%' || source_[i + 1] == '#');
    };
    while (tag < source_.size() && !opens(tag)) ++tag;
    if (tag == source_.size()) {
      add(Token::Kind::data, source_.substr(at_));
      advance(tag - at_);
      return;
    }
    const char kind = source_[tag + 1];
    const char sign = sign_at(tag + 2, true);
    add_data(at_, tag, sign, kind == '{');
    const int opened = line_;
    const size_t open = sign ? 3 : 2;
    if (kind == '#') return comment(open, opened);
    if (kind == '%' && raw(open, opened)) return;
    add(kind == '{' ? Token::Kind::print_begin : Token::Kind::block_begin);
    advance(open);
    tag_content(kind == '{', opened);
  }

  // What may follow the closing brace: '-' takes all white space, a block or comment without '+' one newline.
  void after_close(char sign, bool trims) {
    if (sign == '-')
      skip_space();
    else if (trims && sign != '+' && peek() == '\n')
      advance(1);
  }

  void comment(size_t open, int opened) {
    const size_t end = source_.find("#}", at_ + open);
    if (end == std::string::npos) fail_at(opened, "a comment is not closed ('#}' is missing)");
    const char sign = end > at_ + open ? source_[end - 1] : '\0';
    advance(end + 2 - at_);
    after_close(sign == '-' || sign == '+' ? sign : '\0', true);
  }

  // Length of "name %}" with signs and space at `at`; 0 if something else is there. `sign` is the closing one.
  size_t block_word(std::string_view word, size_t at, char& sign) const {
    size_t i = at;
    while (i < source_.size() && is_ascii_space(source_[i])) ++i;
    if (!sees(word, i)) return 0;
    i += word.size();
    while (i < source_.size() && is_ascii_space(source_[i])) ++i;
    sign = sign_at(i, true);
    if (sign) ++i;
    return sees("%}", i) ? i + 2 - at : 0;
  }

  bool raw(size_t open, int opened) {
    char sign = 0;
    const size_t length = block_word("raw", at_ + open, sign);
    if (!length) return false;
    advance(open + length);
    if (sign == '-') skip_space();  // a newline stays: Jinja trims none here
    for (size_t end = source_.find("{%", at_); end != std::string::npos; end = source_.find("{%", end + 2)) {
      const char begin_sign = sign_at(end + 2, true);
      const size_t skip = begin_sign ? 3 : 2;
      const size_t end_length = block_word("endraw", end + skip, sign);
      if (!end_length) continue;
      add_data(at_, end, begin_sign, false);
      advance(skip + end_length);
      after_close(sign, true);
      return true;
    }
    fail_at(opened, "'raw' is not closed ('endraw' is missing)");
  }

  // Tokens up to the end of a tag.
  void tag_content(bool is_print, int opened) {
    std::string brackets;  // open ones; inside, "}}" closes dicts
    const char* const close = is_print ? "}}" : "%}";
    while (true) {
      skip_space();
      if (at_ == source_.size()) fail_at(opened, fmt::format("a tag is not closed ('{}' is missing)", close));
      const char sign = sign_at(at_, !is_print);
      if (brackets.empty() && sees(close, at_ + (sign ? 1 : 0))) {
        add(is_print ? Token::Kind::print_end : Token::Kind::block_end);
        advance(sign ? 3 : 2);
        return after_close(sign, !is_print);
      }
      token(brackets);
    }
  }

  void token(std::string& brackets) {
    const char c = peek();
    if (is_name_start(c)) {
      size_t n = 1;
      while (is_name_start(peek(n)) || is_ascii_digit(peek(n))) ++n;
      add(Token::Kind::name, source_.substr(at_, n));
      advance(n);
    } else if (is_ascii_digit(c)) {
      number_token();
    } else if (c == '"' || c == '\'') {
      size_t n = 1;
      while (at_ + n < source_.size() && source_[at_ + n] != c) n += source_[at_ + n] == '\\' ? 2 : 1;
      if (at_ + n >= source_.size()) fail_at(line_, "a string is not closed");
      add(Token::Kind::text, unescaped(std::string_view(source_).substr(at_ + 1, n - 1), line_));
      advance(n + 1);
    } else {
      operator_token(brackets);
    }
  }

  void number_token() {
    const bool after_dot = !tokens_.empty() && tokens_.back().is_op(".");  // x.0.1 has no float in it
    const NumberLiteral literal = read_number(std::string_view(source_).substr(at_), after_dot, line_);
    add(literal.is_integer ? Token::Kind::integer : Token::Kind::number);
    tokens_.back().integer = literal.integer;
    tokens_.back().number = literal.number;
    advance(literal.length);
  }

  void operator_token(std::string& brackets) {
    static const char* const kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
                                             "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const char* op : kOperators) {
      if (!sees(op)) continue;
      if (*op == '(' || *op == '[' || *op == '{') brackets += *op == '(' ? ')' : *op == '[' ? ']' : '}';
      if (*op == ')' || *op == ']' || *op == '}') {
        if (brackets.empty() || brackets.back() != *op) fail_at(line_, fmt::format("unexpected '{}'", op));
        brackets.pop_back();
      }
      add(Token::Kind::op, op);
      return advance(std::string_view(op).size());
    }
    fail_at(line_, fmt::format("unexpected character '{}'",
                               printable(characters(std::string_view(source_).substr(at_, 4))[0])));
  }

  const std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starting_ = true;  // what was read last ended with a newline
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> lex(std::string_view source) { return Lexer(source).run(); }

}  // namespace quire::jinja

// Template text to tokens, with Jinja's white space rules as HuggingFace sets them (trim_blocks, lstrip_blocks).
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quire::jinja {

struct Token {
  enum class Kind : uint8_t {
    data,
    print_begin,
    print_end,
    block_begin,
    block_end,
    name,
    text,
    integer,
    number,
    op,
    end
  };
  Kind kind;
  int line;
  std::string text;  // data, name, text (unescaped), op
  int64_t integer = 0;
  double number = 0;

  bool is_op(std::string_view op) const { return kind == Kind::op && text == op; }
  bool is_name(std::string_view name) const { return kind == Kind::name && text == name; }
};

// The last token is `end`. Error with the line on what is no template.
std::vector<Token> lex(std::string_view source);

std::string describe(const Token& token);                         // for errors
[[noreturn]] void fail_at(int line, const std::string& message);  // Error("chat template, line N: ...")

}  // namespace quire::jinja

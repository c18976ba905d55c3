// Numbers and strings as templates write them.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace quire::jinja {

struct NumberLiteral {
  bool is_integer;
  int64_t integer;
  double number;
  size_t length;  // of the literal in the text
};
// The number at the start of `text`, which begins with a digit.
NumberLiteral read_number(std::string_view text, bool integer_only, int line);

// The inside of a string literal with its escapes resolved, as Python does it.
std::string unescaped(std::string_view text, int line);

}  // namespace quire::jinja

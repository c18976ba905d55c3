// Text from files, made safe to show: in errors, in `inspect`, on a terminal.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace quire {

// Control characters (also those that turn the direction of text), backslashes and bytes that are not UTF-8 are escaped
// as in C; what would pass max_bytes is cut ("...").
std::string printable(std::string_view text, size_t max_bytes = 80);

}  // namespace quire

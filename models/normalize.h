// What is done to text before it is cut into tokens.
#pragma once
#include <string>
#include <string_view>

namespace quire {

constexpr std::string_view kSpaceLetter = "\xE2\x96\x81";  // U+2581, a space in the tokens of SentencePiece

std::string replaced(std::string_view text, std::string_view what, std::string_view by);

// Whether this build can normalize; if not, nfc() is an Error that names the library.
constexpr bool kHasNfc = QUIRE_WITH_UTF8PROC;
// Unicode Normalization Form C of well-formed UTF-8.
std::string nfc(std::string_view text);

// Bytes of the run of Unicode white space that text begins, or ends, with.
size_t leading_space(std::string_view text);
size_t trailing_space(std::string_view text);

}  // namespace quire
